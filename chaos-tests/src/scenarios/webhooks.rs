//! Webhooks that nobody took.

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use tokio::time::sleep;
use trireme_proto::state::JobState;

use crate::scene::{AUTHOR, STEP, Scene};

/// Attempts younger than 30 s may still be under way as far as a node knows, so it does not ask for them; the outage
/// is longer, so that the first look after the restart finds what was lost. Nothing else can be waited for.
const OUTAGE: Duration = Duration::from_secs(32);
/// How the cursors of webhooks that were looked through are named.
const CURSOR: &str = "plugins/hook/acme/widget/";

pub(super) async fn lost_while_all_are_down(scene: &mut Scene) -> anyhow::Result<()> {
    scene.open_gate()?;
    // What was sent before the webhook was first looked at is not asked for.
    scene
        .recorder
        .until("the first look at our webhook", STEP, |known| {
            let mut cursors = known.cursors.iter();
            cursors.find(|key| key.starts_with(CURSOR)).map(|_| ())
        })
        .await?;
    let ids = scene.stage.cluster.ids();
    for id in &ids {
        scene.stage.cluster.kill(*id).await?;
    }
    scene.say("every node is killed");
    let before = scene.sent().len();
    let pr = scene.open_pull("unheard").await?;
    scene.comment(AUTHOR, &pr, "Is anybody there?")?;
    scene.stage.sandbox().until_delivered(STEP).await?;
    let lost: Vec<String> = scene
        .sent()
        .split_off(before)
        .into_iter()
        .map(|sent| sent.guid)
        .collect();
    ensure!(lost.len() >= 2, "{} webhooks were sent, not 2", lost.len());
    scene.say(&format!("{} webhooks are lost", lost.len()));
    sleep(OUTAGE).await;
    for id in &ids {
        scene.stage.cluster.restart(*id)?;
    }
    let leader = scene.stage.cluster.wait_for_leader().await?;
    scene.say(&format!("every node runs again, {leader} leads"));
    scene
        .recorder
        .until("the lost webhooks to be redelivered", STEP, |known| {
            let here = lost.iter().all(|guid| known.deliveries.contains_key(guid));
            here.then_some(())
        })
        .await?;
    scene.until_run(&pr, JobState::Success).await?;
    scene.settle().await?;
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for sent in scene.sent().into_iter().filter(|sent| sent.redelivery) {
        *asked.entry(sent.guid).or_default() += 1;
    }
    for guid in &lost {
        let times = asked.remove(guid).unwrap_or_default();
        ensure!(
            times == 1,
            "lost webhook {guid} was asked for {times} times"
        );
    }
    ensure!(
        asked.is_empty(),
        "webhooks were asked for that were not lost: {asked:?}"
    );
    Ok(())
}
