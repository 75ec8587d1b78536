//! The demo's world: the harness's, with a harbor in it, started from this binary.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
};

use anyhow::Context as _;
use trireme_harness::{ConfigText, Executable, StageSettings};
use trireme_sandbox::world::World;

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
    stage: trireme_harness::Stage,
    // Removed last.
    _temporary: Option<tempfile::TempDir>,
}

impl Deref for Stage {
    type Target = trireme_harness::Stage;

    fn deref(&self) -> &Self::Target {
        &self.stage
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.stage
    }
}

fn this_program() -> std::io::Result<Executable> {
    let prefix = PREFIX.get().into_iter().flatten();
    Ok(Executable {
        program: std::env::current_exe()?,
        prefix: prefix
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        variables: Vec::new(),
    })
}

impl Stage {
    /// Starts the forge with its sample repository, then nodes and agents.
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
            .repo(ORG, REPO)
            .member(APPROVER)
            .member(REVIEWER)
            .outsider(NEWCOMER)
            .file("OWNERS", OWNERS)
            .file("ships/argo", "name: Argo\ndraught: 3\n")
            .file("test/unit.sh", include_str!("sample/harbor/unit.sh"))
            .file("test/lint.sh", include_str!("sample/harbor/lint.sh"))
            .file("publish.sh", include_str!("sample/harbor/publish.sh"));
        let settings = StageSettings {
            executable: this_program()?,
            directory,
            nodes,
            agents: AGENTS,
            agent_capacity: AGENT_CAPACITY,
            ground: trireme_harness::Ground::default(),
        };
        Ok(Self {
            stage: trireme_harness::Stage::set(world, settings).await?,
            _temporary: temporary,
        })
    }

    /// The sample configuration, as the first version.
    pub(super) async fn configure(&self) -> anyhow::Result<u64> {
        let file = |role, path, text: &str| ConfigText {
            role,
            path,
            text: text.to_owned(),
        };
        let files = vec![
            file("main", "config.yaml", include_str!("sample/config.yaml")),
            file(
                "plugins",
                "plugins.yaml",
                include_str!("sample/plugins.yaml"),
            ),
            file("job", "jobs/harbor.yaml", include_str!("sample/jobs.yaml")),
        ];
        let message = "the demo's configuration";
        let version = self.stage.configure(files, message, "demo-configuration");
        version.await.context("the sample configuration")
    }

    /// Stops everything in order.
    pub(super) async fn strike(mut self) -> anyhow::Result<()> {
        Ok(self.stage.strike().await?)
    }
}
