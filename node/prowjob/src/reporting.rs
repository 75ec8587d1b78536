//! Who hears about a job, who may run it again, and defaults that ride along with it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::job::ProwJobState;

go_struct! {
    /// A GitHub team by name.
    pub struct GitHubTeamSlug {
        always {
            "slug" => slug: String,
            "org" => org: String,
        }
    }
}

go_struct! {
    /// Who may rerun a job from the front end.
    pub struct RerunAuthConfig {
        "allow_anyone" => allow_anyone: bool,
        "github_team_ids" => github_team_ids: Vec<i64>,
        "github_team_slugs" => github_team_slugs: Vec<GitHubTeamSlug>,
        "github_users" => github_users: Vec<String>,
        "github_orgs" => github_orgs: Vec<String>,
    }
}

/// Both everybody and somebody is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("allow anyone is set to true and permitted users or groups are specified")]
pub struct AnyoneAndSomeone;

impl RerunAuthConfig {
    /// # Errors
    /// When `allow_anyone` stands next to a list of people.
    pub fn validate(&self) -> Result<(), AnyoneAndSomeone> {
        let lists_someone = !self.github_users.is_empty()
            || !self.github_team_ids.is_empty()
            || !self.github_team_slugs.is_empty()
            || !self.github_orgs.is_empty();
        if self.allow_anyone && lists_someone {
            Err(AnyoneAndSomeone)
        } else {
            Ok(())
        }
    }

    /// Allowed without asking the forge about orgs and teams: everybody is, or this login is listed.
    pub fn allows_without_lookup(&self, login: &str) -> bool {
        self.allow_anyone
            || self
                .github_users
                .iter()
                .any(|u| norm_login(u) == norm_login(login))
    }
}

/// A login as Prow compares it: lower case, no leading `@`.
pub fn norm_login(login: &str) -> String {
    let lower = login.to_lowercase();
    lower.strip_prefix('@').unwrap_or(&lower).to_owned()
}

go_struct! {
    /// A job's own reporter settings.
    pub struct ReporterConfig {
        "slack" => slack: Option<SlackReporterConfig>,
    }
}

go_struct! {
    /// What is said in Slack, where, and when.
    pub struct SlackReporterConfig {
        "host" => host: String,
        "channel" => channel: String,
        /// Words as configured, unknown ones included; written out only when not empty, see [`Self::settle_report`].
        "job_states_to_report" => job_states_to_report: Option<Vec<String>>,
        "report_template" => report_template: String,
        "report" => report: Option<bool>,
    }
}

impl SlackReporterConfig {
    /// Turns "written as an empty list" into `report: false`, because the empty list would not survive JSON (EXE-010).
    pub fn settle_report(&mut self) {
        let silenced = self
            .job_states_to_report
            .as_ref()
            .is_some_and(Vec::is_empty);
        self.report.get_or_insert(!silenced);
    }

    /// True when this state is to be reported as far as the list goes.
    pub fn reports_state(&self, state: ProwJobState) -> bool {
        self.job_states_to_report
            .iter()
            .flatten()
            .any(|s| s == state.as_str())
    }

    /// Own values, else those of `default`.
    pub fn apply_default(own: Option<&Self>, default: Option<&Self>) -> Option<Self> {
        let (own, default) = match (own, default) {
            (Some(own), Some(default)) => (own, default),
            (one, other) => return one.or(other).cloned(),
        };
        let or = |own: &String, default: &String| {
            if own.is_empty() {
                default.clone()
            } else {
                own.clone()
            }
        };
        Some(Self {
            host: or(&own.host, &default.host),
            channel: or(&own.channel, &default.channel),
            job_states_to_report: own
                .job_states_to_report
                .as_ref()
                .or(default.job_states_to_report.as_ref())
                .cloned(),
            report_template: or(&own.report_template, &default.report_template),
            report: own.report.or(default.report),
        })
    }
}

go_struct! {
    /// Where results go in ResultStore.
    pub struct ResultStoreConfig {
        "project_id" => project_id: String,
    }
}

go_struct! {
    /// Defaults taken from the main configuration and carried by each job.
    pub struct ProwJobDefault {
        "resultstore_config" => resultstore_config: Option<ResultStoreConfig>,
        "tenant_id" => tenant_id: String,
    }
}

impl ProwJobDefault {
    /// Own values, else those of `default`.
    pub fn apply_default(own: Option<&Self>, default: Option<&Self>) -> Option<Self> {
        let (own, default) = match (own, default) {
            (Some(own), Some(default)) => (own, default),
            (one, other) => return one.or(other).cloned(),
        };
        Some(Self {
            resultstore_config: own
                .resultstore_config
                .clone()
                .or_else(|| default.resultstore_config.clone()),
            tenant_id: if own.tenant_id.is_empty() {
                default.tenant_id.clone()
            } else {
                own.tenant_id.clone()
            },
        })
    }
}

go_struct! {
    /// Jenkins' part of a job.
    pub struct JenkinsSpec {
        "github_branch_source_job" => github_branch_source_job: bool,
    }
}

go_struct! {
    /// Tekton's part of a job.
    pub struct TektonPipelineRunSpec {
        "v1beta1" => v1beta1: Option<Value>,
    }
}

/// Reporter name to the state it last reported.
pub type ReportStates = BTreeMap<String, ProwJobState>;

#[cfg(test)]
mod tests {
    use super::*;

    /// JOB-074
    #[test]
    fn exe_010_an_empty_list_of_states_becomes_report_false() {
        let settle = |text: &str| {
            let mut slack: SlackReporterConfig = serde_json::from_str(text).unwrap();
            slack.settle_report();
            serde_json::to_string(&slack).unwrap()
        };
        assert_eq!(
            settle(r#"{"job_states_to_report":[]}"#),
            r#"{"report":false}"#
        );
        assert_eq!(
            settle(r#"{"channel":"c"}"#),
            r#"{"channel":"c","report":true}"#
        );
        assert_eq!(
            settle(r#"{"job_states_to_report":[],"report":true}"#),
            r#"{"report":true}"#
        );
    }

    #[test]
    fn logins_compare_without_case_and_at_sign() {
        let auth = RerunAuthConfig {
            github_users: vec!["@Alice".into()],
            ..RerunAuthConfig::default()
        };
        assert!(auth.allows_without_lookup("alice"));
        assert!(!auth.allows_without_lookup("bob"));
        assert!(
            RerunAuthConfig {
                allow_anyone: true,
                ..auth
            }
            .validate()
            .is_err()
        );
    }
}
