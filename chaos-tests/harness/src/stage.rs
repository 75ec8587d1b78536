//! A whole world on loopback: the sandbox forge in this process, nodes and agents as processes.

use std::{io, path::Path, path::PathBuf};

use bytes::Bytes;
use trireme_api::configs::LocalFile;
use trireme_proto::api::ApplyConfigHeader;
use trireme_sandbox::{
    Sandbox, SandboxConfig,
    forge::{HookConfig, HookPolicy, HookScope, Id, Refusal},
    world::{BOT, WEBHOOK_SECRET, World, WorldBuilder, WorldError},
};

use crate::{
    agent::{AgentProcess, AgentSettings},
    cluster::{Cluster, ClusterError},
    process::Executable,
    settings::{ClusterSettings, GitHub, Ground},
};

/// Calls per hour and user: worlds are small, but some are told quickly and for hours.
const RATE_LIMIT: u64 = 10_000_000;

/// How large a world is, and where.
#[derive(Debug, Clone)]
pub struct StageSettings {
    pub executable: Executable,
    /// Everything lies below.
    pub directory: PathBuf,
    pub nodes: u64,
    pub agents: usize,
    /// Runs that one agent takes at once.
    pub agent_capacity: u32,
    pub ground: Ground,
}

/// One file of a configuration.
#[derive(Debug, Clone)]
pub struct ConfigText<'a> {
    /// main, plugins, job or supplemental.
    pub role: &'a str,
    pub path: &'a str,
    pub text: String,
}

/// Why a world did not come to be, or does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    World(#[from] WorldError),
    #[error("the forge refuses: {0}")]
    Forge(#[from] Refusal),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the configuration was refused: {0}")]
    Configuration(String),
}

/// Everything that runs; dropping it kills the processes.
#[derive(Debug)]
pub struct Stage {
    pub world: World,
    /// Leads to all nodes in turn, as through a load balancer.
    pub hook: Id,
    pub cluster: Cluster,
    pub agents: Vec<AgentProcess>,
    pub directory: PathBuf,
    pub storage: PathBuf,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let path = path.to_owned();
    move |source| StageError::Io { path, source }
}

fn write_secret(path: &Path, secret: &str) -> Result<(), StageError> {
    use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(secret.as_bytes())
    };
    write().map_err(at(path))
}

impl Stage {
    /// Starts the forge, then the nodes, then the agents. There is no configuration yet.
    ///
    /// # Errors
    /// When a directory cannot be used, a process does not start, or there is no leader in time.
    pub async fn set(world: WorldBuilder, settings: StageSettings) -> Result<Self, StageError> {
        let StageSettings {
            executable,
            directory,
            nodes,
            agents,
            agent_capacity,
            ground,
        } = settings;
        let mut config = SandboxConfig {
            dir: Some(directory.join("forge")),
            rate_limit: RATE_LIMIT,
            ..SandboxConfig::default()
        };
        if let Some(hub) = &ground.hub {
            config.listen.set_ip(hub.address());
        }
        let world = world.config(config).start().await?;
        let sandbox = world.sandbox();
        let (token, hmac) = (directory.join("github-token"), directory.join("hmac"));
        write_secret(&token, &sandbox.token_for(BOT))?;
        write_secret(&hmac, WEBHOOK_SECRET)?;
        let storage = directory.join("artifacts");
        std::fs::create_dir_all(&storage).map_err(at(&storage))?;
        let cluster = ClusterSettings {
            directory: directory.clone(),
            nodes,
            github: Some(GitHub {
                endpoint: sandbox.url().to_owned(),
                url: sandbox.url().to_owned(),
                token_file: token,
            }),
            hmac_secret_file: Some(hmac),
            storage: storage.clone(),
            ground,
        };
        let cluster = Cluster::start(executable.clone(), cluster).await?;
        let hook = sandbox.add_hook(HookConfig {
            scope: HookScope::Repo(world.repo().clone()),
            targets: doors(&cluster),
            policy: HookPolicy::RoundRobin,
            secret: Some(WEBHOOK_SECRET.to_owned()),
            events: vec!["*".to_owned()],
        })?;
        let mut running = Vec::new();
        for number in 1..=agents {
            let settings = AgentSettings {
                name: format!("agent-{number}"),
                nodes: cluster.addresses(),
                capacity: agent_capacity,
                directory: directory.join(format!("agent-{number}")),
            };
            let directory = settings.directory.clone();
            running.push(AgentProcess::start(&executable, settings).map_err(at(&directory))?);
        }
        Ok(Self {
            world,
            hook,
            cluster,
            agents: running,
            directory,
            storage,
        })
    }

    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        self.world.sandbox()
    }

    /// Lets the forge's webhooks lead to the members that there are now.
    ///
    /// # Errors
    /// When the forge does not know the hook any more.
    pub fn lead_hook_to_members(&self) -> Result<(), StageError> {
        let targets = doors(&self.cluster);
        Ok(self.sandbox().set_hook_targets(self.hook, targets)?)
    }

    /// Applies a whole configuration and gives its version. DECK in a text stands for the first node's door, FORGE
    /// for the sandbox's address.
    ///
    /// # Errors
    /// When it is refused, with the first reason; when no node answers.
    pub async fn configure(
        &self,
        files: Vec<ConfigText<'_>>,
        message: &str,
        request_id: &str,
    ) -> Result<u64, StageError> {
        let deck = self
            .cluster
            .members()
            .first()
            .map(|member| member.api.to_string())
            .unwrap_or_default();
        let files: Vec<LocalFile> = files
            .into_iter()
            .map(|file| LocalFile {
                role: file.role.to_owned(),
                path: file.path.to_owned(),
                content: Bytes::from(
                    file.text
                        .replace("DECK", &deck)
                        .replace("FORGE", self.sandbox().url()),
                ),
            })
            .collect();
        let header = ApplyConfigHeader {
            message: message.to_owned(),
            request_id: request_id.to_owned(),
            // Worlds are told anew with other jobs.
            retire: true,
            ..ApplyConfigHeader::default()
        };
        let client = self.cluster.client().await?;
        let answer = client.apply_config(header, &files, |_| {}).await;
        let (answer, _) = answer.map_err(ClusterError::from)?;
        if answer.accepted {
            return Ok(answer.version);
        }
        let first = answer.diagnostics.first().map(|found| {
            format!(
                "{}:{}: {}: {}",
                found.file, found.line, found.field, found.message
            )
        });
        Err(StageError::Configuration(first.unwrap_or_default()))
    }

    /// Stops everything in order.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub async fn strike(&mut self) -> Result<(), StageError> {
        for agent in &mut self.agents {
            agent.stop().await.map_err(ClusterError::from)?;
        }
        self.cluster.stop().await?;
        self.sandbox().stop();
        Ok(())
    }
}

fn doors<U: std::str::FromStr>(cluster: &Cluster) -> Vec<U> {
    let doors = cluster.members().iter();
    doors
        .filter_map(|member| format!("{}/hook", member.url()).parse().ok())
        .collect()
}
