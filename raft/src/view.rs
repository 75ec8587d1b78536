//! What readers see: one immutable view per applied batch.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use trireme_proto::raft as proto;
use trireme_state::State;

use crate::{feed::Feed, wal::LogId};

/// The replicated state at one revision, and the membership then. Never changes.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Log index of the last entry applied.
    pub revision: u64,
    pub state: State,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: Arc<proto::StoredMembership>,
    /// Every node id that was ever a member.
    pub(crate) used_node_ids: Arc<BTreeSet<u64>>,
}

impl View {
    /// Members and learners, by id.
    pub fn nodes(&self) -> &[proto::Node] {
        self.membership
            .membership
            .as_ref()
            .map_or(&[], |membership| &membership.nodes)
    }

    /// Ids of those that vote.
    pub fn voters(&self) -> BTreeSet<u64> {
        self.membership
            .membership
            .iter()
            .flat_map(|membership| &membership.configs)
            .flat_map(|voters| voters.node_ids.iter().copied())
            .collect()
    }
}

impl Deref for View {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// Latest memberships that are remembered, for whoever looks into what happened.
const MEMBERSHIPS_KEPT: usize = 64;

/// The newest view, and who waits for newer ones.
#[derive(Debug)]
pub(crate) struct Published {
    view: ArcSwap<View>,
    /// By log index, oldest first.
    memberships: Mutex<VecDeque<(u64, proto::Membership)>>,
    revision: watch::Sender<Option<LogId>>,
    pub(crate) feed: Feed,
}

impl Published {
    /// Starts with an empty view.
    pub(crate) fn new(feed: Feed) -> Self {
        Self {
            view: ArcSwap::from_pointee(View::default()),
            memberships: Mutex::default(),
            revision: watch::Sender::new(None),
            feed,
        }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub(crate) fn publish(&self, view: View) {
        let applied = view.applied;
        self.view.store(Arc::new(view));
        self.revision.send_replace(applied);
    }

    /// Remembers a membership that was applied; nothing if it is the last one again.
    pub(crate) fn remember_membership(&self, stored: &proto::StoredMembership) {
        let index = stored.log_id.as_ref().map_or(0, |id| id.index);
        let membership = stored.membership.clone().unwrap_or_default();
        let mut kept = self
            .memberships
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if membership.nodes.is_empty() || kept.back().is_some_and(|(last, _)| *last >= index) {
            return;
        }
        if kept.len() == MEMBERSHIPS_KEPT {
            kept.pop_front();
        }
        kept.push_back((index, membership));
    }

    pub(crate) fn memberships(&self) -> Vec<(u64, proto::Membership)> {
        let kept = self
            .memberships
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }

    /// Waits until the entry at `revision` is applied.
    pub(crate) async fn at_least(&self, revision: u64) -> Arc<View> {
        let reached = |applied: Option<LogId>| applied.is_some_and(|id| id.index >= revision);
        let view = self.view();
        if reached(view.applied) {
            return view;
        }
        drop(view);
        let mut applied = self.revision.subscribe();
        // The sender lives as long as self.
        let _ = applied.wait_for(|applied| reached(*applied)).await;
        self.view()
    }
}
