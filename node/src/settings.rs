//! The settings of one node: a TOML file, which `TRIREME_*` variables and flags override. Every key is explained in
//! `deploy/trireme.example.toml`.

mod follow;
mod github;
mod github_flags;
mod kubernetes;
mod status_reconciler;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use trireme_in_repo::CacheLimits;

pub use follow::FollowSettings;
pub use github::{EnterpriseSettings, GitHubSettings, Place};
pub use github_flags::GitHubFlags;
pub use kubernetes::KubernetesSettings;
pub use status_reconciler::StatusReconcilerSettings;

use crate::plugin_settings::{
    CherrypickerSettings, JiraSettings, NeedsRebaseSettings, PluginsSettings, SlackSettings,
};

/// Where nodes and agents of one host keep artifacts unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:8888";
const DEFAULT_PEER_LISTEN: &str = "127.0.0.1:8889";
/// Name of a cluster that was given none.
pub const DEFAULT_CLUSTER: &str = "trireme";
/// A cluster's name is part of a URI.
const MAX_CLUSTER_NAME: usize = 63;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Never used again in this cluster once its disk is lost.
    pub node_id: u64,
    pub data_dir: PathBuf,
    #[serde(default = "default_listen")]
    pub listen: String,
    /// What other nodes and agents call the door; `listen` when absent.
    #[serde(default)]
    pub advertise: Option<String>,
    #[serde(default)]
    pub peer: PeerSettings,
    #[serde(default)]
    pub cluster: ClusterSettings,
    #[serde(default)]
    pub raft: RaftSettings,
    #[serde(default)]
    pub disk: DiskSettings,
    #[serde(default)]
    pub checks: CheckSettings,
    #[serde(default)]
    pub github: Option<GitHubSettings>,
    /// Absent: this node writes to no Kubernetes cluster.
    #[serde(default)]
    pub kubernetes: Option<KubernetesSettings>,
    #[serde(default)]
    pub webhook: WebhookSettings,
    #[serde(default)]
    pub storage: StorageSettings,
    #[serde(default)]
    pub tide: TideSettings,
    #[serde(default)]
    pub in_repo: InRepoSettings,
    /// Absent: nobody looks after pull requests that a new configuration leaves stuck.
    #[serde(default)]
    pub status_reconciler: Option<StatusReconcilerSettings>,
    #[serde(default)]
    pub tls: Option<TlsSettings>,
    #[serde(default)]
    pub auth: AuthSettings,
    #[serde(default)]
    pub admission: AdmissionSettings,
    #[serde(default)]
    pub config: ConfigSettings,
    #[serde(default)]
    pub log: LogSettings,
    #[serde(default)]
    pub plugins: PluginsSettings,
    #[serde(default)]
    pub cherrypicker: CherrypickerSettings,
    #[serde(default)]
    pub needs_rebase: NeedsRebaseSettings,
    #[serde(default)]
    pub slack: SlackSettings,
    #[serde(default)]
    pub jira: Option<JiraSettings>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Shorter secrets are not censored (CFG-098), in bytes.
    pub minimum_secret_length: usize,
}

/// What of Prow's admission webhook is a matter of taste (JOB-056).
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionSettings {
    /// Jobs that are made by hand must name a cluster that some agent serves.
    pub known_clusters: bool,
}

/// Prow's configuration, where the cluster takes it from files by itself.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigSettings {
    pub follow: Option<FollowSettings>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerSettings {
    pub listen: String,
    pub advertise: Option<String>,
    /// PEM files for TLS between nodes: all three, or none.
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            listen: DEFAULT_PEER_LISTEN.to_owned(),
            advertise: None,
            ca: None,
            certificate: None,
            key: None,
        }
    }
}

/// The client door's certificate, PEM.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// Whoever knows its content is an operator.
    pub operator_token_file: Option<PathBuf>,
    pub anonymous: Option<AnonymousSetting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AnonymousSetting {
    Operator,
    Viewer,
    None,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSettings {
    /// Its name in the certificates of its nodes.
    pub name: String,
    /// All first members, the same list on each; used on the very first start alone.
    pub bootstrap: Vec<BootstrapNode>,
    /// Peer addresses of members, for a node that joins later with an empty directory.
    pub join: Vec<String>,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            name: DEFAULT_CLUSTER.to_owned(),
            bootstrap: Vec::new(),
            join: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapNode {
    pub id: u64,
    pub peer: String,
    pub api: String,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftSettings {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    pub raise_feature_level: RaiseFeatureLevel,
}

/// Who raises the cluster's feature level after an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RaiseFeatureLevel {
    /// The leader, once every member knows it.
    Auto,
    /// Nobody: going back to the older version stays possible.
    Manual,
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 75,
            election_min_ms: 300,
            election_max_ms: 500,
            raise_feature_level: RaiseFeatureLevel::Auto,
        }
    }
}

/// Less would not do for one snapshot and one segment of the log.
const MIN_BUDGET_BYTES: u64 = 1 << 30;
const DEFAULT_RESERVE_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskSettings {
    /// What the data directory may take; the whole file system when absent.
    pub budget_bytes: Option<u64>,
    /// Set aside for the moment when there is nothing left; 0 = none.
    pub reserve_bytes: u64,
    /// How long finished history stays in the archive.
    pub history_days: u32,
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self {
            budget_bytes: None,
            reserve_bytes: DEFAULT_RESERVE_BYTES,
            history_days: 365,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckSettings {
    /// How often all nodes compare their states.
    pub audit_seconds: u64,
    /// How often files on disk are read again to find what has rotted.
    pub scrub_seconds: u64,
}

impl Default for CheckSettings {
    fn default() -> Self {
        Self {
            audit_seconds: 600,
            scrub_seconds: 21_600,
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    pub path: String,
    pub hmac_secret_file: Option<PathBuf>,
    /// The address that the forge sends to, as it is written there.
    pub url: Option<String>,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            path: "/hook".to_owned(),
            hmac_secret_file: None,
            url: None,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// A directory; empty = `artifacts` beside the data directory.
    pub url: String,
    /// Says that every node and agent sees the same directory.
    pub shared: bool,
}

/// Prow's `tide` and `horologium` periods are in config.yaml; this is what only a node knows.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TideSettings {
    /// Overrides `tide.sync_period`, in milliseconds; for tests and demos.
    pub sync_period_ms: Option<u64>,
}

/// How much in-repo configuration is remembered (CFG-083); which repositories have any is in config.yaml.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct InRepoSettings {
    /// States of repositories, conflicting and broken ones too: Prow's `--in-repo-config-cache-size`.
    pub cache_entries: usize,
    /// Of the files together.
    pub cache_bytes: u64,
    /// Since the last use.
    pub cache_hours: u32,
}

impl Default for InRepoSettings {
    fn default() -> Self {
        Self {
            cache_entries: 10_000,
            cache_bytes: 64 << 20,
            cache_hours: 6,
        }
    }
}

impl InRepoSettings {
    #[must_use]
    pub fn limits(self) -> CacheLimits {
        CacheLimits {
            entries: self.cache_entries,
            bytes: self.cache_bytes,
            age: Duration::from_secs(u64::from(self.cache_hours) * 60 * 60),
        }
    }
}

fn default_listen() -> String {
    DEFAULT_LISTEN.to_owned()
}

/// # Errors
/// When the name cannot stand in a certificate.
pub fn check_cluster_name(name: &str) -> anyhow::Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(
        !name.is_empty() && name.len() <= MAX_CLUSTER_NAME && name.bytes().all(plain),
        "{name:?} is no name of a cluster: 1 to {MAX_CLUSTER_NAME} lowercase letters, digits and -"
    );
    Ok(())
}

impl Settings {
    /// # Errors
    /// Naming the file, the line and what to do.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let settings = Self::read(path)?;
        settings
            .check()
            .with_context(|| path.display().to_string())?;
        Ok(settings)
    }

    /// The same without looking whether it makes sense as a whole: flags may have the rest.
    ///
    /// # Errors
    /// See [`Self::load`].
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "{}: cannot be read; deploy/trireme.example.toml explains every key",
                path.display()
            )
        })?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// # Errors
    /// See [`Self::load`].
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let settings: Self = toml::from_str(text)?;
        settings.check()?;
        Ok(settings)
    }

    /// # Errors
    /// Naming the key and what to do.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.node_id > 0, "node_id: must be 1 or more");
        let raft = self.raft;
        ensure!(
            raft.heartbeat_ms >= 10
                && raft.election_min_ms >= 2 * raft.heartbeat_ms
                && raft.election_max_ms > raft.election_min_ms,
            "raft: heartbeat_ms must be at least 10, election_min_ms at least twice that, election_max_ms above \
             election_min_ms"
        );
        ensure!(
            self.disk
                .budget_bytes
                .is_none_or(|bytes| bytes >= MIN_BUDGET_BYTES),
            "disk.budget_bytes: must be at least {MIN_BUDGET_BYTES}; leave it out to use the whole file system"
        );
        ensure!(
            self.disk.history_days > 0,
            "disk.history_days: must be at least 1"
        );
        ensure!(
            self.checks.audit_seconds > 0 && self.checks.scrub_seconds > 0,
            "checks: audit_seconds and scrub_seconds must be at least 1"
        );
        ensure!(
            self.in_repo.cache_entries > 0
                && self.in_repo.cache_bytes > 0
                && self.in_repo.cache_hours > 0,
            "in_repo: cache_entries, cache_bytes and cache_hours must be at least 1"
        );
        check_cluster_name(&self.cluster.name).context("cluster.name")?;
        if let Some(follow) = &self.config.follow {
            follow.check(self.github.is_some())?;
        }
        self.plugins.check()?;
        self.cherrypicker.check()?;
        self.needs_rebase.check()?;
        if let Some(jira) = &self.jira {
            jira.check()?;
        }
        self.check_listeners()?;
        ensure!(
            self.webhook.path.starts_with('/'),
            "webhook.path: {:?} must start with /",
            self.webhook.path
        );
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.check()?;
        }
        if let Some(reconciler) = &self.status_reconciler {
            ensure!(
                self.github.is_some(),
                "status_reconciler: needs [github], whose pull requests it looks after"
            );
            reconciler.check()?;
        }
        if let Some(github) = &self.github {
            github.check()?;
            ensure!(
                self.webhook.hmac_secret_file.is_some(),
                "webhook.hmac_secret_file: needed when github is set; webhooks are only taken signed"
            );
        }
        ensure!(
            self.cluster.bootstrap.is_empty() || self.cluster.join.is_empty(),
            "cluster: a node either bootstraps a new cluster or joins one, not both"
        );
        if !self.cluster.bootstrap.is_empty() {
            ensure!(
                self.cluster
                    .bootstrap
                    .iter()
                    .any(|node| node.id == self.node_id),
                "cluster.bootstrap: does not name this node ({})",
                self.node_id
            );
        }
        Ok(())
    }

    /// DESIGN §8: beyond loopback a listener is encrypted and asks who calls, or there is none.
    fn check_listeners(&self) -> anyhow::Result<()> {
        let address = |key: &str, address: &String| -> anyhow::Result<SocketAddr> {
            address
                .parse()
                .with_context(|| format!("{key}: {address:?} is no ip:port"))
        };
        let peer = &self.peer;
        let given = [&peer.ca, &peer.certificate, &peer.key].map(Option::is_some);
        ensure!(
            given == [true; 3] || given == [false; 3],
            "peer: ca, certificate and key belong together; `trireme certs node` makes all three"
        );
        let door = address("listen", &self.listen)?;
        if !door.ip().is_loopback() {
            for (key, missing, what) in [
                (
                    "tls",
                    self.tls.is_none(),
                    "a certificate, as `trireme certs server` makes one",
                ),
                (
                    "auth.operator_token_file",
                    self.auth.operator_token_file.is_none(),
                    "a token, as `trireme token generate` prints one",
                ),
            ] {
                ensure!(
                    !missing,
                    "listen: {door} is reachable from other hosts, but {key} is missing: give it {what}, or listen on \
                     127.0.0.1"
                );
            }
            ensure!(
                self.auth.anonymous != Some(AnonymousSetting::Operator),
                "auth.anonymous: \"operator\" would let anybody who reaches {door} do everything; use \"viewer\" or \"none\""
            );
        }
        let peers = address("peer.listen", &peer.listen)?;
        ensure!(
            peers.ip().is_loopback() || peer.ca.is_some(),
            "peer.listen: {peers} is reachable from other hosts, but peer.ca, peer.certificate and peer.key are missing: make \
             them with `trireme certs ca` and `trireme certs node`, or listen on 127.0.0.1"
        );
        Ok(())
    }

    /// What whoever shows no token may do.
    #[must_use]
    pub fn anonymous(&self) -> AnonymousSetting {
        let alone = self.auth.operator_token_file.is_none()
            && self
                .listen
                .parse()
                .is_ok_and(|address: SocketAddr| address.ip().is_loopback());
        self.auth.anonymous.unwrap_or(if alone {
            AnonymousSetting::Operator
        } else {
            AnonymousSetting::None
        })
    }

    #[must_use]
    pub fn api_address(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.listen)
    }

    #[must_use]
    pub fn peer_address(&self) -> &str {
        self.peer.advertise.as_deref().unwrap_or(&self.peer.listen)
    }

    /// Where artifacts are.
    #[must_use]
    pub fn storage(&self) -> String {
        if self.storage.url.is_empty() {
            self.data_dir
                .with_file_name("artifacts")
                .display()
                .to_string()
        } else {
            self.storage.url.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "node_id = 1\ndata_dir = \"/d\"\n";

    #[test]
    fn a_small_file_is_enough() {
        let settings = Settings::parse(SMALL).unwrap();
        assert_eq!(settings.api_address(), "127.0.0.1:8888");
        assert_eq!(settings.storage(), "/artifacts");
    }

    /// CFG-090
    #[test]
    fn cfg_090_files_to_follow_must_be_there_from_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yaml");
        let text = format!(
            "{SMALL}[config.follow]\nconfig_path = {config:?}\njob_config_path = {:?}\n",
            dir.path()
        );
        let follow = Settings::parse(&text).unwrap().config.follow.unwrap();
        let told = format!("{:#}", follow.check_paths().unwrap_err());
        assert!(told.starts_with("config.follow.config_path: "), "{told}");
        assert!(told.contains("mount it on every node"), "{told}");
        std::fs::write(&config, "").unwrap();
        follow.check_paths().unwrap();
        let layout = follow.layout();
        assert_eq!(layout.config, config.display().to_string());
        assert_eq!(layout.supplemental_suffix, "_prowconfig.yaml");
    }

    /// PLG-CONFIGUPDATER-011
    #[test]
    fn plg_configupdater_011_a_repository_to_follow_is_named_with_paths_in_it() {
        let told = |follow: &str, github: &str| match Settings::parse(&format!(
            "{SMALL}{github}[config.follow]\n{follow}\n"
        )) {
            Ok(_) => "good".to_owned(),
            Err(why) => format!("{why:#}"),
        };
        let github = "[webhook]\nhmac_secret_file = \"h\"\n[github]\ntoken_file = \"t\"\n";
        let repo = "repo = \"acme/infra\"\nconfig_path = ";
        assert_eq!(told(&format!("{repo}\"prow/config.yaml\""), github), "good");
        for (follow, github, expected) in [
            (
                format!("{repo}\"/config.yaml\""),
                github,
                "config.follow.config_path: /config.yaml is no path in a repository",
            ),
            (
                format!("{repo}\"c\"\nplugin_config = \"../p\""),
                github,
                "config.follow.plugin_config: ../p is no path",
            ),
            (
                format!("{repo}\"c\""),
                "",
                "config.follow.repo: acme/infra is on a forge: set [github], too",
            ),
            (
                "repo = \"acme\"\nconfig_path = \"c\"".to_owned(),
                github,
                "config.follow.repo: \"acme\" is not in org/repo format",
            ),
            (
                "branch = \"b\"\nconfig_path = \"c\"".to_owned(),
                github,
                "config.follow.branch: of which repository?",
            ),
        ] {
            let told = told(&follow, github);
            assert!(told.contains(expected), "{follow}: {told}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |more: &str| {
            format!(
                "{:#}",
                Settings::parse(&format!("{SMALL}{more}")).unwrap_err()
            )
        };
        assert!(refused("[raft]\nheartbeat_ms = 400").contains("election_min_ms at least twice"));
        assert!(
            refused("[disk]\nbudget_bytes = 1000").contains("disk.budget_bytes: must be at least")
        );
        assert!(refused("[checks]\naudit_seconds = 0").contains("must be at least 1"));
        assert!(refused("[in_repo]\ncache_entries = 0").contains("in_repo: cache_entries"));
        assert!(refused("[github]").contains("github: give either token_file"));
        // HOOK-013
        let told = refused(
            "[github]\ntoken_file = \"t\"\nenabled_orgs = [\"a\"]\ndisabled_orgs = [\"a\"]",
        );
        assert!(
            told.contains("github: \"a\" is in both enabled_orgs and disabled_orgs"),
            "{told}"
        );
        let told = refused("[github]\ntoken_file = \"t\"\nenabled_repos = [\"a\"]");
        assert!(
            told.contains("github: enabled_repos: \"a\" is not in org/repo format"),
            "{told}"
        );
        assert!(refused("lisen = \"x\"").contains("unknown field `lisen`"));
        assert!(
            refused("[[cluster.bootstrap]]\nid = 2\npeer = \"a\"\napi = \"b\"")
                .contains("does not name this node (1)")
        );
    }

    /// DESIGN §8: what is missing is named, one after the other, until nothing is.
    #[test]
    fn beyond_loopback_each_missing_part_is_named() {
        let told = |text: &str| match Settings::parse(&format!("{SMALL}{text}")) {
            Ok(_) => "good".to_owned(),
            Err(why) => format!("{why:#}"),
        };
        let open = "listen = \"0.0.0.0:80\"\n";
        let tls = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        let auth = "[auth]\noperator_token_file = \"t\"\n";
        insta::assert_snapshot!(told(open), @"listen: 0.0.0.0:80 is reachable from other hosts, but tls is missing: give it a certificate, as `trireme certs server` makes one, or listen on 127.0.0.1");
        insta::assert_snapshot!(told(&format!("{open}{tls}")), @"listen: 0.0.0.0:80 is reachable from other hosts, but auth.operator_token_file is missing: give it a token, as `trireme token generate` prints one, or listen on 127.0.0.1");
        insta::assert_snapshot!(told(&format!("{open}{tls}{auth}anonymous = \"operator\"")), @r#"auth.anonymous: "operator" would let anybody who reaches 0.0.0.0:80 do everything; use "viewer" or "none""#);
        assert_eq!(told(&format!("{open}{tls}{auth}")), "good");
        assert_eq!(
            told(&format!("{open}{tls}{auth}anonymous = \"viewer\"")),
            "good"
        );

        let peers = "[peer]\nlisten = \"0.0.0.0:81\"\n";
        insta::assert_snapshot!(told(peers), @"peer.listen: 0.0.0.0:81 is reachable from other hosts, but peer.ca, peer.certificate and peer.key are missing: make them with `trireme certs ca` and `trireme certs node`, or listen on 127.0.0.1");
        insta::assert_snapshot!(told(&format!("{peers}ca = \"a\"")), @"peer: ca, certificate and key belong together; `trireme certs node` makes all three");
        assert_eq!(
            told(&format!(
                "{peers}ca = \"a\"\ncertificate = \"c\"\nkey = \"k\""
            )),
            "good"
        );
        assert!(told("[cluster]\nname = \"a/b\"").contains("cluster.name"));
    }

    #[test]
    fn strangers_may_everything_only_where_no_tokens_are_and_nobody_else_gets_to() {
        let anonymous = |text: &str| {
            Settings::parse(&format!("{SMALL}{text}"))
                .unwrap()
                .anonymous()
        };
        assert_eq!(anonymous(""), AnonymousSetting::Operator);
        let auth = "[auth]\noperator_token_file = \"t\"\n";
        assert_eq!(anonymous(auth), AnonymousSetting::None);
        assert_eq!(
            anonymous(&format!("{auth}anonymous = \"viewer\"")),
            AnonymousSetting::Viewer
        );
    }

    /// ADM-001, ADM-102
    #[test]
    fn the_status_reconciler_is_off_and_then_dry_unless_told_otherwise() {
        let parse = |more: &str| Settings::parse(&format!("node_id = 1\ndata_dir = \"d\"\n{more}"));
        assert!(parse("").unwrap().status_reconciler.is_none());
        let github = "[webhook]\nhmac_secret_file = \"h\"\n[github]\ntoken_file = \"t\"\n";
        let asked = |more: &str| parse(&format!("{github}[status_reconciler]\n{more}"));
        let options = |more: &str| asked(more).unwrap().status_reconciler.unwrap().options();
        assert!(options("").dry_run);
        let told = options("dry_run = false\ndenylist_all = [\"org\", \"o/r\"]");
        assert!(!told.dry_run && !told.continue_on_error);
        assert_eq!(told.denylist_all, ["org", "o/r"]);
        for (bad, why) in [
            (
                asked("denylist = [\"a/b/c\"]"),
                "status_reconciler.denylist: \"a/b/c\" names nothing",
            ),
            (
                asked("denylist_all = [\"\"]"),
                "status_reconciler.denylist_all: \"\" names nothing",
            ),
            (
                parse("[status_reconciler]\n"),
                "status_reconciler: needs [github]",
            ),
            (asked("dryrun = true"), "unknown field `dryrun`"),
        ] {
            let told = format!("{:#}", bad.unwrap_err());
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn the_example_file_is_good_and_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/trireme.example.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        Settings::parse(&text).unwrap();
        for key in [
            "node_id",
            "data_dir",
            "listen",
            "advertise",
            "[peer]",
            "bootstrap",
            "join",
            "heartbeat_ms",
            "election_min_ms",
            "election_max_ms",
            "[disk]",
            "budget_bytes",
            "reserve_bytes",
            "history_days",
            "[checks]",
            "audit_seconds",
            "scrub_seconds",
            "[github]",
            "endpoint",
            "fallback_endpoints",
            "graphql_endpoint",
            "host = ",
            "hourly_tokens",
            "allowed_burst",
            "throttle_org",
            "request_timeout_seconds",
            "max_retries",
            "max_404_retries",
            "initial_delay_ms",
            "backoff_timeout_seconds",
            "cache_bytes",
            "[[github.enterprise]]",
            "orgs = ",
            "token_file",
            "app_id",
            "app_private_key_file",
            "enabled_orgs = ",
            "enabled_repos = ",
            "disabled_orgs = ",
            "disabled_repos = ",
            "[kubernetes]",
            "kubeconfig = ",
            "kubeconfig_dir",
            "kubeconfig_suffix",
            "projected_token_file",
            "no_in_cluster_config",
            "path",
            "hmac_secret_file",
            "url",
            "shared",
            "sync_period_ms",
            "[in_repo]",
            "cache_entries",
            "cache_bytes",
            "cache_hours",
            "[status_reconciler]",
            "dry_run",
            "continue_on_error",
            "denylist = ",
            "denylist_all = ",
            "name = ",
            "ca = ",
            "[tls]",
            "certificate = ",
            "key = ",
            "[auth]",
            "operator_token_file",
            "anonymous",
            "raise_feature_level",
            "[log]",
            "minimum_secret_length",
            "[admission]",
            "known_clusters",
            "[config.follow]",
            "config_path",
            "job_config_path",
            "plugin_config",
            "supplemental_prow_config_dir",
            "supplemental_prow_configs_filename_suffix",
            "supplemental_plugin_config_dir",
            "supplemental_plugin_configs_filename_suffix",
            "max_retired_percent",
            "[plugins]",
            "fun = ",
            "elsewhere = ",
            "[cherrypicker]",
            "labels = ",
            "use_prow_assignments",
            "allow_all",
            "create_issue_on_conflict",
            "label_prefix",
            "[needs_rebase]",
            "update_period_seconds",
            "cache_valid_seconds",
            "[slack]",
            "[jira]",
            "username",
            "password_file",
            "bearer_token_file",
        ] {
            assert!(text.contains(key), "{key} is not explained");
        }
    }
}
