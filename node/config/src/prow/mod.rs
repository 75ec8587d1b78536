//! The components' sections of `config.yaml` (CFG-035, CFG-036): every field that upstream knows, with its defaults.

pub mod branch_protection;
mod checks;
pub mod deck;
mod merge;
pub mod plank;
mod scope;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use trireme_prowjob::{MetaDuration, ProwJobDefault, Refs, SlackReporterConfig};

pub(crate) use checks::Finding;
pub use scope::Scope;

use crate::decode::{Cx, Decode, Definitions, Describe, Empty};
use crate::go_regex::GoRegex;
use crate::tide::Tide;
use crate::yaml::Node;
use branch_protection::BranchProtection;
use deck::Deck;
use plank::{Controller, Plank};

object! {
    /// Everything of the main file but the jobs.
    pub struct ProwConfig {
        [omit "config_version_sha"] config_version_sha: String,
        [omit "tide"] tide: Tide,
        [omit "plank"] plank: Plank,
        [omit "pipeline"] pipeline: Pipeline,
        [omit "sinker"] sinker: Sinker,
        [omit "deck"] deck: Deck,
        [always "branch-protection"] branch_protection: BranchProtection,
        [always "gerrit"] gerrit: Gerrit,
        [always "github_reporter"] github_reporter: GitHubReporter,
        [always "horologium"] horologium: Horologium,
        [omit "slack_reporter_configs"] slack_reporter_configs: BTreeMap<String, SlackReporter>,
        [always "in_repo_config"] in_repo_config: InRepoConfig,
        [omit "gangway"] gangway: Gangway,
        [omit "moonraker"] moonraker: Moonraker,
        [omit "scheduler"] scheduler: Scheduler,
        [omit "jenkins_operators"] jenkins_operators: Vec<JenkinsOperator>,
        /// Namespace of the ProwJobs.
        [omit "prowjob_namespace"] prowjob_namespace: String,
        /// Namespace of the test pods.
        [omit "pod_namespace"] pod_namespace: String,
        [omit "log_level"] log_level: String,
        [omit "push_gateway"] push_gateway: PushGateway,
        [omit "owners_dir_denylist"] owners_dir_denylist: Option<OwnersDirDenylist>,
        /// Project to subscriptions; folded into the triggers.
        [omit "pubsub_subscriptions"] pubsub_subscriptions: Option<BTreeMap<String, Option<Vec<String>>>>,
        [omit "pubsub_triggers"] pubsub_triggers: Option<Vec<PubSubTrigger>>,
        [omit "github"] github: GitHubOptions,
        [omit "status_error_link"] status_error_link: String,
        [omit "default_job_timeout"] default_job_timeout: Option<MetaDuration>,
        [omit "managed_webhooks"] managed_webhooks: ManagedWebhooks,
        [omit "prowjob_default_entries"] prowjob_default_entries: Vec<Option<ProwJobDefaultEntry>>,
        /// Build clusters that are left out when kubeconfigs are loaded.
        [omit "disabled_clusters"] disabled_clusters: Vec<String>,
    }
}

object! {
    pub struct Pipeline {
        [omit "allow_concurrent_postsubmit_jobs"] allow_concurrent_postsubmit_jobs: bool,
    }
}

object! {
    /// When what is cleaned up.
    pub struct Sinker {
        [omit "resync_period"] resync_period: Option<MetaDuration>,
        [omit "max_prowjob_age"] max_prowjob_age: Option<MetaDuration>,
        [omit "max_pod_age"] max_pod_age: Option<MetaDuration>,
        [omit "terminated_pod_ttl"] terminated_pod_ttl: Option<MetaDuration>,
        [omit "exclude_clusters"] exclude_clusters: Vec<String>,
    }
}

object! {
    pub struct Gerrit {
        [omit "tick_interval"] tick_interval: Option<MetaDuration>,
        /// Requests per second and instance.
        [omit "ratelimit"] rate_limit: i64,
        [omit "deck_url"] deck_url: String,
        [omit "org_repos_config"] org_repos_config: Option<Vec<GerritOrgRepos>>,
        [omit "allowed_presubmit_trigger_re"] allowed_presubmit_trigger_re: String,
        [derived] allowed_presubmit_trigger: Option<GoRegex>,
    }
}

object! {
    pub struct GerritOrgRepos {
        [omit "org"] org: String,
        [omit "repos"] repos: Vec<String>,
        [omit "opt_out_help"] opt_out_help: bool,
        [omit "filters"] filters: Option<GerritQueryFilter>,
    }
}

object! {
    pub struct GerritQueryFilter {
        [omit "branches"] branches: Vec<String>,
        [omit "excluded_branches"] excluded_branches: Vec<String>,
        [omit "opt_in_by_default"] opt_in_by_default: bool,
    }
}

object! {
    /// What is reported to GitHub, and where without a comment.
    pub struct GitHubReporter {
        [omit "job_types_to_report"] job_types_to_report: Vec<String>,
        /// `org` or `org/repo`.
        [omit "no_comment_repos"] no_comment_repos: Vec<String>,
        /// `org` or `org/repo`.
        [omit "summary_comment_repos"] summary_comment_repos: Vec<String>,
    }
}

impl GitHubReporter {
    #[must_use]
    pub fn reports(&self, job_type: trireme_prowjob::ProwJobType) -> bool {
        self.job_types_to_report
            .iter()
            .any(|word| word == job_type.as_str())
    }
}

object! {
    pub struct Horologium {
        [omit "tick_interval"] tick_interval: Option<MetaDuration>,
    }
}

object! {
    /// What is said in Slack about jobs of a repository, an org or all.
    pub struct SlackReporter {
        [omit "job_types_to_report"] job_types_to_report: Vec<String>,
        [omit "host"] host: String,
        [omit "channel"] channel: String,
        [omit "job_states_to_report"] job_states_to_report: Option<Vec<String>>,
        [omit "report_template"] report_template: String,
        [omit "report"] report: Option<bool>,
    }
}

impl SlackReporter {
    /// The part that a job may override.
    #[must_use]
    pub fn config(&self) -> SlackReporterConfig {
        SlackReporterConfig {
            host: self.host.clone(),
            channel: self.channel.clone(),
            job_states_to_report: self.job_states_to_report.clone(),
            report_template: self.report_template.clone(),
            report: self.report,
        }
    }
}

object! {
    /// Jobs that stand in the tested repositories themselves.
    pub struct InRepoConfig {
        [omit "enabled"] enabled: BTreeMap<String, Option<bool>>,
        [omit "allowed_clusters"] allowed_clusters: BTreeMap<String, Option<Vec<String>>>,
    }
}

object! {
    pub struct Gangway {
        [omit "allowed_api_clients"] allowed_api_clients: Vec<AllowedApiClient>,
    }
}

object! {
    pub struct AllowedApiClient {
        [omit "gcp"] gcp: Option<ApiClientGcp>,
        [omit "allowed_jobs_filters"] allowed_jobs_filters: Vec<AllowedJobsFilter>,
    }
}

object! {
    pub struct ApiClientGcp {
        [omit "endpoint_api_consumer_type"] endpoint_api_consumer_type: String,
        [omit "endpoint_api_consumer_number"] endpoint_api_consumer_number: String,
    }
}

object! {
    pub struct AllowedJobsFilter {
        [omit "tenant_id"] tenant_id: String,
    }
}

object! {
    pub struct Moonraker {
        [omit "client_timeout"] client_timeout: Option<MetaDuration>,
    }
}

object! {
    /// The step that chooses a cluster before a job is triggered.
    pub struct Scheduler {
        [omit "enabled"] enabled: bool,
        [omit "failover"] failover: Option<FailoverScheduling>,
        [omit "external"] external: Option<ExternalScheduling>,
    }
}

object! {
    pub struct FailoverScheduling {
        [omit "mappings"] mappings: BTreeMap<String, String>,
    }
}

object! {
    pub struct ExternalScheduling {
        [omit "url"] url: String,
        [omit "cache"] cache: ExternalSchedulingCache,
    }
}

object! {
    pub struct ExternalSchedulingCache {
        [omit "entry_timeout_interval"] entry_timeout_interval: Option<MetaDuration>,
        [omit "cleanup_interval"] cleanup_interval: Option<MetaDuration>,
    }
}

object! {
    pub struct JenkinsOperator {
        [embed] controller: Controller,
        [omit "label_selector"] label_selector: String,
    }
}

object! {
    pub struct PushGateway {
        [omit "endpoint"] endpoint: String,
        [omit "interval"] interval: Option<MetaDuration>,
        [always "serve_metrics"] serve_metrics: bool,
    }
}

object! {
    /// Directories whose OWNERS files do not count.
    pub struct OwnersDirDenylist {
        /// `org` or `org/repo` to expressions.
        [omit "repos"] repos: BTreeMap<String, Vec<String>>,
        [omit "default"] default: Vec<String>,
        [omit "ignore_preconfigured_defaults"] ignore_preconfigured_defaults: bool,
    }
}

impl OwnersDirDenylist {
    /// Expressions for a repository: those for all, its org's, its own, the built-in ones.
    #[must_use]
    pub fn ignored_dirs(&self, org: &str, repo: &str) -> Vec<String> {
        let own = [org.to_owned(), format!("{org}/{repo}")];
        let own = own.iter().filter_map(|key| self.repos.get(key)).flatten();
        let mut dirs: Vec<String> = self.default.iter().chain(own).cloned().collect();
        if !self.ignore_preconfigured_defaults {
            dirs.extend([r"\.git$", "_output$", "vendor/.*/.*"].map(str::to_owned));
        }
        dirs
    }
}

object! {
    pub struct PubSubTrigger {
        [always "project"] project: String,
        [always "topics"] topics: Option<Vec<String>>,
        [always "allowed_clusters"] allowed_clusters: Option<Vec<String>>,
        [always "max_outstanding_messages"] max_outstanding_messages: i64,
    }
}

object! {
    pub struct GitHubOptions {
        /// Where GitHub's pages are.
        [omit "link_url"] link_url: String,
    }
}

object! {
    /// Webhooks with a token of their own.
    pub struct ManagedWebhooks {
        [always "respect_legacy_global_token"] respect_legacy_global_token: bool,
        [always "auto_accept_invitation"] auto_accept_invitation: bool,
        [omit "org_repo_config"] org_repo_config: BTreeMap<String, ManagedWebhookInfo>,
    }
}

object! {
    pub struct ManagedWebhookInfo {
        [always "token_created_after"] token_created_after: Rfc3339,
    }
}

/// An instant as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rfc3339(pub String);

impl Default for Rfc3339 {
    fn default() -> Self {
        // Go's zero time.
        Self("0001-01-01T00:00:00Z".to_owned())
    }
}

impl Decode for Rfc3339 {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        let Some(text) = cx.string(node) else {
            return Self::default();
        };
        if text.parse::<jiff::Timestamp>().is_err() {
            cx.wrong_type(node, "an instant; write it as in \"2020-06-24T00:10:00Z\"");
        }
        Self(text)
    }
}

impl Describe for Rfc3339 {
    fn describe(_: &mut Definitions) -> Value {
        json!({"type": ["string", "null"], "format": "date-time"})
    }
}

impl Empty for Rfc3339 {
    fn is_empty(&self) -> bool {
        false
    }
}

object! {
    /// Defaults for jobs of some repositories and clusters.
    pub struct ProwJobDefaultEntry {
        [omit "repo"] repo: String,
        [omit "cluster"] cluster: String,
        [omit "config"] config: Option<ProwJobDefault>,
    }
}

/// Adds what is new; returns the key of what is not.
pub(crate) fn insert_new<V>(
    map: &mut BTreeMap<String, V>,
    key: String,
    value: V,
) -> Option<String> {
    match map.entry(key) {
        std::collections::btree_map::Entry::Vacant(new) => {
            new.insert(value);
            None
        }
        std::collections::btree_map::Entry::Occupied(known) => Some(known.key().clone()),
    }
}

/// A value by repository, org or for all: the narrowest wins.
pub(crate) fn narrowest<'a, T>(
    map: &'a BTreeMap<String, T>,
    org: &str,
    repo: &str,
) -> Option<&'a T> {
    map.get(&format!("{org}/{repo}"))
        .or_else(|| map.get(org))
        .or_else(|| map.get("*"))
}

impl ProwConfig {
    /// Slack settings for a job (CFG-046); a job without refs gets the global ones.
    #[must_use]
    pub fn slack_reporter(&self, refs: Option<&Refs>) -> Option<&SlackReporter> {
        match refs {
            Some(refs) => narrowest(&self.slack_reporter_configs, &refs.org, &refs.repo),
            None => self.slack_reporter_configs.get("*"),
        }
    }

    /// CFG-075: the first key that is present decides.
    #[must_use]
    pub fn in_repo_config_enabled(&self, identifier: &str) -> bool {
        let enabled = &self.in_repo_config.enabled;
        keys_for(identifier)
            .iter()
            .find_map(|key| named(enabled, key, identifier).copied().flatten())
            .unwrap_or(false)
    }

    /// CFG-076: the union over all keys.
    #[must_use]
    pub fn in_repo_config_allows_cluster(&self, cluster: &str, identifier: &str) -> bool {
        let allowed = &self.in_repo_config.allowed_clusters;
        keys_for(identifier)
            .iter()
            .filter_map(|key| named(allowed, key, identifier)?.as_ref())
            .flatten()
            .any(|c| c == cluster)
    }

    /// CFG-068: what jobs of a repository and cluster carry along. `tenant_id` is always set.
    #[must_use]
    pub fn prowjob_default(
        &self,
        repo: &str,
        cluster: &str,
        own: Option<&ProwJobDefault>,
    ) -> ProwJobDefault {
        let mut merged: Option<ProwJobDefault> = None;
        for entry in self.prowjob_default_entries.iter().flatten() {
            if plank::matches(&entry.repo, &entry.cluster, repo, cluster) {
                merged = ProwJobDefault::apply_default(entry.config.as_ref(), merged.as_ref());
            }
        }
        let mut merged = ProwJobDefault::apply_default(own, merged.as_ref()).unwrap_or_default();
        if merged.tenant_id.is_empty() {
            DEFAULT_TENANT_ID.clone_into(&mut merged.tenant_id);
        }
        merged
    }
}

/// The tenant of jobs that name none.
pub const DEFAULT_TENANT_ID: &str = "GlobalDefaultID";

/// What stands under a key of a repository: as it is written or, as GitHub compares names of organisations and
/// repositories, in any case.
fn named<'a, T>(map: &'a BTreeMap<String, T>, key: &str, identifier: &str) -> Option<&'a T> {
    let exact = map.get(key);
    if exact.is_some() || crate::gerrit::is_gerrit_org(identifier) {
        return exact;
    }
    let mut others = map.iter();
    others
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
        .map(|(_, value)| value)
}

/// Keys to look up for a repository, the narrowest first: with and without scheme, its org, `*`.
fn keys_for(identifier: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    let mut add = |key: &str| {
        if !keys.iter().any(|other| other == key) {
            keys.push(key.to_owned());
        }
    };
    let whole = if crate::gerrit::is_gerrit_org(identifier) {
        crate::gerrit::normalize_clone_uri(identifier)
    } else {
        identifier.to_owned()
    };
    add(&whole);
    add(crate::gerrit::trim_scheme(identifier));
    if let Some((org, _)) = crate::gerrit::split_repo(&whole)
        && !org.is_empty()
    {
        add(&org);
        add(crate::gerrit::trim_scheme(&org));
    }
    add("*");
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CFG-075, CFG-076: GitHub knows a repository by its name in any case, Gerrit does not.
    #[test]
    fn cfg_075_repositories_are_found_as_their_forge_compares_names() {
        let mut prow = ProwConfig::default();
        let enabled = &mut prow.in_repo_config.enabled;
        enabled.insert("Org/Repo".to_owned(), Some(true));
        enabled.insert("other".to_owned(), Some(true));
        enabled.insert("Other/Off".to_owned(), Some(false));
        enabled.insert("https://host/Repo".to_owned(), Some(true));
        let clusters = &mut prow.in_repo_config.allowed_clusters;
        clusters.insert("Org".to_owned(), Some(vec!["build".to_owned()]));
        for (repo, on) in [
            ("Org/Repo", true),
            ("org/repo", true),
            ("org/other", false),
            ("OTHER/any", true),
            ("other/off", false),
            ("https://host/Repo", true),
            ("https://host/repo", false),
        ] {
            assert_eq!(prow.in_repo_config_enabled(repo), on, "{repo}");
        }
        assert!(prow.in_repo_config_allows_cluster("build", "org/repo"));
        assert!(!prow.in_repo_config_allows_cluster("build", "orga/repo"));
    }
}
