//! GitHub without sockets: the sandbox's API called by the real client over a way that takes time, and its webhooks brought
//! to the doors over the simulated network.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    time::{Instant, sleep},
};
use tower::service_fn;
use trireme_forge::{
    git::Mirrors,
    github::{Clock, Credentials, GitHub, GitHubOptions, OctoBody, Transport, fixed_secret},
    owners::OwnersLoader,
};
use trireme_in_repo::{CacheLimits, InRepo, InRepoMetrics};
use trireme_office::{ConfigFeed, Controller};
use trireme_plugins::{
    Equipment, OurHooks, PluginMetrics, PluginOptions, Plugins, PluginsController,
};
use trireme_sandbox::{
    self as sandbox, Courier, Receipt, Sandbox, SandboxConfig, Unbrought,
    forge::{Delivery, HookConfig, HookPolicy, HookScope, Id},
};
use url::Url;

use super::{
    Options,
    moods::{Mood, Moods},
    people::{BOT, orgs},
};
use crate::sim::{
    chance::Chance,
    cluster::WEBHOOK_SECRET,
    network::Network,
    trace::Trace,
    world::{BEGINNING_MS, Life, door_address},
};

/// Where the client finds it.
const BASE: &str = "http://github.simulated";
/// Its place in the network. Nodes have smaller numbers.
const HOST: u64 = 90;
/// One way of a call.
const WAY_MS: (u64, u64) = (15, 90);
/// Whoever is not taken in is told so within this.
const REFUSED_MS: (u64, u64) = (5, 40);
/// Calls an hour. What is measured is the absence, not the budget.
const BUDGET: u64 = 1_000_000_000;
/// The wish that comes with a 403.
const RETRY_AFTER_SECONDS: u64 = 60;
/// More of an answer than a status line and headers.
const ANSWER_BYTES: u64 = 64 << 10;

/// Clones are the same.
#[derive(Clone)]
pub(super) struct GitHubHere(Arc<Inner>);

struct Inner {
    sandbox: Sandbox,
    token: String,
    chance: Chance,
    trace: Trace,
    moods: Moods,
    began: Instant,
    hooks: Mutex<Vec<Id>>,
}

impl GitHubHere {
    pub(super) fn new(
        options: &Options,
        network: Network,
        trace: Trace,
        began: Instant,
    ) -> io::Result<Self> {
        let base: Url = BASE.parse().map_err(io::Error::other)?;
        let config = SandboxConfig {
            clock: sandbox::Clock::Simulated {
                at: beginning(),
                since: began,
            },
            seed: format!("outage {}", options.seed),
            rate_limit: BUDGET,
            ..SandboxConfig::default()
        };
        let courier = OverNetwork {
            network,
            trace: trace.clone(),
        };
        let sandbox = Sandbox::within(config, &base, Arc::new(courier));
        let token = sandbox.token_for(BOT);
        Ok(Self(Arc::new(Inner {
            sandbox,
            token,
            chance: Chance::new(options.seed, "github"),
            trace,
            moods: Moods::new(began),
            began,
            hooks: Mutex::default(),
        })))
    }

    pub(super) fn sandbox(&self) -> &Sandbox {
        &self.0.sandbox
    }

    pub(super) fn moods(&self) -> &Moods {
        &self.0.moods
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.sandbox.clock().now()
    }

    /// From now on each organisation tells every door's neighbour in turn.
    pub(super) fn hook_to(&self, nodes: u64) -> io::Result<()> {
        let target = |id: u64| format!("http://node-{id}/hook").parse::<Url>();
        let targets: Result<Vec<Url>, _> = (1..=nodes).map(target).collect();
        let targets = targets.map_err(io::Error::other)?;
        for org in orgs() {
            let hook = self.0.sandbox.add_hook(HookConfig {
                scope: HookScope::Org(org),
                targets: targets.clone(),
                policy: HookPolicy::RoundRobin,
                secret: Some(WEBHOOK_SECRET.to_owned()),
                events: vec!["*".to_owned()],
            });
            let hook = hook.map_err(|refusal| io::Error::other(refusal.to_string()))?;
            let mut hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            hooks.push(hook);
        }
        Ok(())
    }

    /// Every attempt to bring a webhook, oldest first within an organisation.
    pub(super) fn attempts(&self) -> Vec<Delivery> {
        let hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let all = hooks.iter().map(|hook| self.0.sandbox.deliveries(*hook));
        all.flatten().collect()
    }

    /// Whether all events that were told are known to somebody.
    pub(super) fn all_sent(&self, is_known: impl Fn(&str) -> bool) -> bool {
        self.0.sandbox.read(|forge| {
            let mut all = forge.hooks().flat_map(|hook| &hook.deliveries);
            all.all(|attempt| is_known(&attempt.guid))
        })
    }

    /// Whether no webhook is on its way.
    pub(super) fn all_answered(&self) -> bool {
        self.0
            .sandbox
            .read(|forge| forge.deliveries_in_flight() == 0)
    }

    /// The plugins' controller of one life of a node.
    ///
    /// # Errors
    /// When there can be no client.
    pub(super) fn controller(
        &self,
        life: &Arc<Life>,
        mirrors: &Mirrors,
        feed: &ConfigFeed,
    ) -> Result<Arc<dyn Controller>, Box<dyn std::error::Error>> {
        let credentials = Credentials::Token(fixed_secret(&self.0.token));
        let github = Arc::new(GitHub::new(GitHubOptions {
            transport: Some(self.transport(life)),
            clock: Clock::Simulated {
                at: beginning(),
                since: self.0.began,
            },
            ..GitHubOptions::new(BASE.parse()?, credentials)
        })?);
        let limits = CacheLimits::default();
        let controller = PluginsController::new(Equipment {
            plugins: Plugins::built_in(),
            forge: Arc::clone(&github) as Arc<_>,
            forges: github,
            owners: OwnersLoader::new(mirrors.clone()),
            in_repo: InRepo::new(mirrors.clone(), limits, InRepoMetrics::default()),
            mirrors: mirrors.clone(),
            config: feed.clone(),
            hooks: OurHooks::At("http://node-1/hook".to_owned()),
            options: PluginOptions::default(),
            config_maps: None,
            metrics: PluginMetrics::default(),
        })?;
        Ok(Arc::new(controller))
    }

    fn transport(&self, life: &Arc<Life>) -> Transport {
        let (here, life) = (self.clone(), Arc::clone(life));
        Transport::over(service_fn(move |request: Request<OctoBody>| {
            let (here, life) = (here.clone(), Arc::clone(&life));
            async move { here.carry(&life, request).await }
        }))
    }

    /// A request's way there and its answer's back. What was sent arrives whatever becomes of who sent it.
    async fn carry(
        &self,
        life: &Life,
        request: Request<OctoBody>,
    ) -> io::Result<Response<Full<Bytes>>> {
        let chance = &self.0.chance;
        if life.over.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (there, back) = (
            chance.millis(WAY_MS.0, WAY_MS.1),
            chance.millis(WAY_MS.0, WAY_MS.1),
        );
        let path = request.uri().path().to_owned();
        let mood = self.0.moods.meet(path == "/rate_limit");
        let asked = format!("is asked by {}: {} {path}", life.node, request.method());
        self.0
            .trace
            .line("forge", format_args!("{asked} ({})", mood.describe()));
        match mood {
            Mood::Refuses => {
                sleep(chance.millis(REFUSED_MS.0, REFUSED_MS.1)).await;
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Mood::Silent => return std::future::pending().await,
            Mood::Unavailable => {
                sleep(there + back).await;
                return answer(StatusCode::SERVICE_UNAVAILABLE, None);
            }
            Mood::Limits => {
                sleep(there + back).await;
                return answer(StatusCode::FORBIDDEN, Some(RETRY_AFTER_SECONDS));
            }
            Mood::Well | Mood::Back | Mood::LosesAnswers => {}
        }
        let (answers, answered) = oneshot::channel();
        let sandbox = self.0.sandbox.clone();
        tokio::spawn(async move {
            sleep(there).await;
            let response = whole(sandbox.call(request).await).await;
            sleep(back).await;
            // Whoever asked may be gone.
            let _ = answers.send(response);
        });
        let answered = answered.await;
        if mood == Mood::LosesAnswers || life.over.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        answered.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?
    }
}

async fn whole(
    response: Result<Response<axum::body::Body>, sandbox::Cut>,
) -> io::Result<Response<Full<Bytes>>> {
    let cut = |_| io::Error::from(io::ErrorKind::ConnectionReset);
    let (parts, body) = response.map_err(cut)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?;
    Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
}

fn answer(status: StatusCode, retry_after: Option<u64>) -> io::Result<Response<Full<Bytes>>> {
    let mut builder = Response::builder().status(status);
    if let Some(seconds) = retry_after {
        builder = builder.header("retry-after", seconds);
    }
    let body = Full::new(Bytes::from_static(b"{}"));
    builder.body(body).map_err(io::Error::other)
}

/// What all clocks say at the beginning.
fn beginning() -> Timestamp {
    Timestamp::from_millisecond(BEGINNING_MS).unwrap_or_default()
}

/// Webhooks on their way to the doors.
struct OverNetwork {
    network: Network,
    trace: Trace,
}

impl fmt::Debug for OverNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OverNetwork")
    }
}

impl Courier for OverNetwork {
    fn post<'a>(
        &'a self,
        target: &'a Url,
        headers: &'a [(String, String)],
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Receipt, Unbrought>> {
        Box::pin(async move {
            let host = target.host_str().unwrap_or_default();
            let node = host.strip_prefix("node-").and_then(|id| id.parse().ok());
            let node: u64 =
                node.ok_or_else(|| Unbrought::Refused(format!("{target} is no node")))?;
            let connected = self.network.connect(HOST, &door_address(node)).await;
            let mut pipe = connected.map_err(|error| Unbrought::Refused(error.to_string()))?;
            let broken = |error: io::Error| Unbrought::BrokenOff(error.to_string());
            let mut head = format!(
                "POST {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n",
                target.path(),
                payload.len()
            );
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            pipe.write_all(head.as_bytes()).await.map_err(broken)?;
            pipe.write_all(&payload).await.map_err(broken)?;
            let mut answer = Vec::new();
            let mut reading = (&mut pipe).take(ANSWER_BYTES);
            reading.read_to_end(&mut answer).await.map_err(broken)?;
            let text = String::from_utf8_lossy(&answer);
            let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
            let status_code = status.ok_or_else(|| Unbrought::BrokenOff("no answer".to_owned()))?;
            self.trace
                .line("forge", format_args!("brought to {node}: {status_code}"));
            Ok(Receipt {
                status_code,
                headers: Vec::new(),
                body: Bytes::new(),
            })
        })
    }
}
