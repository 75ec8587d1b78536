//! Changing who is a member. The leader decides; other nodes forward.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use trireme_proto::raft::{self as proto, Node, change_membership_request::Change};

use super::{Inner, MembershipError, Started, Store, propose::Backoff};
use crate::consensus::{ChangeError, Pulse};

/// A learner this many entries behind counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 200;
/// How long `replace` waits for the new node to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Between looks at progress that makes no event of its own.
const LOOK: Duration = Duration::from_millis(50);
/// In place of the mark of a data directory that is still to come.
pub(super) const UNCLAIMED: &str = "-";
/// Is nobody's id: in a transfer of the lead it stands for the voter that is best able to lead.
const BEST: u64 = 0;
/// A membership change, from the call to its answer.
const CHANGE: Duration = Duration::from_secs(90);

/// How the lead changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    /// None when nobody was known to lead.
    pub from: Option<u64>,
    pub to: u64,
}

impl From<ChangeError> for MembershipError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotLeader => Self::NoLeader,
            ChangeError::Refused(reason) => Self::Refused(reason),
            ChangeError::Unknown => Self::Timeout,
            ChangeError::Stopped => Self::Stopped("consensus has stopped".to_owned()),
        }
    }
}

fn refused<T>(reason: String) -> Result<T, MembershipError> {
    Err(MembershipError::Refused(reason))
}

fn node(pulse: &Pulse, id: u64) -> Option<&Node> {
    pulse.membership.nodes.iter().find(|node| node.id == id)
}

pub(super) fn voters(pulse: &Pulse) -> BTreeSet<u64> {
    let configs = pulse.membership.configs.iter();
    configs
        .flat_map(|voters| voters.node_ids.iter().copied())
        .collect()
}

fn caught_up(pulse: &Pulse, id: u64, answers: bool) -> Result<(), MembershipError> {
    if node(pulse, id).is_none() {
        return refused(format!(
            "node {id} is no member: let it join first, with `cluster.join` in its settings"
        ));
    }
    if !answers {
        return refused(format!("node {id} does not answer"));
    }
    let last = pulse.last_log.unwrap_or(0);
    let matched = pulse.matched.get(&id).copied().flatten();
    match matched {
        Some(matched) if matched + CAUGHT_UP_ENTRIES >= last => Ok(()),
        _ => refused(format!(
            "node {id} has not caught up: it has {} of {last} entries; try again later",
            matched.map_or(0, |matched| matched + 1)
        )),
    }
}

impl Inner {
    /// Makes a change on this node, which must lead.
    pub(super) async fn change_here(
        &self,
        started: &Started,
        change: Change,
    ) -> Result<(), MembershipError> {
        let pulse = started.ring.pulse();
        if pulse.seen.leader != Some(self.node_id) {
            return Err(MembershipError::NoLeader);
        }
        match change {
            Change::AddLearner(node) => self.add_learner_here(started, node).await,
            Change::Promote(id) => {
                if voters(&pulse).contains(&id) {
                    return Ok(());
                }
                self.caught_up(&pulse, id)?;
                Ok(started.ring.promote(id).await?)
            }
            Change::Remove(id) => {
                if node(&pulse, id).is_none() {
                    return Ok(());
                }
                let mut left = voters(&pulse);
                if left.remove(&id) {
                    self.quorum_of(&pulse, &left, &format!("without node {id}"))?;
                }
                Ok(started.ring.remove(id).await?)
            }
            Change::Replace(replace) => {
                let new = replace.node.unwrap_or_default();
                self.replace_here(started, replace.old_id, new).await
            }
            Change::TransferLeader(BEST) => {
                let best = self.best_voter(&pulse, |_| true)?;
                self.transfer_here(started, &pulse, best).await
            }
            Change::TransferLeader(to) => self.transfer_here(started, &pulse, to).await,
        }
    }

    async fn add_learner_here(
        &self,
        started: &Started,
        mut new: Node,
    ) -> Result<(), MembershipError> {
        // Two directories must not both find the same id free.
        let _alone = self.admitting.lock().await;
        let pulse = &started.ring.pulse();
        if new.id == 0 || new.peer_address.is_empty() {
            return refused("a node needs an id of at least 1 and a peer address".to_owned());
        }
        match node(pulse, new.id) {
            // The same directory asks again: it did not hear the answer.
            Some(known) if known.instance == new.instance && !new.instance.is_empty() => {
                return Ok(());
            }
            Some(known)
                if known.instance == UNCLAIMED && known.peer_address != new.peer_address =>
            {
                return refused(format!(
                    "node {} was added with the peer address {}, not {}: give the node that address, or `trireme cluster \
                     remove {}` and add it under a new id",
                    new.id, known.peer_address, new.peer_address, new.id
                ));
            }
            // Added before it was started: its first directory is its only one.
            Some(known) if known.instance == UNCLAIMED => {
                if !new.instance.is_empty() {
                    started.ring.set_node(new).await?;
                }
                return Ok(());
            }
            Some(_) => {
                return refused(format!(
                    "node {} is a member already, with another data directory: node ids are never reused. If it lost its disk, \
                     start it under a new id and use `trireme cluster replace {} <new id>`",
                    new.id, new.id
                ));
            }
            None => {}
        }
        if self.published.view().used_node_ids.contains(&new.id) {
            return refused(format!(
                "node id {} belonged to a former member: node ids are never reused, choose a new one",
                new.id
            ));
        }
        if let Some(other) = pulse
            .membership
            .nodes
            .iter()
            .find(|other| other.peer_address == new.peer_address)
        {
            return refused(format!(
                "node {} has the peer address {} already: remove it first",
                other.id, other.peer_address
            ));
        }
        if new.instance.is_empty() {
            new.instance = UNCLAIMED.to_owned();
        }
        Ok(started.ring.add_learner(new).await?)
    }

    async fn replace_here(
        &self,
        started: &Started,
        old: u64,
        new: Node,
    ) -> Result<(), MembershipError> {
        let mut pulse = started.ring.pulse();
        if !voters(&pulse).contains(&old) {
            // Done before, or never a voter.
            return match voters(&pulse).contains(&new.id) {
                true => Ok(()),
                false => refused(format!("node {old} is no voting member")),
            };
        }
        if voters(&pulse).contains(&new.id) {
            return refused(format!(
                "node {} votes already: in the place of node {old} comes a node that does not. To take node {old} out use \
                 `trireme cluster remove {old}`",
                new.id
            ));
        }
        if old == self.node_id {
            return refused(format!(
                "node {old} leads: transfer the lead first, then replace it"
            ));
        }
        if node(&pulse, new.id).is_none() {
            self.add_learner_here(started, new.clone()).await?;
        }
        let deadline = Instant::now() + CATCH_UP;
        loop {
            pulse = started.ring.pulse();
            match self.caught_up(&pulse, new.id) {
                Ok(()) => break,
                Err(behind) if Instant::now() >= deadline => return Err(behind),
                Err(_) => sleep(LOOK).await,
            }
        }
        let mut after = voters(&pulse);
        after.remove(&old);
        after.insert(new.id);
        self.quorum_of(
            &pulse,
            &after,
            &format!("with node {} for node {old}", new.id),
        )?;
        Ok(started.ring.replace(old, new.id).await?)
    }

    async fn transfer_here(
        &self,
        started: &Started,
        pulse: &Pulse,
        to: u64,
    ) -> Result<(), MembershipError> {
        if to == self.node_id {
            return Ok(());
        }
        if !voters(pulse).contains(&to) {
            return refused(format!("node {to} is no voting member"));
        }
        self.caught_up(pulse, to)?;
        started.ring.transfer_leader(to).await?;
        let deadline = Instant::now() + self.timing.election_max * 4;
        let mut leadership = self.leadership.subscribe();
        let led = leadership.wait_for(|leadership| leadership.leader == Some(to));
        match timeout_at(deadline, led).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => refused(format!(
                "node {to} did not take the lead in time: look at the cluster's status"
            )),
        }
    }

    /// Whether a node answers and has almost the whole log.
    pub(super) fn caught_up(&self, pulse: &Pulse, id: u64) -> Result<(), MembershipError> {
        caught_up(pulse, id, self.answers(pulse, id))
    }

    /// Who should lead when this node, which leads now, goes.
    pub(super) fn successor(&self) -> Option<u64> {
        let pulse = self.started()?.ring.pulse();
        if pulse.seen.leader != Some(self.node_id) {
            return None;
        }
        self.best_voter(&pulse, |_| true).ok()
    }

    /// The voter that has most of the log, of those that may lead, other than this node; why none is able to.
    fn best_voter(
        &self,
        pulse: &Pulse,
        may_lead: impl Fn(u64) -> bool,
    ) -> Result<u64, MembershipError> {
        let (mut best, mut unable) = (None, Vec::new());
        let others = voters(pulse).into_iter().filter(|id| *id != self.node_id);
        for id in others {
            if !may_lead(id) {
                unable.push(format!("node {id} may not"));
                continue;
            }
            match self.caught_up(pulse, id) {
                Ok(()) => {
                    let matched = pulse.matched.get(&id).copied().flatten();
                    best = best.max(Some((matched, id)));
                }
                Err(why) => unable.push(why.to_string()),
            }
        }
        match best {
            Some((_, id)) => Ok(id),
            None if unable.is_empty() => refused(format!(
                "node {} is the only voting member: nobody else can lead",
                self.node_id
            )),
            None => refused(format!("nobody else can lead now: {}", unable.join("; "))),
        }
    }

    /// Why this node must stop: it was a member, and by what it has applied it is none any more.
    pub(super) fn removal(&self) -> Option<String> {
        self.removal_of(self.node_id)
    }

    /// What to tell a node that was a member and is none any more, by what is applied here.
    pub(super) fn removal_of(&self, id: u64) -> Option<String> {
        let view = self.published.view();
        let member = view.nodes().iter().any(|node| node.id == id);
        (!member && view.used_node_ids.contains(&id)).then(|| {
            format!(
                "node {id} was removed from the cluster: do not start it again. Its data directory can be deleted; to let \
                 this machine join again, give it an empty data directory and a node id that was never used"
            )
        })
    }

    pub(super) fn answers(&self, pulse: &Pulse, id: u64) -> bool {
        let heard = pulse.heard.get(&id).copied().flatten();
        id == self.node_id || heard.is_some_and(|heard| heard < self.timing.election_max * 2)
    }

    /// Whether a majority of `after` answers.
    fn quorum_of(
        &self,
        pulse: &Pulse,
        after: &BTreeSet<u64>,
        how: &str,
    ) -> Result<(), MembershipError> {
        let silent: Vec<String> = after
            .iter()
            .filter(|id| !self.answers(pulse, **id))
            .map(u64::to_string)
            .collect();
        let answering = after.len() - silent.len();
        if answering > after.len() / 2 {
            return Ok(());
        }
        if after.is_empty() {
            return refused("the last voting member cannot be removed".to_owned());
        }
        refused(format!(
            "{how} there would be no quorum: only {answering} of {} voting members answer (silent: {})",
            after.len(),
            silent.join(", ")
        ))
    }

    /// Makes a change on whichever node leads.
    async fn change(&self, change: Change) -> Result<(), MembershipError> {
        match self.unless_closed(self.change_somewhere(change)).await {
            Some(changed) => changed,
            None => Err(MembershipError::Stopped(self.stop_reason())),
        }
    }

    async fn change_somewhere(&self, change: Change) -> Result<(), MembershipError> {
        let started = self.started().ok_or(MembershipError::NotStarted)?;
        let deadline = Instant::now() + CHANGE;
        let mut backoff = Backoff::until(Instant::now() + self.timing.propose);
        loop {
            match started.ring.seen().leader {
                Some(leader) if leader == self.node_id => {
                    let changing = self.change_here(started, change.clone());
                    match timeout_at(deadline, changing).await {
                        Err(_) => return Err(MembershipError::Timeout),
                        Ok(Err(MembershipError::NoLeader)) => {}
                        Ok(done) => return done,
                    }
                }
                Some(leader) => {
                    let asking = self.ask_change(started, leader, change.clone());
                    match timeout_at(deadline, asking).await {
                        Err(_) => return Err(MembershipError::Timeout),
                        Ok(Err(MembershipError::NoLeader)) => {}
                        Ok(done) => return done,
                    }
                }
                None => {}
            }
            if !backoff.wait(self).await {
                return Err(MembershipError::NoLeader);
            }
        }
    }

    async fn ask_change(
        &self,
        started: &Started,
        leader: u64,
        change: Change,
    ) -> Result<(), MembershipError> {
        let address = self.peer_address(started, leader);
        let address = address.ok_or(MembershipError::NoLeader)?;
        ask(
            &self.dialer,
            &address,
            Some(leader),
            &started.cluster_id,
            change,
        )
        .await
        .map_err(|error| match error {
            AskError::NotLeader(_) | AskError::Unreachable(_) => MembershipError::NoLeader,
            AskError::Unknown(_) => MembershipError::Timeout,
            AskError::Refused(reason) => MembershipError::Refused(reason),
        })
    }
}

#[derive(Debug)]
pub(super) enum AskError {
    /// Where the leader may be, if known.
    NotLeader(Option<String>),
    Unreachable(String),
    /// It may have been done.
    Unknown(String),
    Refused(String),
}

/// Asks the node at `address` for a change.
pub(super) async fn ask(
    dialer: &crate::transport::Dialer,
    address: &str,
    expected: Option<u64>,
    cluster_id: &str,
    change: Change,
) -> Result<(), AskError> {
    let unreachable = |error: tonic::transport::Error| AskError::Unreachable(error.to_string());
    let mut client = dialer.shared(address, expected).map_err(unreachable)?;
    let request = proto::ChangeMembershipRequest {
        cluster_id: cluster_id.to_owned(),
        change: Some(change),
    };
    match client.change_membership(request).await {
        Ok(response) => {
            let response = response.into_inner();
            match response.not_leader {
                Some(leader) => Err(AskError::NotLeader(
                    (!leader.peer_address.is_empty()).then_some(leader.peer_address),
                )),
                None if response.refused.is_empty() => Ok(()),
                None => Err(AskError::Refused(response.refused)),
            }
        }
        Err(status) if crate::transport::never_sent(&status) => {
            Err(AskError::Unreachable(status.to_string()))
        }
        Err(status) if status.code() == tonic::Code::PermissionDenied => {
            Err(AskError::Refused(status.message().to_owned()))
        }
        Err(status) => Err(AskError::Unknown(status.message().to_owned())),
    }
}

impl Store {
    /// Adds a node that does not vote. Usually it asks itself, see [`Store::join`]; a node without an `instance` is expected
    /// to, under this id and peer address, and the first directory that does is the node's for ever. Asking again changes
    /// nothing.
    pub async fn add_learner(&self, node: Node) -> Result<(), MembershipError> {
        self.inner.change(Change::AddLearner(node)).await
    }

    /// Makes a learner that has caught up a voter.
    pub async fn promote(&self, id: u64) -> Result<(), MembershipError> {
        self.inner.change(Change::Promote(id)).await
    }

    /// Takes a node out. Refused when no quorum would be left that answers.
    pub async fn remove(&self, id: u64) -> Result<(), MembershipError> {
        self.inner.change(Change::Remove(id)).await
    }

    /// Lets `new` vote in place of `old`, in one change, once it has caught up; adds it first if need be.
    pub async fn replace(&self, old: u64, new: Node) -> Result<(), MembershipError> {
        let replace = proto::ReplaceNode {
            old_id: old,
            node: Some(new),
        };
        self.inner.change(Change::Replace(replace)).await
    }

    /// Lets the voter that is best able to lead take the lead, whoever leads now. Any node may be asked.
    pub async fn step_down(&self) -> Result<Handover, MembershipError> {
        let started = self.inner.started().ok_or(MembershipError::NotStarted)?;
        let from = started.ring.seen().leader;
        self.inner.change(Change::TransferLeader(BEST)).await?;
        // The leader saw it happen; this node hears of it a moment later.
        let deadline = Instant::now() + self.inner.timing.election_max * 4;
        let mut leadership = self.inner.leadership.subscribe();
        let led = leadership.wait_for(|seen| seen.leader.is_some_and(|to| Some(to) != from));
        match timeout_at(deadline, led).await {
            Ok(Ok(seen)) => Ok(Handover {
                from,
                to: seen.leader.unwrap_or_default(),
            }),
            Ok(Err(_)) | Err(_) => Err(MembershipError::Timeout),
        }
    }

    /// Lets the best of the voters that may lead take the lead from this node; which one did.
    ///
    /// # Errors
    /// When this node does not lead, or none of those can; then nothing changes.
    pub async fn hand_on(&self, may_lead: impl Fn(u64) -> bool) -> Result<u64, MembershipError> {
        let started = self.inner.started().ok_or(MembershipError::NotStarted)?;
        let to = self.inner.best_voter(&started.ring.pulse(), may_lead)?;
        let changing = self.inner.change_here(started, Change::TransferLeader(to));
        let changed = timeout_at(Instant::now() + CHANGE, changing);
        match self.inner.unless_closed(changed).await {
            Some(Ok(done)) => done.map(|()| to),
            Some(Err(_)) => Err(MembershipError::Timeout),
            None => Err(MembershipError::Stopped(self.inner.stop_reason())),
        }
    }

    /// Lets `to`, a voter that has caught up, take the lead.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), MembershipError> {
        self.inner.change(Change::TransferLeader(to)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_caught_up_when_it_lacks_few_entries_and_answers() {
        let pulse = |matched| Pulse {
            last_log: Some(1000),
            membership: proto::Membership {
                nodes: vec![Node {
                    id: 2,
                    ..Node::default()
                }],
                ..proto::Membership::default()
            },
            matched: [(2, matched)].into(),
            ..Pulse::default()
        };
        let told = |matched, id, answers| match caught_up(&pulse(matched), id, answers) {
            Ok(()) => String::new(),
            Err(why) => why.to_string(),
        };
        assert_eq!(told(Some(800), 2, true), "");
        insta::assert_snapshot!(told(Some(799), 2, true), @"node 2 has not caught up: it has 800 of 1000 entries; try again later");
        insta::assert_snapshot!(told(None, 2, true), @"node 2 has not caught up: it has 0 of 1000 entries; try again later");
        insta::assert_snapshot!(told(Some(1000), 2, false), @"node 2 does not answer");
        insta::assert_snapshot!(told(Some(1000), 3, true), @"node 3 is no member: let it join first, with `cluster.join` in its settings");
    }
}
