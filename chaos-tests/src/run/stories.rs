//! People who go on working: pull requests that are opened, approved and merged while the nodes are disturbed.
//!
//! What people see of a lost webhook is that nothing happens. Then they say it again, and in the end close and reopen,
//! as people do; so every story ends well once the cluster is whole again, whatever was lost on the way.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use trireme_sandbox::{
    forge::{OpenState, PullChange},
    world::{Pr, World},
};

use crate::scene::{APPROVER, AUTHOR};

/// Pull requests that are open at one time.
const AUTHORS: usize = 2;
/// Between two looks at one's pull request.
const LOOK: Duration = Duration::from_millis(200);
/// Nothing happens for so long: one says it again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two stories of one author.
const REST: Duration = Duration::from_millis(1500);
/// A story, once nothing disturbs it any more.
pub(super) const LAST: Duration = Duration::from_secs(240);

pub(super) struct Stories {
    stop: CancellationToken,
    telling: JoinSet<anyhow::Result<usize>>,
}

impl Stories {
    pub(super) fn begin(world: &World) -> Self {
        let stop = CancellationToken::new();
        let mut telling = JoinSet::new();
        for author in 0..AUTHORS {
            telling.spawn(tell(world.clone(), author, stop.clone()));
        }
        Self { stop, telling }
    }

    /// No new story begins; waits for the ends of those that have. Gives how many there were.
    pub(super) async fn end(mut self) -> anyhow::Result<usize> {
        self.stop.cancel();
        let mut told = 0;
        while let Some(ended) = self.telling.join_next().await {
            told += ended.context("an author ended by itself")??;
        }
        Ok(told)
    }
}

async fn tell(world: World, author: usize, stop: CancellationToken) -> anyhow::Result<usize> {
    for story in 0.. {
        if stop.is_cancelled() {
            return Ok(story);
        }
        let pr = world
            .pr(&format!("change-{author}-{story}"))
            .try_opened_by(AUTHOR)
            .await?;
        approve(&world, &pr)?;
        until_merged(&world, &pr, &stop).await?;
        stop.run_until_cancelled(sleep(REST)).await;
    }
    Ok(0)
}

fn approve(world: &World, pr: &Pr) -> anyhow::Result<()> {
    let approver = world.user(APPROVER);
    approver.comment(&pr.repo, pr.number, "/lgtm\n/approve")?;
    Ok(())
}

async fn until_merged(world: &World, pr: &Pr, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut said = Instant::now();
    let mut times = 0;
    let mut undisturbed = None;
    while !world.is_merged(pr) {
        if stop.is_cancelled() {
            let since = *undisturbed.get_or_insert_with(Instant::now);
            ensure!(
                since.elapsed() < LAST,
                "#{} is not merged within {LAST:?} although nothing disturbs the nodes any more: {}",
                pr.number,
                world.describe(pr)
            );
        }
        if said.elapsed() >= PATIENCE {
            said = Instant::now();
            times += 1;
            insist(world, pr, times).await?;
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Says again what seems not to have been heard.
async fn insist(world: &World, pr: &Pr, times: u32) -> anyhow::Result<()> {
    let author = world.user(AUTHOR);
    if times.is_multiple_of(3) {
        for state in [OpenState::Closed, OpenState::Open] {
            let change = PullChange {
                state: Some(state),
                ..PullChange::default()
            };
            // Merged at last, between the look and this.
            if let Err(refusal) = author.edit_pull(&pr.repo, pr.number, change).await {
                ensure!(world.is_merged(pr), "#{}: {refusal}", pr.number);
                return Ok(());
            }
        }
        return Ok(());
    }
    let labels = world.labels(pr);
    if !["lgtm", "approved"]
        .iter()
        .all(|wanted| labels.iter().any(|label| label == wanted))
    {
        approve(world, pr)?;
    } else if world.statuses(pr).is_empty() {
        author.comment(&pr.repo, pr.number, "/test unit")?;
    }
    Ok(())
}
