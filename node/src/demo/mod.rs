//! `demo` tells the whole story on this machine and checks how it ends; `dev` sets the same stage and leaves it to
//! whoever wants to play.

mod stage;
mod story;
mod summary;
mod timeline;
mod witness;

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use trireme_sandbox::{forge::Permission, world::BOT};

use crate::{
    cli::{DemoArgs, DevArgs},
    exit::{USAGE, coded},
    interrupted,
    output::{Format, print},
};

use self::{
    stage::{APPROVER, NEWCOMER, ORG, REPO, REVIEWER, Stage},
    story::Story,
    summary::Summary,
    timeline::{Kind, Timeline},
    witness::Witness,
};

/// The whole story.
const BOUND: Duration = Duration::from_secs(120);
/// Agents register within this.
const AGENTS_READY: Duration = Duration::from_secs(15);

fn check_size(nodes: u64) -> anyhow::Result<()> {
    if nodes == 2 {
        return Err(coded(
            USAGE,
            "--nodes 2: two nodes survive the loss of none; use 1 or 3",
        ));
    }
    Ok(())
}

/// # Errors
/// When an expectation of the story fails or its bound runs out.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    check_size(args.nodes)?;
    if args.kill_leader && args.nodes == 1 {
        return Err(coded(
            USAGE,
            "--kill-leader needs three nodes: one node has nobody to take over",
        ));
    }
    let timeline = Timeline::new(args.output);
    let mut stage = Stage::set(args.nodes, args.directory).await?;
    let leader = stage.cluster.wait_for_leader().await?;
    timeline.say(
        Kind::Cluster,
        format!(
            "{} nodes run below {}, node {leader} leads",
            args.nodes,
            stage.directory.display()
        ),
    );
    let witness = Witness::new(stage.cluster.addresses(), timeline.clone());
    let stop = CancellationToken::new();
    let follower = tokio::spawn(witness.clone().follow(stop.clone()));
    let story = async {
        stage.configure().await?;
        witness
            .until("both agents to register", AGENTS_READY, |facts| {
                (facts.agents.len() == stage.agents.len()).then_some(())
            })
            .await?;
        Story {
            stage: &mut stage,
            witness: &witness,
            timeline: &timeline,
            kill_leader: args.kill_leader,
        }
        .tell()
        .await
    };
    let told = tokio::select! {
        told = timeout(BOUND, story) => told.map_err(|_| anyhow!("the story took longer than {BOUND:?}")).and_then(|told| told),
        heard = interrupted() => heard.map_err(anyhow::Error::from).and_then(|()| Err(anyhow!("interrupted"))),
    };
    let told = match told {
        Ok(told) => told,
        Err(why) => {
            timeline.say(Kind::Fault, format!("{why:#}"));
            for problem in witness.facts().problems {
                timeline.say(Kind::Fault, problem);
            }
            stop.cancel();
            follower.await?;
            // What the processes left is in their logs; the reason above is what counts.
            if let Err(also) = stage.strike().await {
                timeline.say(Kind::Fault, format!("stopping: {also:#}"));
            }
            return Err(why.context("the demo failed"));
        }
    };
    let summary = Summary::of(&stage, &told);
    stop.cancel();
    follower.await?;
    summary.print(&timeline);
    stage
        .strike()
        .await
        .context("stopping the demo's processes")?;
    if !summary.problems().is_empty() {
        bail!("{} expectations failed", summary.problems().len());
    }
    Ok(())
}

/// # Errors
/// When the world does not start.
pub async fn dev(args: DevArgs) -> anyhow::Result<()> {
    check_size(args.nodes)?;
    let timeline = Timeline::new(Format::Text);
    let stage = Stage::set(args.nodes, args.directory).await?;
    let witness = Witness::new(stage.cluster.addresses(), timeline.clone());
    let stop = CancellationToken::new();
    let follower = tokio::spawn(witness.clone().follow(stop.clone()));
    stage.configure().await?;
    // The example below pushes to the repository itself.
    stage.world.grant(REVIEWER, Permission::Write);
    print(&welcome(&stage))?;
    interrupted().await?;
    stop.cancel();
    follower.await?;
    stage.strike().await.context("stopping the processes")
}

fn welcome(stage: &Stage) -> String {
    let deck = stage
        .cluster
        .members()
        .first()
        .map(trireme_harness::Member::url)
        .unwrap_or_default();
    let forge = stage.sandbox().url();
    let token = |login: &str| stage.sandbox().token_for(login);
    let server = stage.cluster.addresses().join(",");
    format!(
        "
Deck       {deck}
Forge      {forge}/{ORG}/{REPO}
Artifacts  {}
Logs       {}

People (any name, the token as password):
  {APPROVER:<9}  {}  approves
  {REVIEWER:<9}  {}  reviews
  {NEWCOMER:<9}  {}  is nobody yet
  {BOT:<9}  {}  is the bot

Open a pull request:
  git clone http://{REVIEWER}:{}@{}/{ORG}/{REPO}.git && cd {REPO}
  git checkout -b bigger && echo 'draught: 9' >> ships/argo && git commit -am 'A deeper Argo' && git push origin bigger
  curl -u {REVIEWER}:{} {forge}/repos/{ORG}/{REPO}/pulls -d '{{\"title\":\"A deeper Argo\",\"head\":\"bigger\",\"base\":\"main\"}}'
Comment on it: /test all, /lgtm, /approve, /hold, /retest
  curl -u {APPROVER}:{} {forge}/repos/{ORG}/{REPO}/issues/1/comments -d '{{\"body\":\"/lgtm\\n/approve\"}}'

Look at the cluster:
  export TRIREME_SERVER={server}
  trireme cluster status
  trireme get jobs
  trireme logs -f <id>
  trireme get pools

Ctrl-C stops all of it.
",
        stage.storage.display(),
        stage.directory.display(),
        token(APPROVER),
        token(REVIEWER),
        token(NEWCOMER),
        token(BOT),
        token(REVIEWER),
        forge.trim_start_matches("http://"),
        token(REVIEWER),
        token(APPROVER),
    )
}
