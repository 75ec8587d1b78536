//! The leader is killed where it hurts.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use trireme_proto::state::{IntentState, JobState, JobType};
use trireme_sandbox::{
    FileChange, NewCommit,
    world::{BOT, Pr, World},
};

use crate::scene::{APPROVER, AUTHOR, STEP, Scene};

/// Lanes of the forge: webhooks about one pull request are sent one after another.
pub(super) const PULLS: usize = 6;
/// Between two comments.
const BEAT: Duration = Duration::from_millis(40);
/// The stream ends by itself after so many, lest a scenario that hangs talks for ever.
const MAX_COMMENTS: usize = 4000;
/// Acknowledged webhooks before each kill, and after it.
pub(super) const BETWEEN: usize = 25;

/// Comments on the pull requests in turn until told to stop.
pub(super) async fn talk(
    world: World,
    pulls: Vec<Pr>,
    stop: CancellationToken,
) -> anyhow::Result<usize> {
    let mut beat = interval(BEAT);
    for (said, pr) in pulls.iter().cycle().take(MAX_COMMENTS).enumerate() {
        tokio::select! {
            () = stop.cancelled() => return Ok(said),
            _ = beat.tick() => {}
        }
        let body = format!("Thought {said}.");
        world.user(AUTHOR).comment(&pr.repo, pr.number, &body)?;
    }
    Ok(MAX_COMMENTS)
}

/// Waits until so many more webhooks are acknowledged.
pub(super) async fn acknowledged(scene: &Scene, more: usize) -> anyhow::Result<()> {
    let target = scene.acknowledged() + more;
    let mut changes = scene.stage.sandbox().changes();
    let enough = async {
        while scene.acknowledged() < target {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    timeout(STEP, enough)
        .await
        .with_context(|| format!("webhooks are not acknowledged: {}", scene.acknowledged()))
}

pub(super) async fn during_ingestion(scene: &mut Scene, rounds: u32) -> anyhow::Result<()> {
    scene.open_gate()?;
    let mut pulls = Vec::new();
    for number in 1..=PULLS {
        pulls.push(scene.open_pull(&format!("change-{number}")).await?);
    }
    let stop = CancellationToken::new();
    let talking = tokio::spawn(talk(scene.world().clone(), pulls.clone(), stop.clone()));
    for round in 1..=rounds {
        acknowledged(scene, BETWEEN).await?;
        let killed = scene
            .kill_leader(&format!("in a stream of webhooks (round {round})"))
            .await?;
        acknowledged(scene, BETWEEN).await?;
        scene.bring_back(killed).await?;
    }
    stop.cancel();
    let said = talking.await??;
    scene.say(&format!("{said} comments were made meanwhile"));
    for pr in &pulls {
        scene.until_run(pr, JobState::Success).await?;
    }
    Ok(())
}

/// The leader is killed while two approved pull requests are tested together.
pub(super) async fn during_batch(scene: &mut Scene) -> anyhow::Result<()> {
    scene.open_gate()?;
    let pulls = [
        scene.open_pull("first").await?,
        scene.open_pull("second").await?,
    ];
    for pr in &pulls {
        scene.comment(APPROVER, pr, "/lgtm\n/approve\n/hold")?;
    }
    for pr in &pulls {
        for label in ["lgtm", "approved", "do-not-merge/hold"] {
            scene.world().until_label(pr, label).await?;
        }
        scene.until_run(pr, JobState::Success).await?;
    }
    // On a new base what was tested counts no more; from here on tests wait for the gate.
    scene.close_gate()?;
    let commit = NewCommit {
        branch: "main".to_owned(),
        message: "Move the base".to_owned(),
        files: vec![FileChange::write("base.txt", "moved\n")],
        parent: None,
    };
    let bot = scene.world().user(BOT);
    bot.push_files(scene.world().repo(), commit).await?;
    for pr in &pulls {
        scene.comment(APPROVER, pr, "/hold cancel")?;
    }
    scene
        .recorder
        .until("a batch of both under test", STEP, |known| {
            known
                .jobs
                .values()
                .find(|job| {
                    job.r#type() == JobType::Batch
                        && job.state() == JobState::Pending
                        && job.pulls.len() == pulls.len()
                        && job.lease.as_ref().is_some_and(|lease| lease.started_ms > 0)
                })
                .map(|_| ())
        })
        .await?;
    let killed = scene.kill_leader("while the batch is under test").await?;
    scene.open_gate()?;
    scene.bring_back(killed).await?;
    for pr in &pulls {
        scene.world().until_merged(pr).await?;
    }
    scene.say("both are merged");
    let as_batch = |intent: &trireme_proto::state::MergeIntent| {
        intent.batch.len() == pulls.len()
            && matches!(intent.state(), IntentState::Merged | IntentState::Observed)
    };
    scene
        .recorder
        .until("both merges to be recorded as one batch", STEP, |known| {
            let merged = known.intents.values().filter(|intent| as_batch(intent));
            (merged.count() == pulls.len()).then_some(())
        })
        .await
}

pub(super) async fn between_merge_and_answer(scene: &mut Scene) -> anyhow::Result<()> {
    scene.open_gate()?;
    let pr = scene.open_pull("change").await?;
    let faults = scene.stage.sandbox().faults().clone();
    let barrier = faults.hold_merge_answers("chaos", Some(1))?;
    scene.comment(APPROVER, &pr, "/lgtm\n/approve")?;
    timeout(STEP, barrier.arrived(1))
        .await
        .context("no merge call was made")?;
    let killed = scene
        .kill_leader("between a merge call and its answer")
        .await?;
    barrier.release();
    scene
        .recorder
        .until("the intent to be observed", STEP, |known| {
            known
                .intents
                .values()
                .find(|intent| intent.state() == IntentState::Observed)
                .map(|_| ())
        })
        .await?;
    scene.say("the intent is observed");
    scene.bring_back(killed).await?;
    scene.settle().await?;
    let calls = scene.merge_calls();
    ensure!(calls == 1, "the merge was asked for {calls} times");
    Ok(())
}
