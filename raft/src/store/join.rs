//! How a node with an empty data directory becomes a member: of a new cluster, or of one that exists.
//!
//! A new cluster is made by the member with the lowest id: it draws the cluster's id, and lets each other first member
//! in once, by the random mark of its data directory. So a member that was wiped cannot come back under its old id.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, timeout_at};
use trireme_proto::raft::{self as proto, Node, change_membership_request::Change};
use uuid::Uuid;

use super::{
    Inner, JoinError, OpenError, Store,
    membership::{AskError, UNCLAIMED, ask},
    propose::Backoff,
};
use crate::transport::never_sent;

/// How long a node looks for the others.
const PATIENCE: Duration = Duration::from_secs(60);
/// One question to one node.
const HELLO: Duration = Duration::from_secs(2);

impl Store {
    /// First start of a new cluster: all first members call this with the same members, in which `instance` stays
    /// empty. Returns once this node takes part. Nothing happens if it belongs to a cluster already.
    pub async fn bootstrap(&self, members: Vec<Node>) -> Result<(), JoinError> {
        let inner = &self.inner;
        let ids: BTreeSet<u64> = members.iter().map(|node| node.id).collect();
        if ids.len() != members.len() || ids.contains(&0) || !ids.contains(&inner.node_id) {
            return Err(JoinError::Members(inner.node_id));
        }
        let _alone = inner.joining.lock().await;
        let first = ids.first().copied().unwrap_or(inner.node_id);
        if let Some(started) = inner.started() {
            // The node that makes the cluster may have been stopped before its first entry.
            if first == inner.node_id && inner.makes_cluster().map_err(OpenError::Directory)? {
                started
                    .ring
                    .initialize(members)
                    .await
                    .map_err(OpenError::Consensus)?;
            }
            return Ok(());
        }
        if first != inner.node_id {
            return inner.be_admitted(&members, first).await;
        }
        for other in members.iter().filter(|node| node.id != inner.node_id) {
            let hello = proto::HelloRequest::default();
            if let Ok(answer) = inner
                .hello(&other.peer_address, Some(other.id), hello)
                .await
                && !answer.cluster_id.is_empty()
            {
                return Err(JoinError::AlreadyFormed {
                    node: other.id,
                    cluster_id: answer.cluster_id,
                });
            }
        }
        let cluster_id = Uuid::new_v4().to_string();
        tracing::info!(cluster_id, "making a new cluster");
        inner
            .claim_members(&members)
            .map_err(OpenError::Directory)?;
        inner.adopt(&cluster_id).map_err(OpenError::Directory)?;
        let started = inner.start_here().await?;
        let initialized = started.ring.initialize(members).await;
        Ok(initialized.map_err(OpenError::Consensus)?)
    }

    /// Joins an existing cluster as a learner, under this store's id, which must never have been used there. `seeds` are
    /// peer addresses of any members. Nothing happens if the node belongs to a cluster already.
    ///
    /// Returns once this node takes part; it is filled in the background. [`Store::promote`] makes it a voter.
    pub async fn join(&self, seeds: &[String]) -> Result<(), JoinError> {
        let inner = &self.inner;
        let _alone = inner.joining.lock().await;
        if inner.started().is_some() {
            return Ok(());
        }
        let me = Node {
            id: inner.node_id,
            peer_address: inner.peer_address.clone(),
            api_address: inner.api_address.clone(),
            instance: inner.instance.clone(),
        };
        let mut backoff = Backoff::until(Instant::now() + PATIENCE);
        let mut last = "no address was given".to_owned();
        loop {
            for seed in seeds {
                let hello = match inner
                    .hello(seed, None, proto::HelloRequest::default())
                    .await
                {
                    Ok(hello) if hello.cluster_id.is_empty() => {
                        last = format!("{seed} belongs to no cluster itself");
                        continue;
                    }
                    Ok(hello) if hello.leader_peer_address.is_empty() => {
                        last = format!("{seed} knows no leader");
                        continue;
                    }
                    Ok(hello) => hello,
                    Err(reason) => {
                        last = format!("{seed}: {reason}");
                        continue;
                    }
                };
                let leader = &hello.leader_peer_address;
                let change = Change::AddLearner(me.clone());
                let asked = timeout_at(
                    Instant::now() + inner.timing.propose,
                    ask(
                        &inner.dialer,
                        leader,
                        (hello.leader_id > 0).then_some(hello.leader_id),
                        &hello.cluster_id,
                        change,
                    ),
                );
                match asked.await {
                    Ok(Ok(())) => {
                        inner
                            .adopt(&hello.cluster_id)
                            .map_err(OpenError::Directory)?;
                        inner.start_here().await?;
                        return Ok(());
                    }
                    Ok(Err(AskError::Refused(reason))) => return Err(JoinError::Refused(reason)),
                    Ok(Err(AskError::NotLeader(other))) => {
                        last = format!(
                            "{leader} does not lead any more{}",
                            other.map_or(String::new(), |other| format!(", {other} does"))
                        );
                    }
                    Ok(Err(AskError::Unreachable(reason) | AskError::Unknown(reason))) => {
                        last = format!("{leader}: {reason}");
                    }
                    Err(_) => last = format!("{leader} does not answer"),
                }
            }
            if !backoff.wait(inner).await {
                return Err(JoinError::Unreachable {
                    waited: PATIENCE,
                    last,
                });
            }
        }
    }

    /// Whether this node belongs to a cluster.
    pub fn is_member(&self) -> bool {
        self.inner.started().is_some()
    }
}

/// What a peer said; of a connection that was not made, the innermost cause, which names the certificate at fault.
fn why(status: &tonic::Status) -> String {
    if !never_sent(status) {
        return status.message().to_owned();
    }
    let mut cause: &dyn std::error::Error = status;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl Inner {
    async fn be_admitted(&self, members: &[Node], first: u64) -> Result<(), JoinError> {
        let address = members
            .iter()
            .find(|node| node.id == first)
            .map(|node| node.peer_address.clone())
            .unwrap_or_default();
        let mut backoff = Backoff::until(Instant::now() + PATIENCE);
        let mut last;
        loop {
            let hello = proto::HelloRequest {
                node_id: self.node_id,
                bootstrap_instance: self.instance.clone(),
                ..proto::HelloRequest::default()
            };
            match self.hello(&address, Some(first), hello).await {
                Ok(answer) if answer.admitted => {
                    self.adopt(&answer.cluster_id)
                        .map_err(OpenError::Directory)?;
                    self.start_here().await?;
                    return Ok(());
                }
                Ok(answer) if !answer.refused.is_empty() => {
                    return Err(JoinError::Refused(answer.refused));
                }
                Ok(_) => last = format!("node {first} at {address} has not made the cluster yet"),
                Err(reason) => last = format!("node {first} at {address}: {reason}"),
            }
            if !backoff.wait(self).await {
                return Err(JoinError::Unreachable {
                    waited: PATIENCE,
                    last,
                });
            }
        }
    }

    /// Lets a first member in, once per id. The reason if not.
    pub(super) async fn admit(&self, id: u64, instance: String) -> Result<(), String> {
        // One answer at a time: the table is read and written.
        let _alone = self.admitting.lock().await;
        let admitted = self.directory(|directory| directory.admitted());
        let mut admitted = admitted.map_err(|error| error.to_string())?;
        match admitted.get(&id) {
            None => Err(format!(
                "node {id} is none of the first members of this cluster: let it join under a new id instead"
            )),
            Some(known) if *known == instance => Ok(()),
            Some(known) if known == UNCLAIMED => {
                admitted.insert(id, instance);
                self.directory(|directory| directory.set_admitted(&admitted))
                    .map_err(|error| error.to_string())
            }
            Some(_) => Err(format!(
                "node {id} had another data directory when the cluster was made: node ids are never reused. If it lost its \
                 disk, start it under a new id and use `trireme cluster replace {id} <new id>`"
            )),
        }
    }

    fn claim_members(&self, members: &[Node]) -> Result<(), crate::directory::DirectoryError> {
        let claims = members.iter().map(|node| {
            let mark = match node.id == self.node_id {
                true => self.instance.clone(),
                false => UNCLAIMED.to_owned(),
            };
            (node.id, mark)
        });
        let claims = claims.collect();
        self.directory(|directory| directory.set_admitted(&claims))
    }

    fn makes_cluster(&self) -> Result<bool, crate::directory::DirectoryError> {
        let admitted = self.directory(|directory| directory.admitted())?;
        Ok(!admitted.is_empty())
    }

    fn adopt(&self, cluster_id: &str) -> Result<(), crate::directory::DirectoryError> {
        self.directory(|directory| directory.adopt(cluster_id, self.node_id).map(drop))
    }

    pub(super) async fn hello(
        &self,
        address: &str,
        expected: Option<u64>,
        request: proto::HelloRequest,
    ) -> Result<proto::HelloResponse, String> {
        let client = self.dialer.shared(address, expected);
        let mut client = client.map_err(|error| error.to_string())?;
        match timeout_at(Instant::now() + HELLO, client.hello(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(why(&status)),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}
