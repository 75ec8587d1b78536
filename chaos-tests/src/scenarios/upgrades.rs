//! Nodes of another build.

use anyhow::{Context as _, ensure};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use trireme_harness::Executable;
use trireme_proto::{api::NodeRequest, state::JobState};
use trireme_state::FEATURE_LEVEL;

use super::leaders::{BETWEEN, PULLS, acknowledged, talk};
use crate::scene::{LOOK_AGAIN, STEP, Scene};

/// What a build that is too old for the log says. It ends with code 70; those of level 1 did so only once they ran, and
/// with 1 when they found out at their start.
const TOO_OLD: &str = "was proposed by a newer version. Nothing of it was applied";

async fn level(scene: &Scene, node: u64) -> anyhow::Result<u32> {
    Ok(scene.stage.cluster.status(node).await?.feature_level)
}

async fn upgrade(scene: &mut Scene, node: u64, newer: &Executable) -> anyhow::Result<()> {
    let cluster = &mut scene.stage.cluster;
    cluster.terminate(node).await?;
    cluster.install(node, newer)?;
    cluster.restart(node)?;
    cluster.wait_until_caught_up(node).await?;
    scene.say(&format!("node {node} runs the newer build"));
    acknowledged(scene, BETWEEN).await
}

/// Waits until the cluster has raised its level by itself.
async fn raised(scene: &Scene) -> anyhow::Result<()> {
    let raised = async {
        loop {
            let mut all = true;
            for member in scene.stage.cluster.members() {
                all &= level(scene, member.id)
                    .await
                    .is_ok_and(|level| level == FEATURE_LEVEL);
            }
            if all {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(STEP, raised)
        .await
        .with_context(|| format!("the feature level was not raised to {FEATURE_LEVEL}"))
}

pub(super) async fn rolling(
    scene: &mut Scene,
    former: &Executable,
    newer: &Executable,
) -> anyhow::Result<()> {
    scene.open_gate()?;
    let mut pulls = Vec::new();
    for number in 1..=PULLS {
        pulls.push(scene.open_pull(&format!("change-{number}")).await?);
    }
    let stop = CancellationToken::new();
    let talking = tokio::spawn(talk(scene.world().clone(), pulls.clone(), stop.clone()));
    acknowledged(scene, BETWEEN).await?;
    let leader = scene.stage.cluster.wait_for_leader().await?;
    let before = level(scene, leader).await?;
    ensure!(
        before < FEATURE_LEVEL,
        "the older build is of level {before}, as this one: nothing can be raised"
    );
    let members = scene.stage.cluster.members().iter();
    let followers: Vec<u64> = members
        .map(|member| member.id)
        .filter(|id| *id != leader)
        .collect();
    for follower in &followers {
        upgrade(scene, *follower, newer).await?;
        let now = level(scene, *follower).await?;
        ensure!(
            now == before,
            "the level was raised to {now} while node {leader} runs the older build"
        );
    }
    let heir = *followers.first().context("there is no follower")?;
    let client = scene.stage.cluster.client().await?;
    let heir = NodeRequest { node_id: heir };
    client.cluster().transfer_leader(heir).await?;
    upgrade(scene, leader, newer).await?;
    for agent in &mut scene.stage.agents {
        agent.stop().await?;
        agent.install(newer);
        agent.restart().await?;
    }
    raised(scene).await?;
    scene.say(&format!(
        "the feature level went from {before} to {FEATURE_LEVEL}"
    ));
    acknowledged(scene, BETWEEN).await?;

    // Whoever goes back must not apply what it does not know.
    let back = *followers.last().context("there is no follower")?;
    let cluster = &mut scene.stage.cluster;
    cluster.terminate(back).await?;
    cluster.install(back, former)?;
    cluster.restart(back)?;
    let ended = cluster.end_of(back).await?;
    ensure!(
        matches!(ended.exit_code, Some(1 | 70)) && ended.words.contains(TOO_OLD),
        "node {back} went back to the older build and ended with {:?}:\n{}",
        ended.exit_code,
        ended.words
    );
    scene.say(&format!(
        "node {back} went back to the older build and stopped: what it read {TOO_OLD}"
    ));
    scene.stage.cluster.install(back, newer)?;
    scene.bring_back(back).await?;
    stop.cancel();
    let said = talking.await??;
    scene.say(&format!("{said} comments were made meanwhile"));
    for pr in &pulls {
        scene.until_run(pr, JobState::Success).await?;
    }
    Ok(())
}
