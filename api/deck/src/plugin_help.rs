//! What plugins say about themselves: Prow's JSON for programs (HOOK-080 … 082, DECK-033), and pages of commands
//! (DECK-075) and of plugins (DECK-076) for people. Where it comes from is the node's business.

mod cards;
mod commands;
pub(crate) mod external;
mod safe_html;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use axum::{
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Deck;

pub(crate) use cards::page as cards;
pub(crate) use commands::page as commands;

/// Whoever knows the plugins and their configuration.
#[async_trait]
pub trait HelpSource: Send + Sync + 'static {
    /// Of the configuration in force on this node; empty while there is none.
    async fn help(&self) -> Arc<Help>;
}

/// Absent lists are `null`, as Go writes them.
fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn null_if_empty<T: Serialize, S: serde::Serializer>(
    list: &[T],
    out: S,
) -> Result<S::Ok, S::Error> {
    if list.is_empty() {
        out.serialize_none()
    } else {
        list.serialize(out)
    }
}

/// All there is to know, in the JSON of Prow's hook (HOOK-080).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Help {
    /// `org/repo` of all that any plugin is on for, orgs expanded.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "list")]
    pub all_repos: Vec<String>,
    /// By org or `org/repo`, as configured; `""` has all plugins.
    pub repo_plugins: BTreeMap<String, Vec<String>>,
    /// The same of plugins that Prow runs as processes of their own.
    pub repo_external_plugins: BTreeMap<String, Vec<String>>,
    /// By name. A plugin of [`Self::repo_plugins`] that is not here is not built in.
    pub plugin_help: BTreeMap<String, PluginHelp>,
    /// By name. A plugin of [`Self::repo_external_plugins`] that is not here did not answer.
    pub external_plugin_help: BTreeMap<String, PluginHelp>,
}

/// One plugin (HOOK-081).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PluginHelp {
    /// May hold HTML.
    pub description: String,
    /// `org/repo` to what is configured there, which may hold HTML; `""` for everywhere.
    pub config: Option<BTreeMap<String, String>>,
    /// A commented piece of `plugins.yaml`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub snippet: String,
    #[serde(serialize_with = "null_if_empty", deserialize_with = "list")]
    pub events: Vec<String>,
    #[serde(serialize_with = "null_if_empty", deserialize_with = "list")]
    pub commands: Vec<Command>,
}

/// One command of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Command {
    pub usage: String,
    /// Worth showing to newcomers.
    pub featured: bool,
    pub description: String,
    #[serde(serialize_with = "null_if_empty", deserialize_with = "list")]
    pub examples: Vec<String>,
    /// May hold HTML.
    pub who_can_use: String,
}

impl Help {
    /// Names of the plugins that are on for `org/repo`, or of all if it is empty; the flag is whether it is external.
    fn plugins_of(&self, repo: &str) -> BTreeSet<(String, bool)> {
        let org = repo.split('/').next().unwrap_or_default();
        let keys = BTreeSet::from([org, repo]);
        let mut names = BTreeSet::new();
        for (map, is_external) in [
            (&self.repo_plugins, false),
            (&self.repo_external_plugins, true),
        ] {
            for (key, plugins) in map {
                // Without a repository, what is on somewhere; every built-in plugin is under "".
                if repo.is_empty() || keys.contains(key.as_str()) {
                    names.extend(plugins.iter().map(|name| (name.clone(), is_external)));
                }
            }
        }
        names
    }

    fn of(&self, name: &str, is_external: bool) -> Option<&PluginHelp> {
        if is_external {
            self.external_plugin_help.get(name)
        } else {
            self.plugin_help.get(name)
        }
    }

    /// Where a plugin is on, as configured.
    fn places_of(&self, name: &str, is_external: bool) -> Vec<&str> {
        let map = match is_external {
            true => &self.repo_external_plugins,
            false => &self.repo_plugins,
        };
        map.iter()
            .filter(|(key, plugins)| !key.is_empty() && plugins.iter().any(|on| on == name))
            .map(|(key, _)| key.as_str())
            .collect()
    }
}

/// HOOK-080: as Prow's hook answers on its own port. A browser that came here for a page is sent to one.
pub(crate) async fn hook(State(deck): State<Deck>, method: Method, headers: HeaderMap) -> Response {
    let no_cache = [(header::CACHE_CONTROL, "no-cache")];
    if method != Method::GET {
        let told = "405 Method not allowed\n";
        return (StatusCode::METHOD_NOT_ALLOWED, no_cache, told).into_response();
    }
    let accept = headers.get(header::ACCEPT);
    if accept.is_some_and(|kinds| kinds.as_bytes().starts_with(b"text/html")) {
        let to = [(header::LOCATION, "/command-help")];
        return (StatusCode::MOVED_PERMANENTLY, to).into_response();
    }
    (no_cache, axum::Json(&*deck.help.help().await)).into_response()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Script {
    var: String,
}

/// DECK-033: for Deck's own scripts of Prow, as `var NAME = …;` if a name is asked for.
pub(crate) async fn script(State(deck): State<Deck>, Query(asked): Query<Script>) -> Response {
    let help = deck.help.help().await;
    let json = match serde_json::to_string(&*help) {
        Ok(json) => json,
        Err(why) => {
            tracing::error!(%why, "plugin help cannot be told");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let no_store = (header::CACHE_CONTROL, "no-store, must-revalidate");
    if asked.var.is_empty() {
        return ([no_store, (header::CONTENT_TYPE, "application/json")], json).into_response();
    }
    if !is_name(&asked.var) {
        return (StatusCode::BAD_REQUEST, "var: letters, digits and _ only\n").into_response();
    }
    let text = format!("var {} = {json};", asked.var);
    (
        [no_store, (header::CONTENT_TYPE, "application/javascript")],
        text,
    )
        .into_response()
}

/// What pages are asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    /// `org/repo`; empty for all.
    repo: String,
    /// Part of a command, or of what it is for.
    q: String,
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// `hold` on for an org, `lgtm` for a repository, `cat` not built, `echo` elsewhere, `mute` without an answer.
    pub(crate) fn help() -> Help {
        let command = |usage: &str, featured, who: &str| Command {
            usage: usage.to_owned(),
            featured,
            description: "Does it.".to_owned(),
            examples: vec![usage.to_owned()],
            who_can_use: who.to_owned(),
        };
        let plugin = |description: &str, commands: Vec<Command>| PluginHelp {
            description: description.to_owned(),
            config: Some([("acme/widget".to_owned(), "It is <b>on</b>.".to_owned())].into()),
            snippet: "hold: {}\n".to_owned(),
            events: vec!["issue_comment".to_owned()],
            commands,
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Help {
            all_repos: vec!["acme/gadget".to_owned(), "acme/widget".to_owned()],
            repo_plugins: [
                (String::new(), names(&["hold", "lgtm", "wip"])),
                ("acme".to_owned(), names(&["hold", "cat"])),
                ("acme/widget".to_owned(), names(&["lgtm"])),
            ]
            .into(),
            repo_external_plugins: [
                (String::new(), names(&["echo", "mute"])),
                ("acme/widget".to_owned(), names(&["echo", "mute"])),
            ]
            .into(),
            plugin_help: [
                (
                    "hold".to_owned(),
                    plugin(
                        "Keeps it from merging. And more.",
                        vec![command("/[un]hold [cancel]", false, "Anyone")],
                    ),
                ),
                (
                    "lgtm".to_owned(),
                    plugin(
                        "Looks good.",
                        vec![command(
                            "/lgtm [cancel]",
                            true,
                            "<a href=\"https://x\">Reviewers</a>",
                        )],
                    ),
                ),
                ("wip".to_owned(), plugin("Marks drafts.", Vec::new())),
            ]
            .into(),
            external_plugin_help: [(
                "echo".to_owned(),
                plugin(
                    "Says it again.",
                    vec![command("/echo", false, "<script>x</script>")],
                ),
            )]
            .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HOOK-080, HOOK-081, DECK-033
    #[test]
    fn hook_080_the_json_is_prows() {
        let help = Help {
            repo_plugins: [(String::new(), vec!["wip".to_owned()])].into(),
            plugin_help: [("wip".to_owned(), PluginHelp::default())].into(),
            ..Help::default()
        };
        let json = serde_json::to_string(&help).unwrap();
        insta::assert_snapshot!(json, @r#"{"AllRepos":null,"RepoPlugins":{"":["wip"]},"RepoExternalPlugins":{},"PluginHelp":{"wip":{"Description":"","Config":null,"Events":null,"Commands":null}},"ExternalPluginHelp":{}}"#);
        assert_eq!(serde_json::from_str::<Help>(&json).unwrap(), help);
        let help = testing::help();
        let json = serde_json::to_string(&help).unwrap();
        assert_eq!(serde_json::from_str::<Help>(&json).unwrap(), help);
    }

    #[test]
    fn plugins_of_a_repository_are_its_orgs_and_its_own() {
        let help = testing::help();
        let told = |repo: &str| {
            let names = help.plugins_of(repo).into_iter();
            names.map(|(name, _)| name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told("acme/widget"), "cat echo hold lgtm mute");
        assert_eq!(told("acme/gadget"), "cat hold");
        assert_eq!(told(""), "cat echo hold lgtm mute wip");
        assert_eq!(told("other/repo"), "");
        assert_eq!(help.places_of("hold", false), ["acme"]);
        assert_eq!(help.places_of("wip", false), [""; 0]);
    }
}
