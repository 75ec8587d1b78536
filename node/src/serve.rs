//! `serve`: one node put together.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use trireme_admin::status_reconciler::{Metrics, StatusReconciler};
use trireme_api::{
    Anonymous, AuthConfig, ConfigHealth, DoorConfig, Doors, HookSecrets, HookTokens, RunStore,
};
use trireme_config::{plugins::Registry, yaml};
use trireme_deck::{BudgetLeft, Budgets, plugin_help::HelpSource};
use trireme_forge::{
    Forge,
    git::{MirrorLimits, Mirrors, MirrorsOptions},
    github::{Credentials, GitHub, GitHubMetrics, Priority, SecretSource, TokenObserver},
    owners::{OwnersLoader, OwnersMetrics},
};
use trireme_in_repo::{InRepo, InRepoMetrics};
use trireme_jobs::{Leases, Periodics, Scheduler, Sinker};
use trireme_office::{Controller, Keeper};
use trireme_plugins::{Equipment, OurHooks, PluginMetrics, Plugins, PluginsController};
use trireme_raft::{
    FatalKind, Node, PeerTls, QueueGauge, Store, StoreConfig, Timing, tls::DoorTls,
};

use crate::{
    cli::ServeArgs,
    clusters,
    configuration::{Check, Feed, Feeder, StoredVersions},
    debug_source::NodeDebug,
    exit::{CORRUPT, DIVERGED, REMOVED, TOO_OLD, coded},
    exit_with_parent,
    follow::{Follower, Reach},
    forge_cache, interrupted,
    plugin_help::{PluginHelpSource, tell_not_built},
    run_store::LocalRuns,
    secrets::{Censor, Parsed, SecretFile, Secrets},
    settings::{AnonymousSetting, Place, RaiseFeatureLevel, Settings},
};

/// How long stopping may take altogether.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The sections of all plugins that this binary has.
#[must_use]
pub fn registry() -> Registry {
    Plugins::built_in().config_registry()
}

pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    if args.exit_with_parent {
        exit_with_parent()?;
    }
    let mut settings = Settings::read(&args.config)?;
    override_settings(&mut settings, &args);
    settings
        .check()
        .with_context(|| args.config.display().to_string())?;
    if let Some(follow) = &settings.config.follow {
        follow.check_paths()?;
    }
    let censor = Censor::of_process();
    censor.show_shorter_than(settings.log.minimum_secret_length);
    let secrets = Secrets::new(censor);
    hide_others(&settings, &secrets)?;
    let tls = match &settings.tls {
        Some(tls) => Some(Arc::new(
            DoorTls {
                certificate: tls.certificate.clone(),
                key: tls.key.clone(),
            }
            .open()
            .context("tls")?,
        )),
        None => None,
    };
    let store = open_store(&settings).await?;
    let told = Told::default();
    let registered = told.clone();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();

    let config_health = ConfigHealth::default();
    let run_here = settings.plugins.run_here();
    let sections = Arc::new(run_here.config_registry());
    let (feeder, feed) = Feeder::new(store.clone(), sections, config_health.clone());
    tasks.spawn(feeder.run(stop.clone()));

    let help = PluginHelpSource::new(feed.config.clone(), run_here)?;
    let help = Arc::new(help);
    tasks.spawn(tell_not_built(feed.config.clone(), stop.clone()));

    let runs: Arc<dyn RunStore> = Arc::new(LocalRuns::new(settings.storage()));
    let leases = Leases::default();
    let github = github(&settings, &secrets, told.github.clone())?;
    let pages_store = store.clone();
    let pages_budgets = budgets(github.clone());
    let pages_runs = Arc::clone(&runs);
    let pages_config = config_health.clone();
    let pages_help = Arc::clone(&help) as Arc<dyn HelpSource>;
    let webhook_path = settings.webhook.path.clone();
    let doors = Doors::new(
        store.clone(),
        DoorConfig {
            webhook_path: settings.webhook.path.clone(),
            secrets: hook_secrets(&settings, &secrets)?,
            storage: settings.storage(),
            config: Arc::new(Check::new(
                Arc::clone(&feed.versions),
                feed.config.clone(),
                settings.admission.known_clusters,
            )),
            config_health: config_health.clone(),
            runs,
            leases: Arc::new(leases.clone()),
            auth: AuthConfig {
                anonymous: match settings.anonymous() {
                    AnonymousSetting::Operator => Anonymous::Operator,
                    AnonymousSetting::Viewer => Anonymous::Viewer,
                    AnonymousSetting::None => Anonymous::None,
                },
                operator_token_file: settings.auth.operator_token_file.clone(),
            },
            tls,
            debug: Arc::new(NodeDebug::new(settings.clone())),
            metrics: Box::new(move |registry| {
                registered.register(registry);
            }),
            pages: Box::new(move |logs| {
                trireme_deck::pages(
                    pages_store,
                    pages_runs,
                    pages_config,
                    pages_help,
                    &webhook_path,
                    pages_budgets,
                    logs,
                )
            }),
        },
    )
    .await?;
    let config_door = doors.config_for(Follower::author(settings.node_id));
    let listener = TcpListener::bind(&settings.listen)
        .await
        .with_context(|| format!("listen: {} cannot be used", settings.listen))?;
    tracing::info!(node = settings.node_id, listen = settings.listen, "serving");
    let serving = stop.clone();
    tasks.spawn(async move {
        if let Err(why) = doors.serve(listener, serving).await {
            tracing::error!(%why, "the door is closed");
        }
    });

    if let Some(github) = &github {
        help.ask(Arc::clone(github) as Arc<dyn Forge>);
        let following = forge_cache::follow(store.clone(), Arc::clone(github), stop.clone());
        tasks.spawn(following);
        tasks.spawn(forge_cache::tell_gaps(Arc::clone(github), stop.clone()));
    }
    let (mut controllers, _gauges, reach) =
        controllers(&settings, &secrets, github, leases, &feed, &store, told).await?;
    tasks.spawn(secrets.run(stop.clone()));
    let follow = settings.config.follow.as_ref();
    let follower = Follower::new(follow, reach, config_door, config_health);
    controllers.push(Arc::new(follower));
    let keeper = Keeper::new(store.clone(), controllers).while_fit(feed.fit);
    let keeping = stop.clone();
    tasks.spawn(async move { keeper.run(keeping).await });

    let joining = tokio::spawn(form(store.clone(), settings.clone()));
    let ended = tokio::select! {
        heard = interrupted() => heard.map_err(anyhow::Error::from),
        fatal = store.fatal() => Err(fatal_error(fatal.kind, &fatal.message)),
        result = failed(joining) => result,
    };
    tracing::info!("stopping");
    stop.cancel();
    let stopping = async {
        while tasks.join_next().await.is_some() {}
        store.shutdown().await;
    };
    if tokio::time::timeout(STOP_TIMEOUT, stopping).await.is_err() {
        tracing::warn!(?STOP_TIMEOUT, "stopped before everything had ended");
    }
    ended
}

fn override_settings(settings: &mut Settings, args: &ServeArgs) {
    if let Some(node_id) = args.node_id {
        settings.node_id = node_id;
    }
    if let Some(data_dir) = &args.data_dir {
        settings.data_dir.clone_from(data_dir);
    }
    if let Some(listen) = &args.listen {
        settings.listen.clone_from(listen);
    }
    if let Some(listen) = &args.peer_listen {
        settings.peer.listen.clone_from(listen);
    }
    args.github.clone().put(&mut settings.github);
}

fn fatal_error(kind: FatalKind, message: &str) -> anyhow::Error {
    let code = match kind {
        FatalKind::UnknownCommand => TOO_OLD,
        FatalKind::Disk | FatalKind::Corruption | FatalKind::Archive => CORRUPT,
        FatalKind::Diverged => DIVERGED,
        FatalKind::Removed => REMOVED,
        FatalKind::Consensus => 1,
    };
    coded(code, message)
}

async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let peer: SocketAddr = settings.peer.listen.parse().context("peer.listen")?;
    let mut config = StoreConfig::new(settings.data_dir.clone(), settings.node_id, peer);
    settings.peer_address().clone_into(&mut config.peer_address);
    settings.api_address().clone_into(&mut config.api_address);
    let peer = &settings.peer;
    if let (Some(ca), Some(certificate), Some(key)) = (&peer.ca, &peer.certificate, &peer.key) {
        config.tls = Some(PeerTls {
            cluster: settings.cluster.name.clone(),
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        });
    }
    config.raises_feature_level = settings.raft.raise_feature_level == RaiseFeatureLevel::Auto;
    config.timing = Timing {
        heartbeat: Duration::from_millis(settings.raft.heartbeat_ms),
        election_min: Duration::from_millis(settings.raft.election_min_ms),
        election_max: Duration::from_millis(settings.raft.election_max_ms),
        ..Timing::default()
    };
    config.limits.space.budget_bytes = settings.disk.budget_bytes;
    config.limits.space.reserve_bytes = settings.disk.reserve_bytes;
    config.limits.history =
        Duration::from_secs(u64::from(settings.disk.history_days) * 24 * 60 * 60);
    config.limits.audit_every = Duration::from_secs(settings.checks.audit_seconds);
    config.limits.scrub_every = Duration::from_secs(settings.checks.scrub_seconds);
    Box::pin(Store::open(config)).await.map_err(|why| {
        use trireme_raft::OpenError;
        match why {
            OpenError::Directory(_)
            | OpenError::Wal(_)
            | OpenError::Snapshot(_)
            | OpenError::Unrecoverable { .. } => coded(CORRUPT, why.to_string()),
            OpenError::Resync { .. } => coded(DIVERGED, why.to_string()),
            OpenError::Stopped(fatal) => fatal_error(fatal.kind, &fatal.message),
            why => why.into(),
        }
    })
}

/// Becomes a member where it is none yet.
async fn form(store: Store, settings: Settings) -> anyhow::Result<()> {
    if store.is_member() {
        return Ok(());
    }
    let cluster = &settings.cluster;
    if !cluster.join.is_empty() {
        return Ok(store.join(&cluster.join).await?);
    }
    let members = if cluster.bootstrap.is_empty() {
        // A cluster of its own.
        vec![Node {
            id: settings.node_id,
            peer_address: settings.peer_address().to_owned(),
            api_address: settings.api_address().to_owned(),
            ..Node::default()
        }]
    } else {
        cluster
            .bootstrap
            .iter()
            .map(|node| Node {
                id: node.id,
                peer_address: node.peer.clone(),
                api_address: node.api.clone(),
                ..Node::default()
            })
            .collect()
    };
    Ok(store.bootstrap(members).await?)
}

/// Resolves only when forming the cluster failed.
async fn failed(joining: tokio::task::JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    match joining.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(why)) => Err(why),
        Err(why) => Err(anyhow!(why)),
    }
}

/// HOOK-006: Prow's map of scopes to tokens, or one token for everything.
fn hook_secrets(settings: &Settings, secrets: &Secrets) -> anyhow::Result<HookSecrets> {
    let Some(path) = &settings.webhook.hmac_secret_file else {
        return Ok(HookSecrets::default());
    };
    let tokens = secrets.typed("webhook.hmac_secret_file", path, |text| {
        let value = hook_tokens(text)?;
        let parts = value.values().flatten().cloned().collect();
        Ok(Parsed { value, parts })
    })?;
    Ok(HookSecrets::asked(move || tokens.get()))
}

/// What is more than one line, or is YAML of more than one value, is a map or nothing: half of one is no token.
fn hook_tokens(text: &str) -> Result<HookTokens, String> {
    const FORM: &str = "it must be one line, which is the token for everything, or a YAML map of scopes to lists of \
                        {value, created_at} with at least one token each";
    let token = text.trim();
    let value = yaml::parse(text.as_bytes())
        .ok()
        .and_then(|document| document.root.to_json().ok());
    let is_line = !token.contains(['\n', '\r']) && !token.starts_with(['{', '[']);
    match value {
        Some(serde_json::Value::Object(scopes)) => {
            if scopes.is_empty() {
                return Err(format!("it is a map without a scope: {FORM}"));
            }
            let scope = |(scope, tokens): (String, serde_json::Value)| {
                let tokens = scope_tokens(&tokens);
                let tokens = tokens.ok_or_else(|| {
                    format!("it is a map, but scope {scope:?} has no list of tokens: {FORM}")
                })?;
                Ok((scope, tokens))
            };
            scopes.into_iter().map(scope).collect()
        }
        Some(serde_json::Value::Array(_)) => Err(format!("it is a list: {FORM}")),
        _ if is_line => Ok([("*".to_owned(), vec![token.to_owned()])].into()),
        _ => Err(format!("it is neither one line nor a whole map: {FORM}")),
    }
}

/// At least one, none of them empty.
fn scope_tokens(list: &serde_json::Value) -> Option<Vec<String>> {
    let tokens = list.as_array()?.iter().map(|token| {
        let value = token.get("value")?.as_str()?;
        (!value.trim().is_empty()).then(|| value.to_owned())
    });
    let tokens = tokens.collect::<Option<Vec<_>>>()?;
    (!tokens.is_empty()).then_some(tokens)
}

/// A token as it stands in a header.
fn header_token(text: &str) -> Result<Parsed<String>, String> {
    let value = text.trim().to_owned();
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token is one line of visible ASCII characters without spaces".to_owned());
    }
    let parts = Vec::new();
    Ok(Parsed { value, parts })
}

fn app_key(text: &str) -> Result<Parsed<String>, String> {
    trireme_forge::github::check_app_key(text)?;
    Ok(Parsed {
        value: text.trim().to_owned(),
        parts: Vec::new(),
    })
}

fn credentials(place: &Place<'_>, secrets: &Secrets) -> anyhow::Result<Credentials> {
    let asked =
        |file: SecretFile<String>| -> SecretSource { Arc::new(move || file.get().to_string()) };
    let key = |name: &str| format!("{}.{name}", place.key);
    match (place.token_file, place.app) {
        (Some(path), None) => Ok(Credentials::Token(asked(secrets.typed(
            &key("token_file"),
            path,
            header_token,
        )?))),
        (None, Some((id, path))) => Ok(Credentials::App {
            id,
            key: asked(secrets.typed(&key("app_private_key_file"), path, app_key)?),
        }),
        _ => Err(anyhow!(
            "{}: give either token_file, or app_id with app_private_key_file",
            place.key
        )),
    }
}

/// What the cluster page tells of this node's client (GHC-050).
fn budgets(github: Option<Arc<GitHub>>) -> Budgets {
    Arc::new(move || {
        let told = github.iter().flat_map(|github| github.budgets());
        told.map(|told| BudgetLeft {
            name: told.name,
            resource: told.resource.to_owned(),
            remaining: told.remaining,
            limit: told.limit,
            reset_ms: told.reset.as_millisecond(),
        })
        .collect()
    })
}

/// The one client of this node; `None` without `[github]`.
fn github(
    settings: &Settings,
    secrets: &Secrets,
    metrics: GitHubMetrics,
) -> anyhow::Result<Option<Arc<GitHub>>> {
    let Some(github) = &settings.github else {
        return Ok(None);
    };
    let options = github.options(metrics, |place| credentials(place, secrets))?;
    let censor = secrets.censor().clone();
    let client = GitHub::new(options).context("github")?;
    let client = client.telling(TokenObserver::new(move |token, expires| {
        let seconds = u64::try_from(expires.as_second()).unwrap_or_default();
        censor.hide_until(token, UNIX_EPOCH + Duration::from_secs(seconds));
    }));
    Ok(Some(Arc::new(client)))
}

/// Secrets that others read by themselves, for the log alone.
fn hide_others(settings: &Settings, secrets: &Secrets) -> anyhow::Result<()> {
    let others = [
        (
            "auth.operator_token_file",
            settings.auth.operator_token_file.as_ref(),
        ),
        ("peer.key", settings.peer.key.as_ref()),
        ("tls.key", settings.tls.as_ref().map(|tls| &tls.key)),
    ];
    for (key, path) in others {
        if let Some(path) = path {
            let _read = secrets.text(key, path)?;
        }
    }
    Ok(())
}

/// What the controllers and their tools tell Prometheus.
#[derive(Clone, Default)]
struct Told {
    github: GitHubMetrics,
    in_repo: InRepoMetrics,
    owners: OwnersMetrics,
    plugins: PluginMetrics,
    reconciler: Metrics,
}

impl Told {
    fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.github.register(registry);
        self.in_repo.register(registry);
        self.owners.register(registry);
        self.plugins.register(registry);
        self.reconciler.register(registry);
    }
}

async fn controllers(
    settings: &Settings,
    secrets: &Secrets,
    client: Option<Arc<GitHub>>,
    leases: Leases,
    feed: &Feed,
    store: &Store,
    told: Told,
) -> anyhow::Result<(Vec<Arc<dyn Controller>>, Vec<QueueGauge>, Option<Reach>)> {
    let (versions, queues) = (Arc::clone(&feed.versions), store.queues());
    let feed = &feed.config;
    let mut controllers: Vec<Arc<dyn Controller>> = vec![
        Arc::new(Scheduler::new(leases, feed.clone())),
        Arc::new(Periodics::new(feed.clone())),
        Arc::new(Sinker::new(feed.clone())),
    ];
    let (Some(github), Some(client)) = (&settings.github, client) else {
        return Ok((controllers, Vec::new(), None));
    };
    let mirrors = Mirrors::open(MirrorsOptions {
        dir: settings.data_dir.with_file_name("git"),
        remote: github.url.parse().context("github.url")?,
        credentials: Some(client.clone()),
        limits: MirrorLimits::default(),
    })
    .await?;
    let owners = OwnersLoader::new(mirrors.clone()).telling(told.owners);
    let (calls, children) = (Arc::clone(&client), mirrors.clone());
    let (remembered, directories) = (owners.clone(), owners.clone());
    let gauges = vec![
        queues.register("forge_requests", client.in_flight().1, move || {
            calls.in_flight().0 as u64
        }),
        queues.register("git_processes", mirrors.children().1, move || {
            children.children().0 as u64
        }),
        queues.register("owners_remembered", owners.remembered().1, move || {
            remembered.remembered().0 as u64
        }),
        queues.register("owners_directories", owners.directories().1, move || {
            directories.directories().0 as u64
        }),
    ];
    let in_repo = InRepo::new(mirrors.clone(), settings.in_repo.limits(), told.in_repo);
    // A slow repair: what merges and what answers people goes before it.
    let background: Arc<dyn Forge> = Arc::new(client.with_priority(Priority::Background));
    let forges = Arc::clone(&client);
    let forge: Arc<dyn Forge> = client;
    let hooks = match (&settings.webhook.url, forges.app_hosts()) {
        (Some(url), _) => OurHooks::At(url.clone()),
        (None, hosts) if hosts.is_empty() => OurHooks::Unknown,
        (None, hosts) => OurHooks::Apps(hosts),
    };
    let reach = Reach {
        forge: Arc::clone(&forge),
        mirrors: mirrors.clone(),
    };
    let plugins = PluginsController::new(Equipment {
        plugins: settings.plugins.run_here(),
        forge: Arc::clone(&forge),
        forges,
        owners,
        in_repo: in_repo.clone(),
        mirrors: mirrors.clone(),
        config: feed.clone(),
        hooks,
        options: crate::plugin_settings::options(settings, secrets)?,
        config_maps: clusters::config_maps(settings).await?,
        metrics: told.plugins,
    })?;
    controllers.push(Arc::new(plugins.only(github.enablement()?)));
    controllers.push(Arc::new(trireme_report::Outbox::new(vec![Arc::new(
        trireme_report::GitHubReporter::new(Arc::clone(&forge), feed.clone()),
    )])));
    if let Some(reconciler) = &settings.status_reconciler {
        controllers.push(Arc::new(StatusReconciler::new(
            background,
            in_repo.clone(),
            feed.clone(),
            Arc::new(StoredVersions::new(store.clone(), versions)),
            reconciler.options(),
            told.reconciler,
        )));
    }
    controllers.push(Arc::new(trireme_tide::Tide::new(
        forge,
        mirrors,
        in_repo,
        feed.clone(),
    )));
    Ok((controllers, gauges, Some(reach)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HOOK-006, GHC-020
    #[test]
    fn secrets_are_a_map_or_one_token() {
        let all = |scopes: &[(&str, &[&str])]| -> HookTokens {
            let owned = |tokens: &[&str]| tokens.iter().map(|token| (*token).to_owned()).collect();
            let scopes = scopes.iter();
            scopes
                .map(|(scope, tokens)| ((*scope).to_owned(), owned(tokens)))
                .collect()
        };
        for token in ["s3cret", "*s3cret", "%s3cret", "12345678", "#s3cret"] {
            let told = hook_tokens(&format!("{token}\n")).unwrap();
            assert_eq!(told, all(&[("*", &[token])]));
        }
        assert_eq!(
            hook_tokens(
                "org/repo:\n- value: a\n  created_at: 2026-01-01T00:00:00Z\n- value: b\n'*':\n- value: c\n",
            )
            .unwrap(),
            all(&[("org/repo", &["a", "b"]), ("*", &["c"])])
        );
    }

    /// HOOK-006, CFG-096: what is half written or no map leaves the former tokens, and is not shown.
    #[test]
    fn cfg_096_half_of_a_map_is_no_token() {
        for bad in [
            "{}",
            "[]",
            "- value: s3cret",
            "two\ns3cret",
            "org/repo:",
            "org/repo:\n- value: s3cret\n'*",
            "org/repo:\n- value: s3cret\n- val",
            "org/repo:\n- value: s3cret\n- value: ''",
            "org/repo:\n- value: s3cret\n'*':\n",
            "org/repo: []",
            "org/repo: s3cret",
            "{\"org/repo\": [{\"value\": \"s3cret",
        ] {
            let told = hook_tokens(bad).unwrap_err();
            assert!(told.contains("it must be one line"), "{bad:?}: {told}");
            assert!(!told.contains("s3cret"), "{bad:?}: {told}");
        }
    }

    /// CFG-096: what could not be sent, or not be signed with, is not taken.
    #[test]
    fn cfg_096_tokens_and_keys_are_taken_by_their_form() {
        assert_eq!(header_token("ghp_x\n").unwrap().value, "ghp_x");
        assert!(header_token("two\nlines").is_err());
        assert!(app_key("-----BEGIN RSA PRIVATE KEY-----\nhalf").is_err());
    }
}
