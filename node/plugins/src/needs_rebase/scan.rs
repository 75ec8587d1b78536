//! What is searched for to look at every pull request (PLG-NEEDSREBASE-002, PLG-NEEDSREBASE-003). Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use trireme_config::PluginConfig;
use trireme_forge::RepoId;

use super::NAME;

const OPEN: &str = "archived:false is:pr is:open";
/// An org with more open pull requests than one search returns, most of them in one repository.
const LARGE: &str = "kubernetes";
/// Splits them about in half.
const TWO_MONTHS: SignedDuration = SignedDuration::from_hours(60 * 24);

/// One search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) text: String,
    /// Whose installation searches.
    pub(crate) org: Option<String>,
}

/// Everything where the plugin is on. `per_org`: whether a search sees one org only, as under a GitHub App.
pub(crate) fn queries(config: &PluginConfig, now: Timestamp, per_org: bool) -> Vec<Query> {
    let named = config.core.external_plugins.iter();
    let named = named.filter(|(_, plugins)| plugins.iter().any(|plugin| plugin.name == NAME));
    let (repos, orgs): (Vec<&str>, Vec<&str>) = named
        .map(|(name, _)| name.as_str())
        .partition(|name| name.contains('/'));
    let mut queries = Vec::new();
    for &org in &orgs {
        let query = |rest: String| Query {
            text: format!("{OPEN} {rest}"),
            org: Some(org.to_owned()),
        };
        if org == LARGE {
            let since = now.saturating_sub(TWO_MONTHS).unwrap_or(now);
            let since = since.strftime("%Y-%m-%d");
            let large = format!("repo:\"{LARGE}/{LARGE}\"");
            queries.push(query(format!("org:\"{LARGE}\" -{large}")));
            queries.push(query(format!("{large} created:>={since}")));
            queries.push(query(format!("{large} created:<{since}")));
        } else {
            queries.push(query(format!("org:\"{org}\"")));
        }
    }
    let mut joined: BTreeMap<Option<String>, String> = BTreeMap::new();
    for name in repos {
        let Ok(repo) = name.parse::<RepoId>() else {
            tracing::warn!(name, "no repository: needs-rebase does not look there");
            continue;
        };
        if orgs.contains(&repo.org.as_str()) {
            tracing::warn!(name, "needs-rebase is on for all of its org already");
            continue;
        }
        let text = joined
            .entry(per_org.then_some(repo.org))
            .or_insert_with(|| OPEN.to_owned());
        text.push_str(&format!(" repo:\"{name}\""));
    }
    queries.extend(joined.into_iter().map(|(org, text)| Query { text, org }));
    queries
}

/// Those that merge into a branch.
pub(crate) fn of_branch(repo: &RepoId, branch: &str) -> Query {
    Query {
        text: format!("{OPEN} repo:\"{repo}\" base:\"{branch}\""),
        org: Some(repo.org.clone()),
    }
}

#[cfg(test)]
mod tests {
    use trireme_config::plugins::ExternalPlugin;

    use super::*;

    fn config(names: &[&str]) -> PluginConfig {
        let mut config = PluginConfig::default();
        for name in names {
            let plugin = |name: &str| ExternalPlugin {
                name: name.to_owned(),
                ..ExternalPlugin::default()
            };
            let plugins = vec![plugin("refresh"), plugin(NAME)];
            config
                .core
                .external_plugins
                .insert((*name).to_owned(), plugins);
        }
        let other = ExternalPlugin {
            name: "refresh".into(),
            ..ExternalPlugin::default()
        };
        config
            .core
            .external_plugins
            .insert("other".into(), vec![other]);
        config
    }

    fn told(names: &[&str], per_org: bool) -> String {
        let now = "2026-03-02T00:00:00Z".parse().unwrap();
        let queries = queries(&config(names), now, per_org).into_iter();
        let lines =
            queries.map(|query| format!("{}: {}", query.org.unwrap_or_default(), query.text));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// PLG-NEEDSREBASE-002
    #[test]
    fn plg_needsrebase_002_what_is_searched_for() {
        insta::assert_snapshot!(told(&["b", "a/x", "c/y", "c/z"], false), @r#"
        b: archived:false is:pr is:open org:"b"
        : archived:false is:pr is:open repo:"a/x" repo:"c/y" repo:"c/z"
        "#);
        insta::assert_snapshot!(told(&["b", "b/w", "a/x", "c/y", "c/z"], true), @r#"
        b: archived:false is:pr is:open org:"b"
        a: archived:false is:pr is:open repo:"a/x"
        c: archived:false is:pr is:open repo:"c/y" repo:"c/z"
        "#);
        assert_eq!(told(&[], false), "");
        let branch = of_branch(&RepoId::new("o", "r"), "main");
        assert_eq!(
            branch.text,
            r#"archived:false is:pr is:open repo:"o/r" base:"main""#
        );
    }

    /// PLG-NEEDSREBASE-003
    #[test]
    fn plg_needsrebase_003_the_largest_org_is_split() {
        insta::assert_snapshot!(told(&["kubernetes"], false), @r#"
        kubernetes: archived:false is:pr is:open org:"kubernetes" -repo:"kubernetes/kubernetes"
        kubernetes: archived:false is:pr is:open repo:"kubernetes/kubernetes" created:>=2026-01-01
        kubernetes: archived:false is:pr is:open repo:"kubernetes/kubernetes" created:<2026-01-01
        "#);
    }
}
