//! What the plugins of the configuration in force say about themselves (HOOK-080 … 084): put together from the plugins
//! that are built in, the processes that run elsewhere, and the repositories that orgs have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use trireme_config::{PluginConfig, plugins::ExternalPlugin};
use trireme_deck::plugin_help::{Help, HelpSource, PluginHelp};
use trireme_forge::{Forge, RepoId};
use trireme_office::{ConfigFeed, RunningConfig};
use trireme_outside::{NoClient, Outside};
use trireme_plugins::Plugins;

/// How long help is shown again before it is put together anew (DECK-033).
const FRESH: Duration = Duration::from_secs(60);
/// How long an org's repositories are taken for what they are (HOOK-084).
const ORGS_FRESH: Duration = Duration::from_secs(3600);
/// Before an org that could not be listed is asked for again.
const ORG_AGAIN: Duration = Duration::from_secs(5 * 60);
/// How long a person waits for the list of an org.
const LIST_WITHIN: Duration = Duration::from_secs(5);
/// Orgs that are listed at once.
const LISTS: usize = 8;
/// How long a plugin elsewhere may take to answer (HOOK-083).
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The repositories of orgs, as they were listed last.
#[derive(Default)]
struct Orgs {
    known: BTreeMap<String, Vec<RepoId>>,
    /// When each is to be listed again.
    due: BTreeMap<String, Instant>,
}

struct Told {
    version: u64,
    at: Instant,
    help: Arc<Help>,
}

/// Gives what Deck shows, at most so often.
pub struct PluginHelpSource {
    config: ConfigFeed,
    plugins: Plugins,
    outside: Outside,
    /// There is none before the node knows how to reach it, and without `[github]`.
    forge: OnceLock<Arc<dyn Forge>>,
    orgs: Mutex<Orgs>,
    /// Held while help is put together: whoever asks meanwhile gets the same.
    told: Mutex<Option<Told>>,
}

impl PluginHelpSource {
    /// # Errors
    /// [`NoClient`] if the system lacks what HTTPS needs.
    pub fn new(config: ConfigFeed, plugins: Plugins) -> Result<Self, NoClient> {
        Ok(Self {
            config,
            plugins,
            outside: Outside::new()?,
            forge: OnceLock::new(),
            orgs: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// From now on orgs are asked for their repositories.
    pub fn ask(&self, forge: Arc<dyn Forge>) {
        // It is made once per process.
        let _again = self.forge.set(forge);
    }

    /// HOOK-084: lists what is due. A failure leaves what was known; an org that was never listed has no repositories.
    async fn repos_of(&self, plugins: &PluginConfig) -> BTreeMap<String, Vec<RepoId>> {
        let named: BTreeSet<&String> = plugins
            .core
            .plugins
            .0
            .keys()
            .chain(plugins.core.external_plugins.keys())
            .filter(|key| !key.contains('/') && !key.is_empty())
            .collect();
        let mut orgs = self.orgs.lock().await;
        orgs.known.retain(|org, _| named.contains(org));
        orgs.due.retain(|org, _| named.contains(org));
        let now = Instant::now();
        let due: Vec<&String> = named
            .into_iter()
            .filter(|org| orgs.due.get(*org).is_none_or(|due| *due <= now))
            .collect();
        let Some(forge) = self.forge.get() else {
            return orgs.known.clone();
        };
        for some in due.chunks(LISTS) {
            let listing = some.iter().map(|org| async move {
                let listed = timeout(LIST_WITHIN, forge.owner_repositories(org)).await;
                (
                    *org,
                    listed.map_err(|_| format!("no answer within {LIST_WITHIN:?}")),
                )
            });
            for (org, listed) in futures::future::join_all(listing).await {
                let listed = listed.and_then(|listed| listed.map_err(|why| why.to_string()));
                let again = match listed {
                    Ok(repos) => {
                        let mut repos: Vec<RepoId> =
                            repos.into_iter().map(|repository| repository.id).collect();
                        repos.sort();
                        orgs.known.insert(org.clone(), repos);
                        ORGS_FRESH
                    }
                    Err(why) => {
                        tracing::warn!(org, why, "its repositories are not known for plugin help");
                        ORG_AGAIN
                    }
                };
                orgs.due.insert(org.clone(), now + again);
            }
        }
        orgs.known.clone()
    }

    async fn put_together(&self, running: &RunningConfig) -> Help {
        let plugins = &running.plugins;
        let orgs = self.repos_of(plugins).await;
        let expand = |key: &String| -> Vec<RepoId> {
            match key.parse() {
                Ok(repo) => vec![repo],
                Err(_) => orgs.get(key).cloned().unwrap_or_default(),
            }
        };
        let mut repo_plugins: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut on: BTreeMap<&str, BTreeSet<RepoId>> = BTreeMap::new();
        let mut all_repos = BTreeSet::new();
        for (key, of) in &plugins.core.plugins.0 {
            repo_plugins.insert(key.clone(), of.plugins.clone());
            let repos = expand(key);
            for name in &of.plugins {
                on.entry(name).or_default().extend(repos.iter().cloned());
            }
            all_repos.extend(repos);
        }
        let mut repo_external: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut external: BTreeMap<&str, (&ExternalPlugin, BTreeSet<RepoId>)> = BTreeMap::new();
        for (key, list) in &plugins.core.external_plugins {
            let names = list.iter().map(|plugin| plugin.name.clone());
            repo_external.insert(key.clone(), names.collect());
            let repos = expand(key);
            for plugin in list {
                let entry = external
                    .entry(&plugin.name)
                    .or_insert_with(|| (plugin, BTreeSet::new()));
                entry.0 = plugin;
                entry.1.extend(repos.iter().cloned());
            }
            all_repos.extend(repos);
        }
        let own: BTreeSet<&str> = self
            .plugins
            .names()
            .filter(|name| {
                let plugin = self.plugins.get(name);
                plugin.is_some_and(|plugin| plugin.external_names().is_empty())
            })
            .collect();
        let names = own.iter().map(|name| (*name).to_owned());
        repo_plugins.insert(String::new(), names.collect());
        let names = external.keys().map(|name| (*name).to_owned());
        repo_external.insert(String::new(), names.collect());
        let plugin_help = own.into_iter().filter_map(|name| {
            let repos: Vec<RepoId> = on.get(name).into_iter().flatten().cloned().collect();
            let help = self.plugins.help(name, plugins, &repos)?;
            Some((name.to_owned(), as_shown(&help)?))
        });
        Help {
            plugin_help: plugin_help.collect(),
            external_plugin_help: self.external(plugins, external).await,
            all_repos: all_repos.iter().map(ToString::to_string).collect(),
            repo_plugins,
            repo_external_plugins: repo_external,
        }
    }

    /// HOOK-083: all at once; who does not answer in time is left out.
    async fn external(
        &self,
        plugins: &PluginConfig,
        external: BTreeMap<&str, (&ExternalPlugin, BTreeSet<RepoId>)>,
    ) -> BTreeMap<String, PluginHelp> {
        let asking = external
            .into_iter()
            .map(|(name, (plugin, repos))| async move {
                let repos: Vec<RepoId> = repos.into_iter().collect();
                let told = match self.plugins.external(name) {
                    Some(built) => {
                        let help = self.plugins.help(built.name(), plugins, &repos);
                        help.as_ref().and_then(as_shown)
                    }
                    None => match self.ask_elsewhere(&plugin.endpoint, &repos).await {
                        Ok(help) => Some(help),
                        Err(why) => {
                            tracing::warn!(plugin = name, why, "no help from a plugin elsewhere");
                            None
                        }
                    },
                };
                let told = told.map(|help| PluginHelp {
                    events: plugin.events.clone(),
                    ..help
                });
                Some((name.to_owned(), told?))
            });
        let answered = futures::future::join_all(asking).await;
        answered.into_iter().flatten().collect()
    }

    async fn ask_elsewhere(&self, endpoint: &str, repos: &[RepoId]) -> Result<PluginHelp, String> {
        let mut url: url::Url = endpoint
            .parse()
            .map_err(|why| format!("{endpoint}: {why}"))?;
        let path = format!("{}/help", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let repos = repos.iter();
        let repos = repos.map(|repo| serde_json::json!({ "Org": repo.org, "Repo": repo.repo }));
        let body = serde_json::Value::from_iter(repos).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Bytes::from(body);
        let sent = self
            .outside
            .send(Method::POST, url.as_str(), headers, body, ANSWER_WITHIN)
            .await
            .map_err(|why| why.to_string())?;
        if !sent.status.is_success() {
            return Err(format!("{url}: {}", sent.status));
        }
        serde_json::from_slice(&sent.body).map_err(|why| format!("{url}: its help is none: {why}"))
    }
}

/// Both are the JSON of Prow.
fn as_shown(help: &trireme_plugins::PluginHelp) -> Option<PluginHelp> {
    let shown = serde_json::to_value(help).and_then(serde_json::from_value);
    shown
        .map_err(|why| tracing::error!(%why, "a plugin's help cannot be shown"))
        .ok()
}

#[async_trait]
impl HelpSource for PluginHelpSource {
    async fn help(&self) -> Arc<Help> {
        let Some(running) = self.config.borrow().clone() else {
            return Arc::default();
        };
        let mut told = self.told.lock().await;
        if let Some(told) = &*told
            && told.version == running.version
            && told.at.elapsed() < FRESH
        {
            return Arc::clone(&told.help);
        }
        let help = Arc::new(self.put_together(&running).await);
        *told = Some(Told {
            version: running.version,
            at: Instant::now(),
            help: Arc::clone(&help),
        });
        help
    }
}

/// HOOK-054: says once per configuration which of its plugins do nothing.
pub async fn tell_not_built(mut config: ConfigFeed, stop: CancellationToken) {
    loop {
        let running = config.borrow_and_update().clone();
        if let Some(running) = running
            && let Some(names) = not_built(&running.plugins)
        {
            tracing::warn!(
                version = running.version,
                names,
                "plugins are enabled that this version does not have: nothing happens where they are on"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = config.changed() => if changed.is_err() { return },
        }
    }
}

fn not_built(plugins: &PluginConfig) -> Option<String> {
    let names: Vec<&str> = plugins.not_built.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::StatusCode, routing::post};
    use serde_json::{Value, json};
    use tokio::sync::watch;
    use trireme_config::{Config, FileSet, Layout, LoadOptions};

    use super::*;

    fn running(plugins: &str) -> Arc<RunningConfig> {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            plugins: Some("plugins.yaml".to_owned()),
            ..Layout::default()
        });
        files.insert("config.yaml", *b"{}");
        files.insert("plugins.yaml", plugins.as_bytes());
        let registry = Plugins::built_in().config_registry();
        let options = LoadOptions {
            plugins: Some(&registry),
            ..LoadOptions::default()
        };
        let (config, plugins) = Config::load(&files, options).accepted().unwrap();
        Arc::new(RunningConfig {
            version: 1,
            config,
            plugins,
        })
    }

    fn source(plugins: &str) -> PluginHelpSource {
        let (_, feed) = watch::channel(Some(running(plugins)));
        PluginHelpSource::new(feed, Plugins::built_in()).unwrap()
    }

    /// HOOK-083, HOOK-082: asked by POST with the repositories, all at once; the configured events count.
    #[tokio::test]
    async fn hook_083_plugins_elsewhere_are_asked_and_the_slow_and_the_broken_left_out() {
        let help = |Json(repos): Json<Value>| async move {
            assert_eq!(repos, json!([{ "Org": "acme", "Repo": "widget" }]));
            Json(json!({ "Description": "Echoes.", "Events": ["push"], "Commands": null }))
        };
        let app = Router::new()
            .route("/here/help", post(help))
            .route(
                "/broken/help",
                post(async || StatusCode::INTERNAL_SERVER_ERROR),
            )
            .route(
                "/slow/help",
                post(async || std::future::pending::<StatusCode>().await),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let source = source(&format!(
            "external_plugins:\n  acme/widget:\n  - {{name: echo, endpoint: 'http://{at}/here/', events: [issue_comment]}}\n  \
             - {{name: broken, endpoint: 'http://{at}/broken'}}\n  - {{name: slow, endpoint: 'http://{at}/slow'}}\n",
        ));
        let told = source.help().await;
        serving.abort();
        let names: Vec<&String> = told.external_plugin_help.keys().collect();
        assert_eq!(names, ["echo"]);
        let echo = &told.external_plugin_help["echo"];
        assert_eq!(
            (echo.description.as_str(), &echo.events),
            ("Echoes.", &vec!["issue_comment".to_owned()])
        );
        assert_eq!(told.repo_external_plugins[""], ["broken", "echo", "slow"]);
        assert_eq!(
            told.repo_external_plugins["acme/widget"],
            ["echo", "broken", "slow"]
        );
        // What was told once is told again for a while: nobody is there to answer any more.
        assert!(Arc::ptr_eq(&told, &source.help().await));
    }

    /// HOOK-080, HOOK-084: names as configured; an org that was not listed has no repositories.
    #[tokio::test]
    async fn hook_080_help_is_of_the_configuration_in_force() {
        let source =
            source("plugins: {acme: {plugins: [hold, rifle]}, other/repo: {plugins: [wip]}}");
        let told = source.help().await;
        assert_eq!(told.all_repos, ["other/repo"]);
        assert_eq!(told.repo_plugins["acme"], ["hold", "rifle"]);
        assert!(told.repo_plugins[""].contains(&"hold".to_owned()));
        assert!(told.plugin_help.contains_key("hold") && !told.plugin_help.contains_key("rifle"));
        assert_eq!(told.plugin_help["wip"].events, ["pull_request"]);
    }

    /// HOOK-054
    #[test]
    fn hook_054_what_is_not_built_is_named() {
        let told = |plugins: &str| not_built(&running(plugins).plugins);
        let all = told("plugins: {acme: {plugins: [hold, rifle]}, o/r: {plugins: [bugzilla]}}");
        assert_eq!(all.as_deref(), Some("bugzilla, rifle"));
        assert_eq!(told("plugins: {acme: {plugins: [hold]}}"), None);
        let unknown = told("plugins: {acme: {plugins: [hold, of-a-fork]}}");
        assert_eq!(unknown.as_deref(), Some("of-a-fork"));
    }
}
