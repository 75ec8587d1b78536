//! Agents that die with what they run.

use anyhow::{Context as _, ensure};
use trireme_proto::state::JobState;

use crate::scene::{STEP, Scene};

pub(super) async fn killed_during_run(scene: &mut Scene) -> anyhow::Result<()> {
    let pr = scene.open_pull("change").await?;
    let (job, fence, agent) = scene
        .recorder
        .until("a run's first process", STEP, |known| {
            let mut runs = known.runs_on(pr.number);
            runs.find_map(|job| {
                let lease = job.lease.as_ref().filter(|lease| lease.started_ms > 0)?;
                let agent = known.agents.get(&lease.agent_id)?;
                Some((job.id.clone(), lease.fence, agent.name.clone()))
            })
        })
        .await?;
    // Named agent-1, agent-2, … in the order of the stage.
    let place = agent
        .strip_prefix("agent-")
        .and_then(|number| number.parse::<usize>().ok())
        .and_then(|number| number.checked_sub(1))
        .filter(|place| *place < scene.stage.agents.len())
        .with_context(|| format!("no agent of ours is called {agent}"))?;
    scene.stage.agents[place].kill().await?;
    scene.say(&format!("{agent} is killed while it runs {job}"));
    let taken = scene
        .recorder
        .until("the lease to be taken back", STEP, |known| {
            let job = known.jobs.get(&job)?;
            let held = job.lease.as_ref().is_some_and(|lease| lease.fence == fence);
            (!held).then(|| job.state())
        })
        .await?;
    scene.say(&format!("its lease is taken back, the run is {taken:?}"));
    scene.open_gate()?;
    scene.stage.agents[place].restart().await?;
    scene.settle().await?;
    let known = scene.recorder.known();
    let ended = known.jobs.get(&job).context("the run is gone")?;
    ensure!(
        (ended.state() == JobState::Success && ended.attempt == 2)
            || ended.state() == JobState::Error,
        "the run ended {:?} after {} attempts",
        ended.state(),
        ended.attempt
    );
    Ok(())
}
