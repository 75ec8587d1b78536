//! What plugins are told by each node's settings: the flags of Prow's hook and of its external plugins.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use trireme_outside::{jira::JiraAuth, service::Secret, slack::SLACK_API};
use trireme_plugins::{
    CherrypickerOptions, FunOptions, JiraOptions, NeedsRebaseOptions, PluginOptions, Plugins,
    SlackOptions,
};

use crate::{secrets::Secrets, settings::Settings};

/// Prow's `cherrypicker`; the keys are its flags (PLG-CHERRYPICK-001).
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CherrypickerSettings {
    pub labels: Vec<String>,
    pub use_prow_assignments: bool,
    pub allow_all: bool,
    pub create_issue_on_conflict: bool,
    pub label_prefix: String,
}

impl Default for CherrypickerSettings {
    fn default() -> Self {
        let CherrypickerOptions {
            labels,
            use_prow_assignments,
            allow_all,
            create_issue_on_conflict,
            label_prefix,
        } = CherrypickerOptions::default();
        Self {
            labels,
            use_prow_assignments,
            allow_all,
            create_issue_on_conflict,
            label_prefix,
        }
    }
}

impl CherrypickerSettings {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.label_prefix.is_empty(),
            "cherrypicker.label_prefix: empty, so that every label would ask for a cherry-pick; leave it out for \"cherrypick/\""
        );
        ensure!(
            self.labels.iter().all(|label| !label.trim().is_empty()),
            "cherrypicker.labels: \"\" is no label; leave it out"
        );
        Ok(())
    }
}

/// Prow's `needs-rebase`; the keys are its flags (PLG-NEEDSREBASE-002, PLG-NEEDSREBASE-004).
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct NeedsRebaseSettings {
    pub update_period_seconds: u64,
    pub cache_valid_seconds: u64,
}

impl Default for NeedsRebaseSettings {
    fn default() -> Self {
        let NeedsRebaseOptions {
            update_period,
            cache_valid_time,
        } = NeedsRebaseOptions::default();
        Self {
            update_period_seconds: update_period.as_secs(),
            cache_valid_seconds: cache_valid_time.as_secs(),
        }
    }
}

impl NeedsRebaseSettings {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.update_period_seconds > 0,
            "needs_rebase.update_period_seconds: must be at least 1"
        );
        Ok(())
    }
}

/// What holds for all plugins.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginsSettings {
    /// Whether services elsewhere are asked for pictures and jokes (PLG-FUN-006).
    pub fun: bool,
    /// Names of external plugins that are built in, and whose endpoints get their webhooks all the same (HOOK-030).
    pub elsewhere: Vec<String>,
}

impl Default for PluginsSettings {
    fn default() -> Self {
        Self {
            fun: true,
            elsewhere: Vec::new(),
        }
    }
}

impl PluginsSettings {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let all = Plugins::built_in();
        for name in &self.elsewhere {
            ensure!(
                all.external(name).is_some(),
                "plugins.elsewhere: {name:?} is no external plugin that is built in, leave it out: what external_plugins in \
                 plugins.yaml names besides {} is called anyway",
                all.external_names().collect::<Vec<_>>().join(", ")
            );
        }
        Ok(())
    }

    /// The plugins that run here.
    #[must_use]
    pub fn run_here(&self) -> Plugins {
        Plugins::built_in().elsewhere(&self.elsewhere)
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlackSettings {
    /// Prow's `--slack-token-file`; without it nobody is told (HOOK-002).
    pub token_file: Option<PathBuf>,
}

/// The keys are Prow's `--jira-…` flags.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JiraSettings {
    pub endpoint: String,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
}

impl JiraSettings {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.endpoint.starts_with("http://") || self.endpoint.starts_with("https://"),
            "jira.endpoint: {:?} must start with https:// or http://",
            self.endpoint
        );
        ensure!(
            self.username.is_some() == self.password_file.is_some(),
            "jira: username and password_file belong together"
        );
        ensure!(
            self.username.is_none() || self.bearer_token_file.is_none(),
            "jira: give either bearer_token_file, or username with password_file"
        );
        Ok(())
    }
}

/// All of it, with secrets that are read anew when their files change.
///
/// # Errors
/// A file of a secret cannot be read.
pub(crate) fn options(settings: &Settings, secrets: &Secrets) -> anyhow::Result<PluginOptions> {
    let secret = |key: &'static str, path: &Path| -> anyhow::Result<Secret> {
        let file = secrets.text(key, path).context("plugins")?;
        Ok(std::sync::Arc::new(move || file.get().to_string()))
    };
    let dry_run = settings
        .github
        .as_ref()
        .is_some_and(|github| github.dry_run);
    let slack = match &settings.slack.token_file {
        Some(path) if !dry_run => Some(SlackOptions {
            api: SLACK_API.to_owned(),
            token: secret("slack.token_file", path)?,
        }),
        _ => None,
    };
    let jira = match &settings.jira {
        None => None,
        Some(jira) => Some(JiraOptions {
            url: jira.endpoint.clone(),
            dry_run,
            auth: match (&jira.bearer_token_file, &jira.username, &jira.password_file) {
                (Some(path), _, _) => JiraAuth::Bearer(secret("jira.bearer_token_file", path)?),
                (None, Some(username), Some(path)) => JiraAuth::Basic {
                    username: username.clone(),
                    password: secret("jira.password_file", path)?,
                },
                _ => JiraAuth::Anonymous,
            },
        }),
    };
    let CherrypickerSettings {
        labels,
        use_prow_assignments,
        allow_all,
        create_issue_on_conflict,
        label_prefix,
    } = settings.cherrypicker.clone();
    let seconds = Duration::from_secs;
    Ok(PluginOptions {
        dry_run,
        cherrypicker: CherrypickerOptions {
            labels,
            use_prow_assignments,
            allow_all,
            create_issue_on_conflict,
            label_prefix,
        },
        needs_rebase: NeedsRebaseOptions {
            update_period: seconds(settings.needs_rebase.update_period_seconds),
            cache_valid_time: seconds(settings.needs_rebase.cache_valid_seconds),
        },
        slack,
        jira,
        git_signing_key: signing_key(settings)?,
        // Nobody would see the pictures of a dry run.
        fun: (settings.plugins.fun && !dry_run).then(FunOptions::default),
    })
}

/// GHC-003. ssh-keygen reads it whenever something is signed, so that a rotated key takes effect.
fn signing_key(settings: &Settings) -> anyhow::Result<Option<PathBuf>> {
    let github = settings.github.as_ref();
    let path = github.and_then(|github| github.git_signing_key_file.clone());
    if let Some(path) = &path {
        ensure!(
            path.is_file(),
            "github.git_signing_key_file: {}: no such file; it is a private SSH key without passphrase, as ssh-keygen makes it",
            path.display()
        );
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(more: &str) -> String {
        let text = format!("node_id = 1\ndata_dir = \"/d\"\n{more}");
        match Settings::parse(&text) {
            Ok(_) => "good".to_owned(),
            Err(why) => format!("{why:#}"),
        }
    }

    /// PLG-CHERRYPICK-001, HOOK-002
    #[test]
    fn plugins_are_told_what_prows_flags_say() {
        let text = "node_id = 1\ndata_dir = \"/d\"\n";
        let settings = Settings::parse(text).unwrap();
        let secrets = Secrets::new(crate::secrets::Censor::default());
        let told_by_default = options(&settings, &secrets).unwrap();
        assert_eq!(told_by_default.cherrypicker, CherrypickerOptions::default());
        assert_eq!(told_by_default.needs_rebase, NeedsRebaseOptions::default());
        assert!(told_by_default.slack.is_none() && told_by_default.jira.is_none());

        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "slack-secret\n").unwrap();
        let more = format!(
            "{text}[cherrypicker]\nlabels = [\"backport\"]\nallow_all = true\n[slack]\ntoken_file = {token:?}\n"
        );
        let told = options(&Settings::parse(&more).unwrap(), &secrets).unwrap();
        assert_eq!(told.cherrypicker.labels, ["backport"]);
        assert!(told.cherrypicker.allow_all && told.cherrypicker.use_prow_assignments);
        assert_eq!((told.slack.unwrap().token)(), "slack-secret");
        let dry =
            "[webhook]\nhmac_secret_file = \"h\"\n[github]\ntoken_file = \"t\"\ndry_run = true\n";
        let told = options(&Settings::parse(&format!("{more}{dry}")).unwrap(), &secrets).unwrap();
        // PLG-FUN-006
        assert_eq!(told_by_default.fun, Some(FunOptions::default()));
        assert_eq!(told.fun, None);
        let off = Settings::parse(&format!("{text}[plugins]\nfun = false\n")).unwrap();
        assert_eq!(options(&off, &secrets).unwrap().fun, None);
        // HOOK-030
        assert!(off.plugins.run_here().external("cherrypick").is_some());
        let more = format!("{text}[plugins]\nelsewhere = [\"cherrypicker\"]\n");
        let here = Settings::parse(&more).unwrap().plugins.run_here();
        assert!(here.external("cherrypick").is_none() && here.external("refresh").is_some());
        // HOOK-042: beside a hook of Prow's its plugins are not told twice.
        assert!(told.slack.is_none() && told.dry_run);
        assert!(!told_by_default.dry_run);
    }

    #[test]
    fn what_is_wrong_with_it_is_named() {
        for (text, expected) in [
            (
                "[cherrypicker]\nlabel_prefix = \"\"",
                "cherrypicker.label_prefix: empty",
            ),
            ("[cherrypicker]\nlabels = [\"\"]", "cherrypicker.labels: "),
            (
                "[needs_rebase]\nupdate_period_seconds = 0",
                "needs_rebase.update_period_seconds",
            ),
            (
                "[jira]\nendpoint = \"jira\"",
                "jira.endpoint: \"jira\" must start with",
            ),
            (
                "[jira]\nendpoint = \"https://j\"\nusername = \"u\"",
                "belong together",
            ),
            (
                "[jira]\nendpoint = \"https://j\"\nusername = \"u\"\npassword_file = \"p\"\nbearer_token_file = \"b\"",
                "jira: give either bearer_token_file",
            ),
            ("[jira]\nendpoint = \"https://j\"", "good"),
            (
                "[plugins]\nelsewhere = [\"cherrypicker\", \"needs-rebase\"]",
                "good",
            ),
            (
                "[plugins]\nelsewhere = [\"cherypicker\"]",
                "plugins.elsewhere: \"cherypicker\" is no external plugin that is built in",
            ),
        ] {
            let told = told(text);
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
