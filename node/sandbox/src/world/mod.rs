//! Stories told over the sandbox: who there is, what they do, what is expected to follow.
//!
//! ```
//! # async fn story() -> Result<(), Box<dyn std::error::Error>> {
//! use trireme_sandbox::world::World;
//!
//! let world = World::start().await;
//! let pr = world.pr("fix").opened_by("author").await;
//! world.comment("reviewer", &pr, "/lgtm").await;
//! world.expect_label(&pr, "lgtm").await;
//! # Ok(()) }
//! ```
//!
//! What [`World`] is asked to do it does or panics, saying why: it is made for tests. Who needs errors instead (the
//! demo) takes an [`Actor`] by [`World::user`] and waits by the `until_…` methods, which say what they saw in vain.

mod expect;
mod issue;
mod pr;
mod setting;

use std::fmt::Display;
use std::time::Duration;

use crate::actor::{Actor, FileChange};
use crate::clock::Clock;
use crate::forge::{HookConfig, HookPolicy, HookScope, Id, Permission, Refusal, RepoName};
use crate::sandbox::{Sandbox, SandboxConfig, StartError};

pub use issue::IssueBuilder;
pub use pr::{CommentText, Pr, PrBuilder};

/// How long an expectation is waited for unless told otherwise.
pub const DEFAULT_BOUND: Duration = Duration::from_secs(20);

/// Organization of the default world.
pub const ORG: &str = "acme";
/// Repository of the default world.
pub const REPO: &str = "widget";
/// Members of the default world's organization.
pub const MEMBERS: [&str; 3] = ["author", "reviewer", "approver"];
/// Exists in the default world, but is no member.
pub const OUTSIDER: &str = "outsider";
/// Administers the default world's repository: the account that the product uses.
pub const BOT: &str = "trireme-bot";
/// Signs the webhooks of [`World::hook_to`].
pub const WEBHOOK_SECRET: &str = "sandbox-webhook-secret";

/// Why a world did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the world cannot be set up: {0}")]
    Setup(#[from] Refusal),
}

/// A sandbox with people and a repository in it.
#[derive(Debug, Clone)]
pub struct World {
    sandbox: Sandbox,
    repo: RepoName,
    bound: Duration,
}

/// A world in the making.
#[derive(Debug, Clone)]
pub struct WorldBuilder {
    config: SandboxConfig,
    repo: RepoName,
    files: Vec<FileChange>,
    members: Vec<String>,
    outsiders: Vec<String>,
    bot: String,
    bound: Duration,
}

impl Default for WorldBuilder {
    fn default() -> Self {
        Self {
            config: SandboxConfig::default(),
            repo: RepoName::new(ORG, REPO),
            files: vec![FileChange::write("README.md", "# widget\n")],
            members: MEMBERS.map(str::to_owned).to_vec(),
            outsiders: vec![OUTSIDER.to_owned()],
            bot: BOT.to_owned(),
            bound: DEFAULT_BOUND,
        }
    }
}

impl WorldBuilder {
    /// Replaces how the sandbox is started.
    #[must_use]
    pub fn config(mut self, config: SandboxConfig) -> Self {
        self.config = config;
        self
    }

    /// A clock that stands still until advanced.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.config.clock = clock;
        self
    }

    /// Keeps requests and answers, for [`Sandbox::exchanges`].
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.config.record_exchanges = true;
        self
    }

    /// Names the repository; its owner becomes an organization.
    #[must_use]
    pub fn repo(mut self, owner: &str, name: &str) -> Self {
        self.repo = RepoName::new(owner, name);
        self
    }

    /// Adds a file to the repository's first commit.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push(FileChange::write(path, content));
        self
    }

    /// Adds a member of the organization.
    #[must_use]
    pub fn member(mut self, login: &str) -> Self {
        self.members.push(login.to_owned());
        self
    }

    /// Adds a user who is no member.
    #[must_use]
    pub fn outsider(mut self, login: &str) -> Self {
        self.outsiders.push(login.to_owned());
        self
    }

    /// Names the account that administers the repository.
    #[must_use]
    pub fn bot(mut self, login: &str) -> Self {
        self.bot = login.to_owned();
        self
    }

    /// How long expectations are waited for.
    #[must_use]
    pub fn bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Starts the sandbox and sets the world up.
    ///
    /// # Errors
    /// When the sandbox cannot start or git fails.
    pub async fn start(self) -> Result<World, WorldError> {
        let sandbox = Sandbox::start(self.config).await?;
        let members: Vec<&str> = self.members.iter().map(String::as_str).collect();
        sandbox.add_members(&self.repo.owner, &members)?;
        for login in &self.outsiders {
            sandbox.user(login);
        }
        sandbox.add_bot(&self.bot);
        // The bot owns the organization, as the account that sets Prow up does.
        let (org, bot) = (self.repo.owner.clone(), self.bot.clone());
        sandbox.change(|forge| forge.set_member(&org, &bot, true))?;
        sandbox.create_repo(&self.repo, self.files).await?;
        Ok(World {
            sandbox,
            repo: self.repo,
            bound: self.bound,
        })
    }
}

impl World {
    /// The default world: organization `acme` with `author`, `reviewer` and `approver`, an `outsider`, the repository
    /// `acme/widget` with a README, and the bot that owns them.
    ///
    /// # Panics
    /// When it cannot be set up; git missing is the usual reason.
    pub async fn start() -> Self {
        done("start", Self::builder().start().await)
    }

    /// A world that differs from the default.
    pub fn builder() -> WorldBuilder {
        WorldBuilder::default()
    }

    /// A world in a sandbox that was set up otherwise; `repo` must exist.
    pub fn over(sandbox: Sandbox, repo: RepoName) -> Self {
        Self {
            sandbox,
            repo,
            bound: DEFAULT_BOUND,
        }
    }

    /// The same world, seen from another of its repositories.
    #[must_use]
    pub fn at(&self, repo: RepoName) -> Self {
        Self {
            repo,
            ..self.clone()
        }
    }

    /// The sandbox below.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The repository that the story is about.
    pub fn repo(&self) -> &RepoName {
        &self.repo
    }

    /// To act as that user, with errors instead of panics.
    pub fn user(&self, login: &str) -> Actor {
        self.sandbox.user(login)
    }

    /// Adds a repository owned by an organization or user of the world.
    ///
    /// # Panics
    /// When it exists or its owner does not.
    pub async fn add_repo(&self, name: &RepoName, files: Vec<FileChange>) {
        done(
            "create a repository",
            self.sandbox.create_repo(name, files).await,
        );
    }

    /// Gives a user a permission in the repository.
    ///
    /// # Panics
    /// Never in practice.
    pub fn grant(&self, login: &str, permission: Permission) {
        let set = self.sandbox.set_collaborator(&self.repo, login, permission);
        done("grant a permission", set);
    }

    /// Sends every event of the owner's repositories to the first of these URLs that accepts the connection, signed
    /// with [`WEBHOOK_SECRET`]. Gives the hook's id.
    ///
    /// # Panics
    /// When a URL does not parse.
    pub fn hook_to<S: AsRef<str>>(&self, urls: &[S]) -> Id {
        let parse = |url: &S| done("parse a webhook URL", url.as_ref().parse());
        let config = HookConfig {
            scope: HookScope::Repo(self.repo.clone()),
            targets: urls.iter().map(parse).collect(),
            policy: HookPolicy::FirstThatAccepts,
            secret: Some(WEBHOOK_SECRET.into()),
            events: vec!["*".into()],
        };
        done("set a webhook up", self.sandbox.add_hook(config))
    }
}

/// A story that cannot go on ends its test.
fn done<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the story cannot {what}: {error}"),
    }
}
