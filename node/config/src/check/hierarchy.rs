//! `validate-supplemental-prow-config-hierarchy`: supplemental files stand in directories named like the org and
//! repository that they are about (CFG-059). Files directly below the root may be about anything.

use super::Warning;
use crate::decode::{Cx, Decode as _};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::{Content, FileSet};
use crate::load::document;
use crate::plugins::PluginConfig;
use crate::prow::{ProwConfig, Scope};

/// Looks at all supplemental files; those that do not parse were reported when they were loaded.
pub(super) fn check(files: &FileSet) -> Vec<Diagnostic> {
    let layout = &files.layout;
    let mut found = Vec::new();
    let of_config = |path: &str, content: &Content| {
        let root = document(path, content.bytes()?, &mut Vec::new())?;
        let mut cx = Cx::new(path, false);
        Some(ProwConfig::decode(&root, &mut cx).scope())
    };
    for (path, content) in files.supplementals() {
        let Some(root) = root_of(path, &layout.supplemental_dirs) else {
            continue;
        };
        found.extend(problem(path, root, || of_config(path, content)));
    }
    let of_plugins = |path: &str, content: &Content| {
        let root = document(path, content.bytes()?, &mut Vec::new())?;
        Some(PluginConfig::read_alone(path, &root).scope())
    };
    for (path, content) in files.plugin_supplementals() {
        let Some(root) = root_of(path, &layout.plugin_supplemental_dirs) else {
            continue;
        };
        found.extend(problem(path, root, || of_plugins(path, content)));
    }
    found
}

fn root_of<'a>(path: &str, dirs: &'a [String]) -> Option<&'a str> {
    let below = |dir: &&String| {
        path.strip_prefix(dir.trim_end_matches('/'))
            .is_some_and(|rest| rest.starts_with('/'))
    };
    dirs.iter().find(below).map(|dir| dir.trim_end_matches('/'))
}

fn problem(path: &str, root: &str, scope: impl FnOnce() -> Option<Scope>) -> Option<Diagnostic> {
    let below = path.strip_prefix(root)?.trim_start_matches('/');
    let parts: Vec<&str> = below.split('/').collect();
    let found = |message: String| {
        let rule = Rule::Warning(Warning::ValidateSupplementalProwConfigHierarchy);
        Some(Diagnostic::error(rule, path, message).warning())
    };
    let (wanted, head) = match parts[..] {
        [_] => return None,
        [org, _] => (
            org.to_owned(),
            format!("config {path} is invalid: Must contain only config for org {org}, but"),
        ),
        [org, repo, _] => (
            format!("{org}/{repo}"),
            format!(
                "config {path} is invalid: Must only contain config for repo {org}/{repo}, but"
            ),
        ),
        _ => {
            return found(format!(
                "config {path} is at an invalid location. All configs must be below {root}. If they are org-specific, they \
                 must be in a folder named like the org. If they are repo-specific, they must be in a folder named like the \
                 repo below a folder named like the org."
            ));
        }
    };
    let scope = scope()?;
    let mut others = Vec::new();
    if scope.global {
        others.push("contains global config".to_owned());
    }
    let is_other = |name: &&String| **name != wanted;
    others.extend(
        scope
            .orgs
            .iter()
            .filter(is_other)
            .map(|org| format!("contains config for org {org}")),
    );
    others.extend(
        scope
            .repos
            .iter()
            .filter(is_other)
            .map(|repo| format!("contains config for repo {repo}")),
    );
    let has_own = scope.orgs.contains(&wanted) || scope.repos.contains(&wanted);
    if others.is_empty() {
        // Upstream's sentence ends in the middle here.
        return if has_own {
            None
        } else {
            found(format!("{head} contains none"))
        };
    }
    found(format!("{head} {}", others.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Files, told};

    const GLOBAL: &str = "slack_reporter_configs:\n  '*': {channel: c}\n";
    const ORG: &str = "branch-protection: {orgs: {my-org: {protect: true}}}\ntide: {merge_method: {my-org: squash}}\nslack_reporter_configs: {my-org: {channel: c}}\n";
    const REPO: &str = "branch-protection: {orgs: {my-org: {repos: {my-repo: {protect: true}}}}}\ntide: {merge_method: {my-org/my-repo: squash}}\nslack_reporter_configs: {my-org/my-repo: {channel: c}}\n";
    const ORG_PLUGINS: &str = "label: {restricted_labels: {my-org: [{label: x}]}}\nplugins: {my-org: {plugins: [assign]}}\n";
    const REPO_PLUGINS: &str = "plugins: {my-org/my-repo: {plugins: [assign]}}\n";

    fn check(files: &[(&str, &str)]) -> String {
        let set = files.iter().fold(
            Files::default().plugins("plugins: {}\n").supplements(
                "root",
                "cfg.yaml",
                "plugins.yaml",
            ),
            |set, (path, text)| set.file(&format!("root/{path}"), text),
        );
        told(set, &["validate-supplemental-prow-config-hierarchy"])
    }

    /// The cases are upstream's.
    #[test]
    fn cfg_059_files_stand_where_what_they_are_about_says() {
        assert_eq!(check(&[("OWNERS", "some-owners")]), "");
        assert_eq!(
            check(&[
                ("cfg.yaml", GLOBAL),
                ("my-org/cfg.yaml", ORG),
                ("my-org/plugins.yaml", ORG_PLUGINS)
            ]),
            ""
        );
        assert_eq!(
            check(&[
                ("my-org/my-repo/cfg.yaml", REPO),
                ("my-org/my-repo/plugins.yaml", REPO_PLUGINS)
            ]),
            ""
        );
        insta::assert_snapshot!(check(&[("other/cfg.yaml", ORG), ("other/plugins.yaml", ORG_PLUGINS)]), @"
        root/other/cfg.yaml: config root/other/cfg.yaml is invalid: Must contain only config for org other, but contains config for org my-org
        root/other/plugins.yaml: config root/other/plugins.yaml is invalid: Must contain only config for org other, but contains config for org my-org
        ");
        insta::assert_snapshot!(check(&[("my-org/cfg.yaml", REPO), ("my-org/plugins.yaml", REPO_PLUGINS)]), @"
        root/my-org/cfg.yaml: config root/my-org/cfg.yaml is invalid: Must contain only config for org my-org, but contains config for repo my-org/my-repo
        root/my-org/plugins.yaml: config root/my-org/plugins.yaml is invalid: Must contain only config for org my-org, but contains config for repo my-org/my-repo
        ");
        insta::assert_snapshot!(check(&[("my-org/other/cfg.yaml", REPO), ("my-org/my-repo/plugins.yaml", ORG_PLUGINS)]), @"
        root/my-org/my-repo/plugins.yaml: config root/my-org/my-repo/plugins.yaml is invalid: Must only contain config for repo my-org/my-repo, but contains config for org my-org
        root/my-org/other/cfg.yaml: config root/my-org/other/cfg.yaml is invalid: Must only contain config for repo my-org/other, but contains config for repo my-org/my-repo
        ");
        insta::assert_snapshot!(check(&[("my-org/my-repo/nest/cfg.yaml", ORG)]), @"root/my-org/my-repo/nest/cfg.yaml: config root/my-org/my-repo/nest/cfg.yaml is at an invalid location. All configs must be below root. If they are org-specific, they must be in a folder named like the org. If they are repo-specific, they must be in a folder named like the repo below a folder named like the org.");
        insta::assert_snapshot!(check(&[("my-org/cfg.yaml", GLOBAL)]), @"root/my-org/cfg.yaml: config root/my-org/cfg.yaml is invalid: Must contain only config for org my-org, but contains global config");
    }

    /// A file that cannot be read is an error of the load already.
    #[test]
    fn cfg_116_a_broken_shard_is_told_once() {
        let found = check(&[("my-org/cfg.yaml", "[]"), ("my-org/plugins.yaml", "a: [")]);
        assert_eq!(found.lines().count(), 2, "{found}");
    }
}
