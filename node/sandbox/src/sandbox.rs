//! The running sandbox: starting it, setting its world up, watching it, stopping it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::{BoxError, Router};
use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use crate::actor::{Actor, FileChange, NewCommit};
use crate::clock::Clock;
use crate::courier::{Courier, Http};
use crate::deliver;
use crate::engine::{Engine, MAX_QUEUED_DELIVERIES, Parts};
use crate::exchange::Exchange;
use crate::faults::Faults;
use crate::forge::{
    AccountKind, CheckRun, Delivery, Forge, HookConfig, Id, Permission, Refusal, RepoName,
};
use crate::git::GitStore;
use crate::log::{Entry, Logged};
use crate::server::{self, Cut};

/// GitHub's hourly budget of a user.
pub const DEFAULT_RATE_LIMIT: u64 = 5_000;

/// How a sandbox is started. The defaults serve tests: any free port of loopback, a directory that is removed in the
/// end, the system's clock.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// Where to listen. Plain HTTP: keep it on loopback.
    pub listen: SocketAddr,
    /// Where the repositories are kept; none is a temporary directory. What is in it is not taken up again.
    pub dir: Option<PathBuf>,
    pub clock: Clock,
    /// Tokens and delivery GUIDs are derived from it.
    pub seed: String,
    /// Calls per hour and user, and as many GraphQL points.
    pub rate_limit: u64,
    /// Keep requests and answers for [`Sandbox::exchanges`].
    pub record_exchanges: bool,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir: None,
            clock: Clock::System,
            seed: "trireme".into(),
            rate_limit: DEFAULT_RATE_LIMIT,
            record_exchanges: false,
        }
    }
}

/// Why a sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the sandbox cannot listen on {listen}: {source}")]
    Listen {
        listen: SocketAddr,
        source: std::io::Error,
    },
    #[error("the sandbox cannot use the directory {dir} for its repositories: {source}")]
    Directory {
        dir: PathBuf,
        source: std::io::Error,
    },
    #[error("the sandbox cannot send webhooks: {0}")]
    Client(#[from] reqwest::Error),
}

/// A wait that ran out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("waited {bound:?} in vain for {what}; it stands thus: {seen}")]
pub struct Unmet {
    pub what: String,
    pub seen: String,
    pub bound: Duration,
}

/// A running sandbox. Clones share it; dropping the last one (or [`Sandbox::stop`]) ends it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    engine: Arc<Engine>,
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    router: Router,
    stop: CancellationToken,
    _on_drop: DropGuard,
    _temporary: Option<tempfile::TempDir>,
}

/// Where a sandbox stands.
struct Begin {
    base: String,
    dir: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Sandbox {
    /// Starts serving. Needs `git` 2.38 or newer on PATH and a tokio runtime.
    ///
    /// # Errors
    /// When the address or the directory cannot be used.
    pub async fn start(config: SandboxConfig) -> Result<Self, StartError> {
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.map_err(|source| StartError::Listen {
            listen: config.listen,
            source,
        })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            listen: config.listen,
            source,
        })?;
        let unusable = |dir: PathBuf| move |source| StartError::Directory { dir, source };
        let (dir, temporary) = match &config.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(unusable(dir.clone()))?;
                let absolute = std::path::absolute(dir).map_err(unusable(dir.clone()))?;
                (absolute, None)
            }
            None => {
                let temporary = tempfile::tempdir().map_err(unusable(std::env::temp_dir()))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Every delivery makes its own connection, so that a receiver that is gone is noticed before anything is sent.
            .pool_max_idle_per_host(0)
            .build()?;
        let parts = Begin {
            base: format!("http://{address}"),
            dir,
            temporary,
        };
        let sandbox = Self::begin(config, parts, Arc::new(Http(client)));
        let (engine, stop) = (sandbox.engine.clone(), sandbox.running.stop.clone());
        tokio::spawn(server::serve(listener, engine, stop));
        Ok(sandbox)
    }

    /// A sandbox that listens nowhere: whoever holds it [`Sandbox::call`]s it, and `courier` brings its webhooks. Nothing
    /// that asks for git works, so that repositories are made in the core ([`Sandbox::change`]). Needs a tokio runtime.
    pub fn within(config: SandboxConfig, base: &Url, courier: Arc<dyn Courier>) -> Self {
        let parts = Begin {
            base: base.as_str().trim_end_matches('/').to_owned(),
            dir: PathBuf::from("/nonexistent"),
            temporary: None,
        };
        Self::begin(config, parts, courier)
    }

    fn begin(config: SandboxConfig, parts: Begin, courier: Arc<dyn Courier>) -> Self {
        let (sender, queue) = mpsc::channel(MAX_QUEUED_DELIVERIES);
        let engine = Arc::new(Engine::new(Parts {
            base: parts.base,
            clock: config.clock,
            git: GitStore::new(&parts.dir),
            seed: config.seed,
            rate_limit: config.rate_limit,
            record_exchanges: config.record_exchanges,
            deliveries: sender,
        }));
        let stop = CancellationToken::new();
        let sending = deliver::run(Arc::downgrade(&engine), queue, courier);
        tokio::spawn(stop.clone().run_until_cancelled_owned(sending));
        Self {
            running: Arc::new(Running {
                router: server::router(&engine),
                stop: stop.clone(),
                _on_drop: stop.drop_guard(),
                _temporary: parts.temporary,
            }),
            engine,
        }
    }

    /// What a request over a connection is answered, faults included. It goes its way if the caller does not wait.
    ///
    /// # Errors
    /// [`Cut`] where a connection would be.
    pub async fn call<B>(&self, request: Request<B>) -> Result<Response<Body>, Cut>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (engine, router) = (self.engine.clone(), self.running.router.clone());
        server::handle(engine, router, request).await
    }

    /// Ends serving and sending, whoever else holds a clone.
    pub fn stop(&self) {
        self.running.stop.cancel();
    }

    /// The root of REST and of the pages, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.engine.base
    }

    /// Where GraphQL queries go.
    pub fn graphql_url(&self) -> String {
        format!("{}/graphql", self.engine.base)
    }

    /// Where git clones the repository from.
    pub fn clone_url(&self, repo: &RepoName) -> String {
        format!("{}/{repo}.git", self.engine.base)
    }

    /// The bare repository on disk.
    pub fn git_dir(&self, repo: &RepoName) -> PathBuf {
        let git = self.engine.git.repo(&repo.owner, &repo.name);
        git.dir().to_owned()
    }

    /// The clock it was started with.
    pub fn clock(&self) -> &Clock {
        &self.engine.clock
    }

    /// The faults that are set.
    pub fn faults(&self) -> &Faults {
        &self.engine.faults
    }

    /// The user's token, for REST, GraphQL and git (any user name, the token as password). Creates the user.
    pub fn token_for(&self, login: &str) -> String {
        self.engine.token_for(login)
    }

    /// To act as that user, who is created when new.
    pub fn user(&self, login: &str) -> Actor {
        self.engine.act(|forge, now| {
            forge
                .ensure_account(now, login, AccountKind::User)
                .login
                .clone()
        });
        Actor {
            engine: self.engine.clone(),
            login: login.to_owned(),
        }
    }

    /// Creates a bot account.
    pub fn add_bot(&self, login: &str) -> Actor {
        self.engine.act(|forge, now| {
            forge
                .ensure_account(now, login, AccountKind::Bot)
                .login
                .clone()
        });
        self.user(login)
    }

    /// Creates an organization, if it is new.
    pub fn add_org(&self, login: &str) {
        self.engine.act(|forge, now| {
            forge.ensure_account(now, login, AccountKind::Organization);
        });
    }

    /// Makes users members of an organization; creates both.
    ///
    /// # Errors
    /// None in practice: 404 when the login is a user's.
    pub fn add_members(&self, org: &str, logins: &[&str]) -> Result<(), Refusal> {
        self.add_org(org);
        self.engine.act(|forge, now| {
            for login in logins {
                forge.ensure_account(now, login, AccountKind::User);
                forge.set_member(org, login, false)?;
            }
            Ok(())
        })
    }

    /// Creates a team or replaces its members, who must exist.
    ///
    /// # Errors
    /// 404.
    pub fn set_team(&self, org: &str, team: &str, members: &[&str]) -> Result<(), Refusal> {
        self.change(|forge| forge.set_team(org, team, members))
    }

    /// Creates a repository with a first commit of `files` on branch `main`, made by its owner.
    ///
    /// # Errors
    /// 404 when the owner does not exist, 422 when the repository does.
    pub async fn create_repo(
        &self,
        name: &RepoName,
        files: Vec<FileChange>,
    ) -> Result<(), Refusal> {
        let default_branch = "main";
        self.engine.act(|forge, now| {
            forge
                .create_repo(now, name, default_branch, None)
                .map(|_| ())
        })?;
        let git = self.engine.git.repo(&name.owner, &name.name);
        git.init(default_branch).await?;
        let owner = self.engine.read(|forge| {
            let org = forge.org(&name.owner).ok();
            let owner = org.and_then(|o| o.members.iter().find(|(_, owner)| **owner));
            owner.map(|(login, _)| login.clone())
        });
        let first = Actor {
            engine: self.engine.clone(),
            login: name.owner.clone(),
        };
        let first = owner.map_or(first, |login| self.user(&login));
        let commit = NewCommit {
            branch: default_branch.into(),
            message: "Initial commit".into(),
            files,
            parent: None,
        };
        first.push_files(name, commit).await?;
        Ok(())
    }

    /// Makes a user a collaborator; creates the user.
    ///
    /// # Errors
    /// 404 when there is no such repository.
    pub fn set_collaborator(
        &self,
        repo: &RepoName,
        login: &str,
        permission: Permission,
    ) -> Result<(), Refusal> {
        self.engine.act(|forge, now| {
            forge.ensure_account(now, login, AccountKind::User);
            let record = forge.repo_mut(repo)?;
            record
                .collaborators
                .insert(login.to_lowercase(), permission);
            Ok(())
        })
    }

    /// Sets a webhook up and gives its id.
    ///
    /// # Errors
    /// 404 when its repository or organization does not exist, 422 without targets or events.
    pub fn add_hook(&self, config: HookConfig) -> Result<Id, Refusal> {
        self.engine.act(|forge, now| forge.add_hook(now, config))
    }

    /// Replaces a hook's targets, as when a node comes up at another address.
    ///
    /// # Errors
    /// 404.
    pub fn set_hook_targets(&self, hook: Id, targets: Vec<Url>) -> Result<(), Refusal> {
        self.change(|forge| {
            forge.hook_mut(hook)?.config.targets = targets;
            Ok(())
        })
    }

    /// Sends a delivery again, with its GUID; gives the new attempt's id.
    ///
    /// # Errors
    /// 404.
    pub fn redeliver(&self, hook: Id, delivery: Id) -> Result<Id, Refusal> {
        self.engine.redeliver(hook, delivery)
    }

    /// A hook's deliveries, oldest first.
    pub fn deliveries(&self, hook: Id) -> Vec<Delivery> {
        self.read(|forge| {
            let hook = forge.hook(hook).ok();
            hook.map(|h| h.deliveries.iter().cloned().collect())
                .unwrap_or_default()
        })
    }

    /// Records a check run, as an app would; gives its id.
    ///
    /// # Errors
    /// 404 when there is no such repository.
    pub fn set_check_run(
        &self,
        repo: &RepoName,
        sha: &str,
        name: &str,
        status: &str,
        conclusion: Option<&str>,
    ) -> Result<Id, Refusal> {
        self.engine
            .act(|forge, now| forge.set_check_run(now, repo, sha, name, status, conclusion))
    }

    /// Check runs of a commit.
    pub fn check_runs(&self, repo: &RepoName, sha: &str) -> Vec<CheckRun> {
        self.read(|forge| {
            let repo = forge.repo(repo).ok();
            repo.and_then(|r| r.check_runs.get(sha).cloned())
                .unwrap_or_default()
        })
    }

    /// Looks at the forge.
    pub fn read<R>(&self, f: impl FnOnce(&Forge) -> R) -> R {
        self.engine.read(f)
    }

    /// Changes the forge behind everybody's back, for what no door offers (teams, protection, merge methods).
    ///
    /// # Errors
    /// Those of `f`.
    pub fn change<R>(
        &self,
        f: impl FnOnce(&mut Forge) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        self.engine.act(|forge, _| f(forge))
    }

    /// Log lines after `seq`, oldest first; 0 gives all that are kept.
    pub fn log_after(&self, seq: u64) -> Vec<Entry> {
        self.engine.read_log(|log| log.after(seq))
    }

    /// Wakes at every change of the forge or the log; read [`Sandbox::log_after`] then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.engine.changes()
    }

    /// How often a merge of that head took effect. More than once is a bug in whoever merges.
    pub fn merges_of(&self, head_sha: &str) -> u64 {
        self.engine
            .read_log(|log| log.merges().get(head_sha).copied().unwrap_or(0))
    }

    /// Every head that was merged, with how often.
    pub fn merges(&self) -> Vec<(String, u64)> {
        self.engine
            .read_log(|log| log.merges().iter().map(|(k, v)| (k.clone(), *v)).collect())
    }

    /// Calls by method and shape of path (`/repos/{}/{}/pulls/{}/merge`).
    pub fn calls(&self, method: &str, shape: &str) -> u64 {
        let key = (method.to_owned(), shape.to_owned());
        self.engine
            .read_log(|log| log.calls().get(&key).copied().unwrap_or(0))
    }

    /// Requests and answers so far, when recorded.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.engine.exchanges()
    }

    /// Waits until `f` gives a value, looking at every change of the forge and the log.
    ///
    /// # Errors
    /// [`Unmet`] with what `seen` shows after `bound`.
    pub async fn until<R>(
        &self,
        what: &str,
        bound: Duration,
        mut f: impl FnMut(&Forge) -> Option<R>,
        seen: impl FnOnce(&Forge) -> String,
    ) -> Result<R, Unmet> {
        let mut changes = self.engine.changes();
        let search = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = self.engine.read(&mut f) {
                    return Some(found);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(bound, search).await {
            Ok(Some(found)) => Ok(found),
            _ => Err(Unmet {
                what: what.to_owned(),
                seen: self.engine.read(seen),
                bound,
            }),
        }
    }

    /// Waits until a log line satisfies `f`, looking at those after `seq` first; gives it.
    ///
    /// # Errors
    /// [`Unmet`] after `bound`.
    pub async fn until_logged(
        &self,
        what: &str,
        seq: u64,
        bound: Duration,
        mut f: impl FnMut(&Logged) -> bool,
    ) -> Result<Entry, Unmet> {
        let mut changes = self.engine.changes();
        let mut seen = seq;
        let search = async {
            loop {
                changes.borrow_and_update();
                for entry in self.log_after(seen) {
                    seen = entry.seq;
                    if f(&entry.what) {
                        return Some(entry);
                    }
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(bound, search).await {
            Ok(Some(entry)) => Ok(entry),
            _ => Err(Unmet {
                what: what.to_owned(),
                seen: format!("log up to line {seen}"),
                bound,
            }),
        }
    }

    /// Waits until no webhook is in flight.
    ///
    /// # Errors
    /// [`Unmet`] after `bound`.
    pub async fn until_delivered(&self, bound: Duration) -> Result<(), Unmet> {
        self.until(
            "every webhook to be answered",
            bound,
            |forge| (forge.deliveries_in_flight() == 0).then_some(()),
            |forge| format!("{} in flight", forge.deliveries_in_flight()),
        )
        .await
    }

    /// Now, by the sandbox's clock.
    pub fn now(&self) -> Timestamp {
        self.engine.clock.now()
    }
}
