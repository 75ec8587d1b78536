//! Defaults and checks of the components' sections (CFG-035, CFG-036, CFG-045…055).

use std::collections::BTreeSet;

use jiff::Timestamp;
use trireme_prowjob::{GoDuration, MetaDuration, ProwJob};

use super::plank::Controller;
use super::{Gangway, ProwConfig, PubSubTrigger};
use crate::go_regex::GoRegex;
use crate::go_url;
use crate::kube_names::selector_problem;
use crate::template::Template;
use crate::tide::MergeBlocksPolicy;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// Concurrent calls of a controller that names no number.
const DEFAULT_MAX_GOROUTINES: i64 = 20;
const DEFAULT_GERRIT_RATE: i64 = 5;
/// Bytes that a lens may read of a file.
const DEFAULT_SPYGLASS_SIZE_LIMIT: i64 = 100_000_000;
const DEFAULT_MAX_OUTSTANDING_MESSAGES: i64 = 10;
const LOG_LEVELS: [&str; 8] = [
    "panic", "fatal", "error", "warn", "warning", "info", "debug", "trace",
];
const DEFAULT_SLACK_TEMPLATE: &str = "Job {{.Spec.Job}} of type {{.Spec.Type}} ended with state {{.Status.State}}. <{{.Status.URL}}|View logs>";

/// A problem, and the field that it is about.
pub(crate) struct Finding {
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

/// Collects problems of one section after the other.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, field: &'static str, message: impl Into<String>) {
        self.0.push(Finding {
            field,
            message: message.into(),
        });
    }

    fn check(&mut self, field: &'static str, result: Result<(), String>) {
        if let Err(message) = result {
            self.add(field, message);
        }
    }
}

fn seconds(seconds: i64) -> MetaDuration {
    GoDuration::from_secs(seconds).into()
}

fn or_text(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

impl ProwConfig {
    /// Sets what is unset and checks what upstream checks before it reads any job.
    pub(crate) fn default_and_check(&mut self) -> Vec<Finding> {
        let mut wrong = Findings::default();
        self.default_plank(&mut wrong);
        self.default_gerrit_and_reporters(&mut wrong);
        self.default_jenkins(&mut wrong);
        self.default_deck(&mut wrong);
        self.default_sinker();
        self.default_tide(&mut wrong);
        self.default_rest(&mut wrong);
        self.default_pubsub(&mut wrong);
        wrong.0
    }

    fn default_plank(&mut self, wrong: &mut Findings) {
        let plank = &mut self.plank;
        let checked = plank.controller.default_and_check(&[]);
        wrong.check(
            "plank",
            checked.map_err(|e| format!("validating plank config: {e}")),
        );
        plank
            .pod_pending_timeout
            .get_or_insert(seconds(10 * MINUTE));
        plank.pod_running_timeout.get_or_insert(seconds(48 * HOUR));
        plank
            .pod_unscheduled_timeout
            .get_or_insert(seconds(5 * MINUTE));
        plank.max_revivals.get_or_insert(3);
    }

    fn default_gerrit_and_reporters(&mut self, wrong: &mut Findings) {
        let gerrit = &mut self.gerrit;
        gerrit.tick_interval.get_or_insert(seconds(MINUTE));
        if gerrit.rate_limit == 0 {
            gerrit.rate_limit = DEFAULT_GERRIT_RATE;
        }
        match GoRegex::new(&gerrit.allowed_presubmit_trigger_re) {
            Ok(re) => gerrit.allowed_presubmit_trigger = Some(re),
            Err(e) => wrong.add(
                "gerrit.allowed_presubmit_trigger_re",
                format!("validating gerrit config: failed to compile regex for allowed presubmit triggers: {e}"),
            ),
        }
        let types = &mut self.github_reporter.job_types_to_report;
        if types.is_empty() {
            *types = vec!["presubmit".to_owned(), "postsubmit".to_owned()];
        }
        for other in types
            .iter()
            .filter(|t| !matches!(t.as_str(), "presubmit" | "postsubmit"))
        {
            wrong.add(
                "github_reporter.job_types_to_report",
                format!("invalid job_types_to_report: {other}"),
            );
        }
    }

    fn default_jenkins(&mut self, wrong: &mut Findings) {
        let count = self.jenkins_operators.len();
        for operator in &mut self.jenkins_operators {
            let checked = operator.controller.default_and_check(&["replace"]);
            wrong.check(
                "jenkins_operators",
                checked.map_err(|e| format!("validating jenkins_operators config: {e}")),
            );
            let selector = selector_problem(&operator.label_selector).map_or(Ok(()), Err);
            wrong.check(
                "jenkins_operators",
                selector
                    .map_err(|e| format!("invalid jenkins_operators.label_selector option: {e}")),
            );
            if count > 1 && operator.label_selector.is_empty() {
                wrong.add(
                    "jenkins_operators",
                    "selector overlap: cannot use an empty label_selector with multiple selectors",
                );
            }
            if count == 1 && !operator.label_selector.is_empty() {
                wrong.add(
                    "jenkins_operators",
                    "label_selector is invalid when used for a single jenkins-operator",
                );
            }
        }
    }

    fn default_deck(&mut self, wrong: &mut Findings) {
        let deck = &mut self.deck;
        deck.tide_update_period.get_or_insert(seconds(10));
        for log in &deck.external_agent_logs {
            if let Err(e) = Template::parse(&log.url_template) {
                let message = format!("parsing template for agent {:?}: {e}", log.agent);
                wrong.add("deck.external_agent_logs", message);
            }
            if let Some(e) = selector_problem(&log.selector) {
                wrong.add(
                    "deck.external_agent_logs",
                    format!("error parsing selector {:?}: {e}", log.selector),
                );
            }
        }
        let spyglass = &mut deck.spyglass;
        if spyglass.size_limit == 0 {
            spyglass.size_limit = DEFAULT_SPYGLASS_SIZE_LIMIT;
        } else if spyglass.size_limit < 0 {
            wrong.add(
                "deck.spyglass.size_limit",
                "invalid value for deck.spyglass.size_limit, must be >=0",
            );
        }
        spyglass.adopt_viewers();
        for lens in &spyglass.lenses {
            for source in lens
                .optional_files
                .iter()
                .chain(lens.required_files.iter().flatten())
            {
                if let Err(e) = GoRegex::new(source) {
                    wrong.add(
                        "deck.spyglass.lenses",
                        format!("cannot compile regexp {source:?}, err: {e}"),
                    );
                }
            }
        }
        let general = spyglass.gcs_browser_prefix.clone();
        for (map, field) in [
            (&mut spyglass.gcs_browser_prefixes, "gcs_browser_prefixes"),
            (
                &mut spyglass.gcs_browser_prefixes_by_bucket,
                "gcs_browser_prefixes_by_bucket",
            ),
        ] {
            if map.contains_key("*") {
                if !general.is_empty() {
                    wrong.add(
                        "deck.spyglass",
                        format!("both gcs_browser_prefix and {field}['*'] are specified."),
                    );
                }
            } else {
                map.insert("*".to_owned(), general.clone());
            }
        }
    }

    fn default_sinker(&mut self) {
        self.push_gateway.interval.get_or_insert(seconds(MINUTE));
        let sinker = &mut self.sinker;
        sinker.resync_period.get_or_insert(seconds(HOUR));
        sinker.max_prowjob_age.get_or_insert(seconds(7 * 24 * HOUR));
        let pod_age = *sinker.max_pod_age.get_or_insert(seconds(24 * HOUR));
        sinker.terminated_pod_ttl.get_or_insert(pod_age);
    }

    fn default_tide(&mut self, wrong: &mut Findings) {
        let tide = &mut self.tide;
        if let Some(gerrit) = &mut tide.gerrit
            && gerrit.rate_limit == 0
        {
            gerrit.rate_limit = DEFAULT_GERRIT_RATE;
        }
        let period = *tide.sync_period.get_or_insert(seconds(MINUTE));
        tide.status_update_period.get_or_insert(period);
        if tide.max_goroutines == 0 {
            tide.max_goroutines = DEFAULT_MAX_GOROUTINES;
        }
        if tide.max_goroutines <= 0 {
            wrong.add(
                "tide.max_goroutines",
                format!(
                    "tide has invalid max_goroutines ({}), it needs to be a positive number",
                    tide.max_goroutines
                ),
            );
        }
        if !tide.target_urls.is_empty() && !tide.target_url.is_empty() {
            wrong.add(
                "tide.target_url",
                "tide.target_url and tide.target_urls are mutually exclusive",
            );
        }
        if !tide.target_url.is_empty() {
            tide.target_urls
                .insert("*".to_owned(), tide.target_url.clone());
        }
        if !tide.pr_status_base_url.is_empty() {
            if tide.pr_status_base_urls.is_empty() {
                tide.pr_status_base_urls
                    .insert("*".to_owned(), tide.pr_status_base_url.clone());
            } else {
                wrong.add(
                    "tide.pr_status_base_url",
                    "both pr_status_base_url and pr_status_base_urls are defined",
                );
            }
        }
        if !tide.pr_status_base_urls.is_empty() && !tide.pr_status_base_urls.contains_key("*") {
            wrong.add(
                "tide.pr_status_base_urls",
                "pr_status_base_urls is defined but the default value ('*') is missing",
            );
        }
        for (_, message) in tide.check_merge_methods() {
            wrong.add("tide.merge_method", message);
        }
        for templates in tide.merge_templates.values_mut() {
            for (part, text, slot) in [
                ("title", &templates.title, &mut templates.title_template),
                ("body", &templates.body, &mut templates.body_template),
            ] {
                match Template::parse(text) {
                    Ok(template) => *slot = (!text.is_empty()).then_some(template),
                    Err(e) => {
                        wrong.add(
                            "tide.merge_commit_template",
                            format!("parsing template for commit {part}: {e}"),
                        );
                    }
                }
            }
        }
        for (n, query) in tide.queries.iter().enumerate() {
            wrong.check(
                "tide.queries",
                query
                    .check()
                    .map_err(|e| format!("tide query (index {n}) is invalid: {e}")),
            );
        }
        for (key, policy) in &tide.github_merge_blocks_policies {
            if MergeBlocksPolicy::from_word(policy).is_none() {
                wrong.add(
                    "tide.github_merge_blocks_policy",
                    format!(
                        "tide.github_merge_blocks_policy[{key:?}] has invalid value {policy:?}, must be one of: \
                         ignore, permit, block"
                    ),
                );
            }
        }
    }

    fn default_rest(&mut self, wrong: &mut Findings) {
        or_text(&mut self.prowjob_namespace, "default");
        or_text(&mut self.pod_namespace, "default");
        or_text(&mut self.github.link_url, "https://github.com");
        if let Err(e) = go_url::scheme(&self.github.link_url) {
            wrong.add(
                "github.link_url",
                format!("unable to parse github.link_url, might not be a valid url: {e}"),
            );
        }
        or_text(
            &mut self.status_error_link,
            "https://github.com/kubernetes/test-infra/issues",
        );
        or_text(&mut self.log_level, "info");
        if !LOG_LEVELS.contains(&self.log_level.to_ascii_lowercase().as_str()) {
            wrong.add(
                "log_level",
                format!("not a valid logrus Level: {:?}", self.log_level),
            );
        }
        self.default_job_timeout.get_or_insert(seconds(24 * HOUR));
        let policy = &self.branch_protection.policy;
        let any = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if any(&policy.include) && any(&policy.exclude) {
            wrong.add(
                "branch-protection",
                "Forbidden to set both Policy.Include and Policy.Exclude, Please use either Include or Exclude!",
            );
        }
        self.moonraker
            .client_timeout
            .get_or_insert(seconds(10 * MINUTE));
        let clusters = &mut self.in_repo_config.allowed_clusters;
        if clusters.get("*").is_none_or(Option::is_none) {
            clusters.insert("*".to_owned(), Some(vec!["default".to_owned()]));
        }
    }

    fn default_pubsub(&mut self, wrong: &mut Findings) {
        if let Some(subscriptions) = &self.pubsub_subscriptions {
            if self.pubsub_triggers.is_some() {
                wrong.add(
                    "pubsub_subscriptions",
                    "pubsub_subscriptions and pubsub_triggers are mutually exclusive",
                );
            }
            let folded = subscriptions.iter().map(|(project, topics)| PubSubTrigger {
                project: project.clone(),
                topics: topics.clone(),
                allowed_clusters: Some(vec!["*".to_owned()]),
                max_outstanding_messages: 0,
            });
            let folded: Vec<_> = folded.collect();
            if !folded.is_empty() {
                self.pubsub_triggers.get_or_insert_default().extend(folded);
            }
        }
        for trigger in self.pubsub_triggers.iter_mut().flatten() {
            if trigger.max_outstanding_messages == 0 {
                trigger.max_outstanding_messages = DEFAULT_MAX_OUTSTANDING_MESSAGES;
            }
        }
    }

    /// What upstream checks after the jobs are defaulted. `now` is for instants that may not lie ahead.
    pub(crate) fn check_components(&mut self, now: Option<Timestamp>) -> Vec<Finding> {
        let mut wrong = Findings::default();
        for (key, url) in &self.plank.job_url_prefix_config {
            if let Err(e) = go_url::scheme(url) {
                wrong.add(
                    "plank.job_url_prefix_config",
                    format!("invalid value for Planks job_url_prefix_config[\"{key}\"]: {e}"),
                );
            }
        }
        if let Err(e) = go_url::scheme(&self.gerrit.deck_url) {
            wrong.add(
                "gerrit.deck_url",
                format!("invalid value for gerrit.deck_url: {e}"),
            );
        }
        for (repo, info) in &self.managed_webhooks.org_repo_config {
            let created = &info.token_created_after.0;
            let ahead = created
                .parse::<Timestamp>()
                .ok()
                .zip(now)
                .is_some_and(|(created, now)| created > now);
            if ahead {
                wrong.add(
                    "managed_webhooks.org_repo_config",
                    format!("token_created_after {created} can be no later than current time for repo/org {repo}"),
                );
            }
        }
        for reporter in self.slack_reporter_configs.values_mut() {
            or_text(&mut reporter.report_template, DEFAULT_SLACK_TEMPLATE);
            let checked = if reporter.channel.is_empty() {
                Err("channel must be set".to_owned())
            } else {
                match Template::parse(&reporter.report_template) {
                    Ok(template) => template
                        .for_job(&ProwJob::default())
                        .map(|_| ())
                        .map_err(|e| format!("failed to execute report_template: {e}")),
                    Err(e) => Err(format!("failed to parse template: {e}")),
                }
            };
            wrong.check(
                "slack_reporter_configs",
                checked.map_err(|e| format!("failed to validate slackreporter config: {e}")),
            );
        }
        let finalized = self.deck.finalize_rerun_auth();
        wrong.check("deck.rerun_auth_configs", finalized);
        let buckets = &self.deck.additional_allowed_buckets;
        if !buckets.is_empty() && self.deck.skip_storage_path_validation.unwrap_or(true) {
            wrong.add(
                "deck.additional_allowed_buckets",
                format!(
                    "deck.skip_storage_path_validation is enabled despite deck.additional_allowed_buckets being \
                     configured: [{}]",
                    buckets.join(" ")
                ),
            );
        }
        for (n, entry) in self.deck.default_rerun_auth_configs.iter().enumerate() {
            if let Some(Err(e)) = entry
                .config
                .as_ref()
                .map(trireme_prowjob::RerunAuthConfig::validate)
            {
                wrong.add(
                    "deck.default_rerun_auth_configs",
                    format!("default_rerun_auth_configs[{n}]: {e}"),
                );
            }
        }
        let gangway = self.gangway.check();
        wrong.check("gangway", gangway);
        wrong.0
    }
}

impl Controller {
    fn default_and_check(&mut self, functions: &[&str]) -> Result<(), String> {
        let job_url = Template::parse_with(&self.job_url_template, functions);
        self.job_url = Some(job_url.map_err(|e| format!("parsing template: {e}"))?);
        if !self.report_template.is_empty() {
            if self
                .report_templates
                .as_ref()
                .is_some_and(|templates| !templates.is_empty())
            {
                return Err("both report_template and report_templates are specified".to_owned());
            }
            let general = self.report_template.clone();
            self.report_templates
                .get_or_insert_default()
                .insert("*".to_owned(), general);
        }
        for (key, text) in self.report_templates.iter().flatten() {
            let template = Template::parse(text)
                .map_err(|e| format!("error while parsing template for {key}: {e}"))?;
            self.reports.insert(key.clone(), template);
        }
        if self.max_concurrency < 0 {
            return Err(format!(
                "controller has invalid max_concurrency ({}), it needs to be a non-negative number",
                self.max_concurrency
            ));
        }
        if self.max_goroutines == 0 {
            self.max_goroutines = DEFAULT_MAX_GOROUTINES;
        }
        if self.max_goroutines < 0 {
            return Err(format!(
                "controller has invalid max_goroutines ({}), it needs to be a positive number",
                self.max_goroutines
            ));
        }
        Ok(())
    }
}

impl super::deck::Spyglass {
    /// The old form of lenses. Upstream renames the old viewers in the map only; here the lenses too (CFG-036).
    fn adopt_viewers(&mut self) {
        let renamed = |name: &str| match name {
            "build-log-viewer" => "buildlog".to_owned(),
            "metadata-viewer" => "metadata".to_owned(),
            "junit-viewer" => "junit".to_owned(),
            other => other.to_owned(),
        };
        let mut lenses = Vec::new();
        for (files, viewers) in &mut self.viewers {
            for viewer in viewers.iter_mut().flatten() {
                *viewer = renamed(viewer);
                lenses.push(super::deck::LensFileConfig {
                    required_files: Some(vec![files.clone()]),
                    lens: super::deck::LensConfig {
                        name: viewer.clone(),
                        config: None,
                    },
                    ..super::deck::LensFileConfig::default()
                });
            }
        }
        lenses.sort_by(|a, b| a.lens.name.cmp(&b.lens.name));
        self.lenses.extend(lenses);
    }
}

impl Gangway {
    /// CFG-047.
    fn check(&self) -> Result<(), String> {
        let mut declared = BTreeSet::new();
        for client in &self.allowed_api_clients {
            let gcp = client
                .gcp
                .as_ref()
                .ok_or("allowedApiClient did not have a cloud vendor set")?;
            let (kind, number) = (
                &gcp.endpoint_api_consumer_type,
                &gcp.endpoint_api_consumer_number,
            );
            if kind != "PROJECT" {
                return Err(format!("unsupported GCP API consumer type: {kind:?}"));
            }
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!("invalid EndpointApiConsumerNumber: {number:?}"));
            }
            if !declared.insert(number) {
                return Err(format!(
                    "AllowedApiClient \"gcp-{kind}-{number}\" declared multiple times"
                ));
            }
            if client.allowed_jobs_filters.is_empty() {
                return Err("allowed_jobs_filters field cannot be empty".to_owned());
            }
            if client
                .allowed_jobs_filters
                .iter()
                .any(|filter| filter.tenant_id.is_empty())
            {
                return Err("AllowedJobsFilters entry has an empty tenant_id".to_owned());
            }
        }
        Ok(())
    }
}
