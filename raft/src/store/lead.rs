//! Who leads: what this node knows of it, and what it does when it takes the lead itself.

use std::sync::Weak;

use tokio::time::sleep;

use super::{Inner, Started, clock::MAX_SKEW_MS};
#[cfg(doc)]
use crate::config::Timing;
use crate::{consensus::Pulse, fatal::FatalKind};

/// Who leads, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// None as well when the leader was not heard of, or no quorum answers it, for [`Timing::leader_silence`].
    pub leader: Option<u64>,
    pub term: u64,
    /// This node leads as far as it knows, which may be out of date; see `confirmed`.
    pub is_me: bool,
    /// This node leads, has applied an entry of its own term, and a quorum answered it within the lease.
    pub confirmed: bool,
}

impl Inner {
    /// Whether this node follows a leader, or is one that a quorum answers.
    pub(super) fn hears_leader(&self, started: &Started) -> bool {
        self.vouched(started, &started.ring.pulse()).is_some()
    }

    pub(super) fn observe(&self, started: &Started) -> Leadership {
        let pulse = started.ring.pulse();
        let leader = self.vouched(started, &pulse);
        let is_me = pulse.seen.leader == Some(self.node_id);
        let applied = self.published.view().applied;
        let own_entry = applied.is_some_and(|applied| {
            applied.term == pulse.seen.term && applied.node_id == self.node_id
        });
        let lease = pulse
            .quorum_ack
            .is_some_and(|since| since < self.timing.election_min);
        Leadership {
            leader,
            term: pulse.seen.term,
            is_me,
            confirmed: is_me && own_entry && lease && self.fatal.get().is_none(),
        }
    }

    /// Who leads, unless nothing was heard of it for so long that the node cannot say. Consensus itself goes on naming
    /// a leader that died until another is elected; whom a command is forwarded to may be such a one.
    pub(super) fn vouched(&self, started: &Started, pulse: &Pulse) -> Option<u64> {
        let leader = pulse.seen.leader?;
        let heard = if leader == self.node_id {
            // A leader that no quorum answers any more leads nobody.
            pulse.quorum_ack
        } else {
            started.ring.since_leader_heard()
        };
        heard
            .is_some_and(|ago| ago < self.timing.leader_silence())
            .then_some(leader)
    }
}

/// Publishes who leads, and fixes the clock when this node takes the lead.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut led_term = None;
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        let changes = started.ring.changes();
        let leadership = strong.observe(started);
        if leadership.is_me
            && led_term != Some(leadership.term)
            && take_lead(&strong, started).await
        {
            led_term = Some(leadership.term);
        }
        if let Some(reason) = strong.removal() {
            strong.fatal.set(FatalKind::Removed, reason);
        }
        strong.leadership.send_if_modified(|known| {
            let changed = *known != leadership;
            *known = leadership;
            changed
        });
        let period = strong.timing.heartbeat;
        drop(strong);
        tokio::select! {
            alive = changes => if !alive { return },
            () = sleep(period) => {}
        }
    }
}

/// False while too few clocks are known.
async fn take_lead(inner: &Inner, started: &Started) -> bool {
    let view = inner.published.view();
    let voters: Vec<u64> = view.voters().into_iter().collect();
    let clock = &started.clock;
    let Some(skew) = clock.skew_ms(inner.node_id, &voters, view.last_stamp_ms()) else {
        return false;
    };
    clock.take_lead(skew, view.last_stamp_ms());
    if skew.abs() > MAX_SKEW_MS {
        tracing::error!(
            skew_ms = skew,
            "this node's clock is too far off its peers' to lead: correct it"
        );
        if let Some(other) = voters.iter().find(|voter| **voter != inner.node_id) {
            // The next election finds another leader if this one does not want to.
            let _ = started.ring.transfer_leader(*other).await;
        }
    }
    true
}
