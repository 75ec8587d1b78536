//! What the other members say about themselves, asked now and then: clocks and versions.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, Weak},
};

use tokio::time::sleep;
use trireme_proto::raft as proto;
use trireme_state::FEATURE_LEVEL;

use super::Inner;

/// One member's last answer.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) feature_level: u32,
    pub(super) version: String,
}

#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<BTreeMap<u64, About>>);

impl Peers {
    pub(super) fn about(&self, id: u64) -> Option<About> {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(&id).cloned()
    }

    fn learn(&self, id: u64, about: About) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.insert(id, about);
    }

    fn keep(&self, ids: &[u64]) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|id, _| ids.contains(id));
    }

    /// Whether every one of `members` has said that it knows `level`; the first that has not otherwise.
    pub(super) fn all_know(&self, members: &[u64], me: u64, level: u32) -> Result<(), u64> {
        for id in members {
            let known = match *id == me {
                true => FEATURE_LEVEL,
                false => self.about(*id).map_or(0, |about| about.feature_level),
            };
            if known < level {
                return Err(*id);
            }
        }
        Ok(())
    }
}

/// Asks all members, again and again.
pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        let view = strong.published.view();
        let ids: Vec<u64> = view.nodes().iter().map(|node| node.id).collect();
        started.peers.keep(&ids);
        for node in view.nodes().iter().filter(|node| node.id != strong.node_id) {
            let asked = strong.host.wall_ms();
            let hello = proto::HelloRequest {
                cluster_id: started.cluster_id.clone(),
                node_id: strong.node_id,
                bootstrap_instance: String::new(),
            };
            if let Ok(answer) = strong.hello(&node.peer_address, hello).await
                && answer.node_id == node.id
                && answer.cluster_id == started.cluster_id
            {
                started.clock.sample(node.id, asked, answer.clock_ms);
                let about = About {
                    feature_level: answer.feature_level,
                    version: answer.version,
                };
                started.peers.learn(node.id, about);
            }
        }
        let period = strong.timing.hello_interval;
        drop(strong);
        sleep(period.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
    }
}
