//! The demo's world: the sandbox forge in this process, nodes and agents as processes of this binary, all below one
//! directory.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use trireme_harness::{AgentProcess, AgentSettings, Cluster, ClusterSettings, Executable, GitHub};
use trireme_proto::api::{ApplyConfigRequest, ConfigUpload};
use trireme_sandbox::{
    Sandbox, SandboxConfig,
    forge::{HookConfig, HookPolicy, HookScope, Id},
    world::{BOT, WEBHOOK_SECRET, World},
};

use crate::PREFIX;

pub(super) const ORG: &str = "fleet";
pub(super) const REPO: &str = "harbor";
/// Reviews and approves.
pub(super) const APPROVER: &str = "ada";
pub(super) const REVIEWER: &str = "grace";
/// Nobody knows him yet.
pub(super) const NEWCOMER: &str = "newcomer";

const AGENTS: usize = 2;
/// Runs that one agent takes at once.
const AGENT_CAPACITY: u32 = 6;

const OWNERS: &str = "approvers:\n- ada\nreviewers:\n- grace\n- ada\n";

/// Everything that runs; dropping it kills the processes.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) hook: Id,
    pub(super) cluster: Cluster,
    pub(super) agents: Vec<AgentProcess>,
    pub(super) directory: PathBuf,
    pub(super) storage: PathBuf,
    // Removed last.
    _temporary: Option<tempfile::TempDir>,
}

fn this_program() -> std::io::Result<Executable> {
    let prefix = PREFIX.get().into_iter().flatten();
    Ok(Executable {
        program: std::env::current_exe()?,
        prefix: prefix
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
    })
}

fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.as_bytes())
}

impl Stage {
    /// Starts the forge with its sample repository, then the nodes, applies the configuration, then starts agents.
    pub(super) async fn set(nodes: u64, directory: Option<PathBuf>) -> anyhow::Result<Self> {
        let (directory, temporary) = match directory {
            Some(directory) => {
                std::fs::create_dir_all(&directory)
                    .with_context(|| directory.display().to_string())?;
                (std::path::absolute(directory)?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("trireme-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let world = World::builder()
            .config(SandboxConfig {
                dir: Some(directory.join("forge")),
                ..SandboxConfig::default()
            })
            .repo(ORG, REPO)
            .member(APPROVER)
            .member(REVIEWER)
            .outsider(NEWCOMER)
            .file("OWNERS", OWNERS)
            .file("ships/argo", "name: Argo\ndraught: 3\n")
            .file("test/unit.sh", include_str!("sample/harbor/unit.sh"))
            .file("test/lint.sh", include_str!("sample/harbor/lint.sh"))
            .file("publish.sh", include_str!("sample/harbor/publish.sh"))
            .start()
            .await?;
        let sandbox = world.sandbox();
        let (token, hmac) = (directory.join("github-token"), directory.join("hmac"));
        write_secret(&token, &sandbox.token_for(BOT))?;
        write_secret(&hmac, WEBHOOK_SECRET)?;
        let storage = directory.join("artifacts");
        std::fs::create_dir_all(&storage)?;
        let executable = this_program()?;
        let settings = ClusterSettings {
            directory: directory.clone(),
            nodes,
            github: Some(GitHub {
                endpoint: sandbox.url().to_owned(),
                url: sandbox.url().to_owned(),
                token_file: token,
            }),
            hmac_secret_file: Some(hmac),
            storage: storage.clone(),
        };
        let cluster = Cluster::start(executable.clone(), settings).await?;
        let doors: Vec<String> = cluster
            .members()
            .iter()
            .map(|member| format!("{}/hook", member.url()))
            .collect();
        let hook = sandbox.add_hook(HookConfig {
            scope: HookScope::Repo(world.repo().clone()),
            targets: doors
                .iter()
                .map(|door| door.parse())
                .collect::<Result<_, _>>()?,
            // As through a load balancer: any node takes any delivery.
            policy: HookPolicy::RoundRobin,
            secret: Some(WEBHOOK_SECRET.to_owned()),
            events: vec!["*".to_owned()],
        })?;
        let mut agents = Vec::new();
        for number in 1..=AGENTS {
            let settings = AgentSettings {
                name: format!("agent-{number}"),
                nodes: cluster.addresses(),
                capacity: AGENT_CAPACITY,
                directory: directory.join(format!("agent-{number}")),
            };
            agents.push(AgentProcess::start(&executable, settings)?);
        }
        Ok(Self {
            world,
            hook,
            cluster,
            agents,
            directory,
            storage,
            _temporary: temporary,
        })
    }

    pub(super) fn sandbox(&self) -> &Sandbox {
        self.world.sandbox()
    }

    /// The sample configuration, as the first version.
    pub(super) async fn configure(&self) -> anyhow::Result<u64> {
        let deck = self
            .cluster
            .members()
            .first()
            .map(|member| member.api.clone())
            .unwrap_or_default();
        let file = |role: &str, path: &str, text: &str| ConfigUpload {
            role: role.to_owned(),
            path: path.to_owned(),
            content: Bytes::from(
                text.replace("DECK", &deck)
                    .replace("FORGE", self.sandbox().url()),
            ),
        };
        let client = self.cluster.client().await?;
        let answer = client
            .config()
            .apply(ApplyConfigRequest {
                files: vec![
                    file("main", "config.yaml", include_str!("sample/config.yaml")),
                    file(
                        "plugins",
                        "plugins.yaml",
                        include_str!("sample/plugins.yaml"),
                    ),
                    file("job", "jobs/harbor.yaml", include_str!("sample/jobs.yaml")),
                ],
                message: "the demo's configuration".to_owned(),
                request_id: "demo-configuration".to_owned(),
                ..ApplyConfigRequest::default()
            })
            .await?
            .into_inner();
        if !answer.accepted {
            let first = answer.diagnostics.first().map(|found| {
                format!(
                    "{}:{}: {}: {}",
                    found.file, found.line, found.field, found.message
                )
            });
            anyhow::bail!(
                "the sample configuration was refused: {}",
                first.unwrap_or_default()
            );
        }
        Ok(answer.version)
    }

    /// Stops everything in order.
    pub(super) async fn strike(mut self) -> anyhow::Result<()> {
        for agent in &mut self.agents {
            agent.stop().await?;
        }
        self.cluster.stop().await?;
        self.sandbox().stop();
        Ok(())
    }
}
