//! Settings of the web pages.

use std::collections::BTreeMap;

use serde_json::Value;
use trireme_prowjob::{MetaDuration, ProwJobSpec, RerunAuthConfig};

object! {
    pub struct Deck {
        [omit "spyglass"] spyglass: Spyglass,
        [omit "tide_update_period"] tide_update_period: Option<MetaDuration>,
        [omit "hidden_repos"] hidden_repos: Vec<String>,
        [omit "external_agent_logs"] external_agent_logs: Vec<ExternalAgentLog>,
        [omit "branding"] branding: Option<Branding>,
        [omit "google_analytics"] google_analytics: String,
        [omit "rerun_auth_configs"] rerun_auth_configs: BTreeMap<String, RerunAuthConfig>,
        [omit "default_rerun_auth_configs"] default_rerun_auth_configs: Vec<DefaultRerunAuthEntry>,
        [omit "skip_storage_path_validation"] skip_storage_path_validation: Option<bool>,
        [omit "additional_allowed_buckets"] additional_allowed_buckets: Vec<String>,
    }
}

object! {
    pub struct Spyglass {
        [omit "lenses"] lenses: Vec<LensFileConfig>,
        [omit "viewers"] viewers: BTreeMap<String, Option<Vec<String>>>,
        /// Bytes that a lens may read of a file.
        [omit "size_limit"] size_limit: i64,
        [omit "gcs_browser_prefix"] gcs_browser_prefix: String,
        [omit "gcs_browser_prefixes"] gcs_browser_prefixes: BTreeMap<String, String>,
        [omit "gcs_browser_prefixes_by_bucket"] gcs_browser_prefixes_by_bucket: BTreeMap<String, String>,
        [omit "announcement"] announcement: String,
        [omit "testgrid_config"] testgrid_config: String,
        [omit "testgrid_root"] testgrid_root: String,
        [omit "hide_pr_history_link"] hide_pr_history_link: bool,
        [omit "pr_history_link_template"] pr_history_link_template: String,
        [omit "bucket_aliases"] bucket_aliases: BTreeMap<String, String>,
    }
}

object! {
    /// A lens and the files that it shows.
    pub struct LensFileConfig {
        [always "required_files"] required_files: Option<Vec<String>>,
        [omit "optional_files"] optional_files: Vec<String>,
        [always "lens"] lens: LensConfig,
        [omit "remote_config"] remote_config: Option<LensRemoteConfig>,
    }
}

object! {
    pub struct LensConfig {
        [always "name"] name: String,
        /// The lens reads this itself.
        [omit "config"] config: Option<Value>,
    }
}

object! {
    pub struct LensRemoteConfig {
        [always "endpoint"] endpoint: String,
        [always "static_root"] static_root: String,
        [always "title"] title: String,
        [always "priority"] priority: Option<i64>,
        [always "hide_title"] hide_title: Option<bool>,
    }
}

object! {
    /// Links to logs of agents other than pods.
    pub struct ExternalAgentLog {
        [omit "agent"] agent: String,
        [omit "selector"] selector: String,
        [omit "url_template"] url_template: String,
    }
}

object! {
    pub struct Branding {
        [omit "logo"] logo: String,
        [omit "favicon"] favicon: String,
        [omit "background_color"] background_color: String,
        [omit "header_color"] header_color: String,
    }
}

object! {
    /// Who may rerun jobs of some repositories and clusters.
    pub struct DefaultRerunAuthEntry {
        [omit "repo"] repo: String,
        [omit "cluster"] cluster: String,
        [omit "rerun_auth_configs"] config: Option<RerunAuthConfig>,
    }
}

impl Deck {
    /// CFG-069: the map form as entries, from general to narrow; what is narrower than an org stays in the map.
    ///
    /// # Errors
    /// When both forms are used.
    pub(crate) fn finalize_rerun_auth(&mut self) -> Result<(), String> {
        if self.rerun_auth_configs.is_empty() {
            return Ok(());
        }
        if !self.default_rerun_auth_configs.is_empty() {
            return Err("deck.rerun_auth_configs and deck.default_rerun_auth_configs are mutually exclusive, please \
                        use one or the other"
                .to_owned());
        }
        let rank = |key: &str| match key {
            "" => 0,
            "*" => 1,
            key => 2 + usize::from(key.contains('/')),
        };
        let mut keyed: Vec<_> = self.rerun_auth_configs.iter().collect();
        keyed.sort_by_key(|(key, _)| rank(key));
        self.default_rerun_auth_configs = keyed
            .into_iter()
            .map(|(repo, config)| DefaultRerunAuthEntry {
                repo: repo.clone(),
                cluster: String::new(),
                config: Some(config.clone()),
            })
            .collect();
        self.rerun_auth_configs.retain(|key, _| key.contains('/'));
        Ok(())
    }

    /// CFG-069: the last matching entry, whole.
    #[must_use]
    pub fn rerun_auth_for(&self, spec: &ProwJobSpec) -> Option<&RerunAuthConfig> {
        let refs = spec.refs.as_ref().or(spec.extra_refs.first());
        let repo = refs
            .map(trireme_prowjob::Refs::org_repo)
            .unwrap_or_default();
        let entries = self.default_rerun_auth_configs.iter().rev();
        let mut matching =
            entries.filter(|e| super::plank::matches(&e.repo, &e.cluster, &repo, &spec.cluster));
        matching.next().and_then(|entry| entry.config.as_ref())
    }
}

impl Spyglass {
    /// Where the browser of a run's files is: by repository, org, bucket, in general.
    #[must_use]
    pub fn gcs_browser_prefix_for(&self, org: &str, repo: &str, bucket: &str) -> &str {
        let by_repo = |key: &str| self.gcs_browser_prefixes.get(key);
        let by_bucket = |key: &str| self.gcs_browser_prefixes_by_bucket.get(key);
        let own = if org.is_empty() {
            None
        } else {
            by_repo(&format!("{org}/{repo}")).or_else(|| by_repo(org))
        };
        let own = own.or_else(|| {
            if bucket.is_empty() {
                None
            } else {
                by_bucket(bucket)
            }
        });
        own.or_else(|| by_repo("*"))
            .or_else(|| by_bucket("*"))
            .map_or("", String::as_str)
    }
}
