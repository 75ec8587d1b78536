//! What the other members say about themselves, asked now and then: clocks and versions.

use std::{
    collections::BTreeMap,
    sync::{Mutex, Weak},
    time::Duration,
};

use futures::future::join_all;
use tokio::time::sleep;
use trireme_proto::{
    raft as proto,
    state::{Command, RaiseFeatureLevel, command::Body},
};
use trireme_state::BASE_LEVEL;

use super::{DiskUse, Inner, Started, held, propose::Proposed};
use crate::{fatal::FatalKind, sealed::Sealed};

/// How often a node asks at first: until the members of a new cluster know each other, and its level is raised.
const EAGER: Duration = Duration::from_millis(100);
/// How many times. After that an upgrade has time.
const EAGER_ROUNDS: u32 = 100;
/// The others are asked this many times as often as long as too few clocks are known.
const UNKNOWN: u32 = 20;

/// One member's last answer.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) feature_level: u32,
    pub(super) version: String,
    /// None until it has looked at its disk.
    pub(super) disk: Option<DiskUse>,
}

#[derive(Debug)]
pub(super) struct Peers {
    me: u64,
    /// The highest feature level that this node knows.
    level: u32,
    others: Mutex<BTreeMap<u64, About>>,
}

impl Peers {
    pub(super) fn new(me: u64, level: u32) -> Self {
        Self {
            me,
            level,
            others: Mutex::default(),
        }
    }

    pub(super) fn about(&self, id: u64) -> Option<About> {
        held(&self.others).get(&id).cloned()
    }

    /// The highest feature level that a node has said it knows.
    fn level_of(&self, id: u64) -> Option<u32> {
        match id == self.me {
            true => Some(self.level),
            false => Some(held(&self.others).get(&id)?.feature_level),
        }
    }

    fn learn(&self, id: u64, about: About) {
        held(&self.others).insert(id, about);
    }

    fn keep(&self, ids: &[u64]) {
        held(&self.others).retain(|id, _| ids.contains(id));
    }

    /// Whether every one of `members` has said that it knows `level`; the first that has not otherwise.
    pub(super) fn all_know(&self, members: &[u64], level: u32) -> Result<(), u64> {
        let lacks = |id: &&u64| self.level_of(**id).is_none_or(|known| known < level);
        members.iter().find(lacks).map_or(Ok(()), |id| Err(*id))
    }
}

/// Asks all members, again and again; where this node leads, raises the cluster's feature level to what all know.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut rounds = 0;
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        // The log's last one: after a restart without a leader none may be applied yet.
        let nodes = started.ring.pulse().membership.nodes;
        let ids: Vec<u64> = nodes.iter().map(|node| node.id).collect();
        started.peers.keep(&ids);
        // All at once: one that does not answer must not delay what the others say.
        let others = nodes.iter().filter(|node| node.id != strong.node_id);
        let asking = others.map(|node| strong.ask(started, node));
        if let Some(refusal) = join_all(asking).await.into_iter().flatten().next() {
            strong.fatal.set(FatalKind::Removed, refusal);
            return;
        }
        if strong.raises_level {
            strong.raise_level(started).await;
        }
        rounds += 1;
        let view = strong.published.view();
        let settled = view.feature_level() >= strong.knows_level;
        let voters: Vec<u64> = view.voters().into_iter().collect();
        let skew = started
            .clock
            .skew_ms(strong.node_id, &voters, view.last_stamp_ms());
        let known = skew.is_some();
        let often = match settled || !strong.raises_level || rounds > EAGER_ROUNDS {
            true => strong.timing.hello_interval,
            false => EAGER.min(strong.timing.hello_interval),
        };
        let period = if known && !voters.is_empty() {
            often
        } else {
            // Who takes the lead before a majority's clocks are known has only its own to go by.
            often.min(strong.timing.hello_interval / UNKNOWN)
        };
        drop(strong);
        sleep(period.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
    }
}

impl Inner {
    /// Learns what `node` says about itself; answers with why it wants this node to be gone.
    async fn ask(&self, started: &Started, node: &proto::Node) -> Option<String> {
        let asked = started.clock.steady_ms();
        let hello = proto::HelloRequest {
            cluster_id: started.cluster_id.clone(),
            node_id: self.node_id,
            ..proto::HelloRequest::default()
        };
        let hello = self.hello(&node.peer_address, Some(node.id), hello);
        let answer = hello.await.ok()?;
        if answer.node_id != node.id || answer.cluster_id != started.cluster_id {
            return None;
        }
        if !answer.refused.is_empty() {
            return Some(answer.refused);
        }
        started.clock.sample(node.id, asked, answer.clock_ms);
        let about = About {
            feature_level: answer.feature_level,
            version: answer.version,
            disk: (answer.disk_total_bytes > 0).then_some(DiskUse {
                total: answer.disk_total_bytes,
                available: answer.disk_available_bytes,
                used_permille: answer.disk_used_permille,
            }),
        };
        started.peers.learn(node.id, about);
        None
    }

    /// Nothing happens unless this node leads, and knows of every member that it knows more than the cluster holds.
    async fn raise_level(&self, started: &Started) {
        let view = self.published.view();
        let members: Vec<u64> = view.nodes().iter().map(|node| node.id).collect();
        let present = view.feature_level();
        if members.is_empty() || present >= self.knows_level || !self.observe(started).confirmed {
            return;
        }
        let common = members
            .iter()
            .map(|id| started.peers.level_of(*id).unwrap_or(BASE_LEVEL));
        let Some(common) = common.min().filter(|common| *common > present) else {
            return;
        };
        let command = Command {
            min_level: BASE_LEVEL,
            principal: format!("node:{}", self.node_id),
            body: Some(Body::RaiseFeatureLevel(RaiseFeatureLevel { level: common })),
            ..Command::default()
        };
        // Known: the common level is not above this build's own.
        let Ok(command) = Sealed::of(command) else {
            return;
        };
        match started.proposer.submit(command).await {
            Proposed::Applied(_) => {
                tracing::info!(level = common, "the cluster's feature level was raised");
            }
            // The next round, or the next leader, tries again.
            other => tracing::info!(level = common, ?other, "the feature level was not raised"),
        }
    }
}
