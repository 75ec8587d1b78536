//! Nodes that come and go.

use anyhow::{Context as _, ensure};
use trireme_proto::state::JobState;

use crate::scene::Scene;

pub(super) async fn follower_replaced(scene: &mut Scene) -> anyhow::Result<()> {
    let under_way = scene.open_pull("under-way").await?;
    scene.until_run(&under_way, JobState::Pending).await?;
    let leader = scene.stage.cluster.wait_for_leader().await?;
    let lost = scene
        .stage
        .cluster
        .members()
        .iter()
        .map(|member| member.id)
        .find(|id| *id != leader)
        .context("there is no follower")?;
    let new = scene.stage.cluster.replace(lost).await?;
    scene.stage.lead_hook_to_members()?;
    scene.recorder.lead_to(scene.stage.cluster.addresses());
    scene.stage.cluster.wait_until_caught_up(new).await?;
    scene.say(&format!(
        "follower {lost} lost its disk, node {new} took its place"
    ));

    // It counts: with another node down, the new one is needed for every write.
    let leader = scene.stage.cluster.wait_for_leader().await?;
    let down = scene
        .stage
        .cluster
        .members()
        .iter()
        .map(|member| member.id)
        .find(|id| *id != leader && *id != new)
        .unwrap_or(leader);
    scene.stage.cluster.kill(down).await?;
    scene.say(&format!("node {down} is killed: node {new} is needed"));
    let after = scene.open_pull("after").await?;
    scene.open_gate()?;
    for pr in [&under_way, &after] {
        scene.until_run(pr, JobState::Success).await?;
    }
    scene.bring_back(down).await?;

    let refused = scene.stage.cluster.return_of_former(lost).await?;
    ensure!(
        refused.exit_code.is_some_and(|code| code != 0)
            && refused.words.contains("node ids are never reused"),
        "node {lost} ended with {:?}, but does not say that ids are never reused:\n{}",
        refused.exit_code,
        refused.words
    );
    scene.say(&format!("node {lost} is refused: ids are never reused"));
    let leader = scene.stage.cluster.wait_for_leader().await?;
    let status = scene.stage.cluster.status(leader).await?;
    let members: Vec<u64> = status.nodes.iter().map(|node| node.id).collect();
    ensure!(
        members.contains(&new) && !members.contains(&lost) && members.len() == 3,
        "the members are {members:?}"
    );
    Ok(())
}
