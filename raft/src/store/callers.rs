//! Who may ask what on the peer listener.
//!
//! A certificate names a node of this cluster, or its bearer did not get here. What that node may do follows from the
//! membership as this node knows it, at each call: a member may ask everything, a former member only whether it still is
//! one. One that was never heard of may say hello and add itself, always in its own name. It may also be a leader that a
//! lagging follower does not know yet: before it may take part in consensus the members that are known here are asked
//! about it, and it comes again. A node that knows no member at all has just joined, and takes its first entries from
//! whoever has a certificate.

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use tonic::{Request, Status};
use trireme_proto::raft::{self as proto, change_membership_request::Change};

use super::{Inner, held};
use crate::transport::Caller;

/// After a no, members are asked again no sooner.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a node is let in because nobody could tell.
const UNSURE: Duration = Duration::from_secs(10);
/// Nodes that are asked about; more are refused unasked.
const MAX_ASKED: usize = 64;
/// Members that are asked at once.
const ASKED_AT_ONCE: usize = 8;

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
    /// Not known here, but to a member; or nobody can be asked.
    Vouched,
    Unknown,
}

/// What members say of nodes that this one does not know.
#[derive(Debug, Default)]
pub(super) struct Hearsay(Mutex<BTreeMap<u64, Said>>);

#[derive(Debug, Clone, Copy)]
struct Said {
    asked: Instant,
    word: Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Not known yet, or no member.
    No,
    /// A member says so.
    Yes,
    /// Nobody can tell: all members known here may be gone, and this node be brought up to date by those that came after.
    Nobody,
}

impl Hearsay {
    fn vouched(&self, id: u64) -> bool {
        held(&self.0).get(&id).is_some_and(|said| match said.word {
            Word::No => false,
            Word::Yes => true,
            Word::Nobody => said.asked.elapsed() < UNSURE,
        })
    }

    /// Whether to ask about a node now.
    fn asks(&self, id: u64) -> bool {
        let now = Instant::now();
        let mut said = held(&self.0);
        said.retain(|other, said| {
            *other == id || said.word == Word::Yes || now.duration_since(said.asked) < ASK_AGAIN
        });
        let due = match said.get(&id) {
            Some(said) => now.duration_since(said.asked) >= ASK_AGAIN,
            None => said.len() < MAX_ASKED,
        };
        if due {
            let asked = Said {
                asked: now,
                word: Word::No,
            };
            said.insert(id, asked);
        }
        due
    }

    fn say(&self, id: u64, word: Word) {
        if let Some(said) = held(&self.0).get_mut(&id) {
            said.word = word;
        }
    }
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
        (Standing::Unknown, Call::Consensus(named)) if named == id => Err(format!(
            "node {id} is no member of this cluster as far as is known here; if it is, members say so in a moment"
        )),
        (_, Call::Consensus(named) | Call::Hello(named @ 1..)) => in_own_name(named),
        (_, Call::Hello(_)) => Ok(()),
        // Whoever asks a member for it may ask any: it is passed on to the leader.
        (Standing::Member, Call::Join(_) | Call::Member) => Ok(()),
        (Standing::Unknown | Standing::Vouched, Call::Join(named)) => in_own_name(named),
        (Standing::Unknown | Standing::Vouched, Call::Member) => {
            Err(format!("node {id} is no member of this cluster"))
        }
    }
}

impl Inner {
    /// Whether `caller` may ask this now.
    pub(super) fn allows(&self, caller: Caller, call: Call) -> Result<(), Status> {
        let Caller::Node(id) = caller else {
            return Ok(());
        };
        let standing = self.standing(id);
        if standing == Standing::Unknown && matches!(call, Call::Consensus(_)) {
            self.ask_about(id);
        }
        judge(id, standing, call).map_err(|why| {
            self.calls_refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(node = id, ?call, why, "a peer was refused");
            Status::permission_denied(why)
        })
    }

    /// Whether a node is a member, as this one knows it.
    pub(super) fn knows_member(&self, id: u64) -> bool {
        let is_in = |nodes: &[proto::Node]| nodes.iter().any(|node| node.id == id);
        // What is applied is cheap to look at; what is not yet applied counts as well.
        is_in(self.published.view().nodes())
            || self
                .started()
                .is_some_and(|started| is_in(&started.ring.pulse().membership.nodes))
    }

    fn standing(&self, id: u64) -> Standing {
        if self.knows_member(id) {
            return Standing::Member;
        }
        if self.published.view().used_node_ids.contains(&id) {
            return Standing::Former;
        }
        match self.hearsay.vouched(id) || self.known_members().is_empty() {
            true => Standing::Vouched,
            false => Standing::Unknown,
        }
    }

    fn known_members(&self) -> Vec<proto::Node> {
        match self.started() {
            Some(started) => started.ring.pulse().membership.nodes,
            None => Vec::new(),
        }
    }

    /// Asks the members about a node, unless that was done just now.
    fn ask_about(&self, id: u64) {
        if !self.hearsay.asks(id) {
            return;
        }
        let Some(inner) = self.weak.upgrade() else {
            return;
        };
        self.runtime.spawn(async move {
            let me = inner.node_id;
            let others = inner.known_members().into_iter();
            let others: Vec<_> = others.filter(|node| node.id != me).collect();
            if others.is_empty() {
                // The only member is behind nobody.
                return;
            }
            let mut answers = stream::iter(others)
                .map(|other| {
                    let inner = &inner;
                    async move {
                        let hello = proto::HelloRequest {
                            about: id,
                            ..proto::HelloRequest::default()
                        };
                        let asked = inner.hello(&other.peer_address, Some(other.id), hello);
                        asked.await.ok()
                    }
                })
                .buffer_unordered(ASKED_AT_ONCE);
            let mut word = Word::Nobody;
            while let Some(answer) = answers.next().await {
                match answer {
                    Some(answer) if answer.about_is_member => {
                        word = Word::Yes;
                        break;
                    }
                    Some(answer) if answer.about_is_known => word = Word::No,
                    // It does not answer, or cannot know better: it lags itself, or is of an older version.
                    _ => {}
                }
            }
            tracing::info!(node = id, ?word, "members were asked about a node");
            inner.hearsay.say(id, word);
        });
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
            allowed(Standing::Vouched),
            [true, false, true, true, false, true, false, false]
        );
        assert_eq!(
            allowed(Standing::Unknown),
            [false, false, true, true, false, true, false, false]
        );
        assert_eq!(
            allowed(Standing::Former),
            [false, false, false, true, false, false, false, false]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_asked_once_in_a_while_about_so_many() {
        let hearsay = Hearsay::default();
        assert!(hearsay.asks(7));
        assert!(!hearsay.asks(7), "the answer is awaited");
        tokio::time::advance(ASK_AGAIN).await;
        assert!(hearsay.asks(7), "it may have become one");
        hearsay.say(7, Word::Yes);
        assert!(hearsay.vouched(7) && !hearsay.vouched(8));
        assert!((100..200).filter(|id| hearsay.asks(*id)).count() < MAX_ASKED);
        assert!(!hearsay.asks(300));
        tokio::time::advance(ASK_AGAIN).await;
        assert!(hearsay.asks(300) && hearsay.vouched(7));
        // Not for ever, if nobody could tell.
        hearsay.say(300, Word::Nobody);
        assert!(hearsay.vouched(300));
        tokio::time::advance(UNSURE).await;
        assert!(!hearsay.vouched(300) && hearsay.vouched(7) && hearsay.asks(300));
    }
}
