//! Who may ask what on the peer listener.
//!
//! A certificate names a node of this cluster, or its bearer did not get here. What that node may do follows from the
//! membership as this node knows it, at each call: a member may ask everything, a former member only whether it still is one. One that was
//! never heard of may be a leader that a lagging follower does not know yet, or a node about to join: it may take part
//! in consensus, where the log has the last word, say hello, and add itself, always in its own name.

use std::sync::atomic::Ordering;

use tonic::{Request, Status};
use trireme_proto::raft::{self as proto, change_membership_request::Change};

use super::Inner;
use crate::transport::Caller;

/// What is asked, as far as it matters for who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Consensus, in the name of this node.
    Consensus(u64),
    /// 0 = no name given.
    Hello(u64),
    /// A new learner.
    Join(u64),
    /// Everything else.
    Member,
}

impl Call {
    pub(super) fn of_vote(vote: Option<&proto::Vote>) -> Self {
        Self::Consensus(
            vote.and_then(|vote| vote.leader)
                .map_or(0, |leader| leader.node_id),
        )
    }

    pub(super) fn of_change(request: &proto::ChangeMembershipRequest) -> Self {
        match &request.change {
            Some(Change::AddLearner(node)) => Self::Join(node.id),
            _ => Self::Member,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Member,
    Former,
    Unknown,
}

/// Who sent a request.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get()
        .copied()
        .ok_or_else(|| Status::internal("a call without a caller"))
}

fn judge(id: u64, standing: Standing, call: Call) -> Result<(), String> {
    let in_own_name = |named: u64| match named == id {
        true => Ok(()),
        false => Err(format!(
            "the certificate is node {id}'s, the request is in the name of node {named}"
        )),
    };
    match (standing, call) {
        // The answer says that it was removed, and nothing that it did not know.
        (Standing::Former, Call::Hello(named)) if named == id => Ok(()),
        (Standing::Former, _) => Err(format!(
            "node {id} is no member of this cluster any more; ids are never reused: let it join under a new one, with a new \
             certificate"
        )),
        (_, Call::Consensus(named)) => in_own_name(named),
        (_, Call::Hello(0)) => Ok(()),
        (_, Call::Hello(named)) => in_own_name(named),
        // Whoever asks a member for it may ask any: it is passed on to the leader.
        (Standing::Member, Call::Join(_) | Call::Member) => Ok(()),
        (Standing::Unknown, Call::Join(named)) => in_own_name(named),
        (Standing::Unknown, Call::Member) => Err(format!("node {id} is no member of this cluster")),
    }
}

impl Inner {
    /// Whether `caller` may ask this now.
    pub(super) fn allows(&self, caller: Caller, call: Call) -> Result<(), Status> {
        let Caller::Node(id) = caller else {
            return Ok(());
        };
        judge(id, self.standing(id), call).map_err(|why| {
            self.calls_refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(node = id, ?call, why, "a peer was refused");
            Status::permission_denied(why)
        })
    }

    fn standing(&self, id: u64) -> Standing {
        let view = self.published.view();
        let is_in = |nodes: &[proto::Node]| nodes.iter().any(|node| node.id == id);
        // What is applied is cheap to look at; what is not yet applied counts as well.
        if is_in(view.nodes())
            || self
                .started()
                .is_some_and(|started| is_in(&started.ring.pulse().membership.nodes))
        {
            return Standing::Member;
        }
        match view.used_node_ids.contains(&id) {
            true => Standing::Former,
            false => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_what() {
        let calls = [
            Call::Consensus(7),
            Call::Consensus(8),
            Call::Hello(0),
            Call::Hello(7),
            Call::Hello(8),
            Call::Join(7),
            Call::Join(8),
            Call::Member,
        ];
        let allowed = |standing| calls.map(|call| judge(7, standing, call).is_ok());
        assert_eq!(
            allowed(Standing::Member),
            [true, false, true, true, false, true, true, true]
        );
        assert_eq!(
            allowed(Standing::Unknown),
            [true, false, true, true, false, true, false, false]
        );
        assert_eq!(
            allowed(Standing::Former),
            [false, false, false, true, false, false, false, false]
        );
    }
}
