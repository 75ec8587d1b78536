//! Whether all members hold the same state, on demand.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tonic::Status;
use trireme_proto::{
    api::{CompareReplicasResponse, ComparedReplica, ReplicaAnswer},
    state::Audit,
};
use trireme_raft::{ProposeError, Store, View};

use crate::refusal::unavailable;

/// How long the members may take to say what they hold.
const ANSWERS: Duration = Duration::from_secs(10);

/// Begins a comparison and waits until every member has answered, but not for ever.
pub(super) async fn compare(store: &Store) -> Result<CompareReplicasResponse, Status> {
    let began = Instant::now();
    let index = store.begin_audit().await.map_err(|why| match why {
        ProposeError::Rejected(why) => {
            Status::failed_precondition(format!("the replicas cannot be compared: {why}"))
        }
        why => unavailable(&why),
    })?;
    let answers = async {
        let mut view = store.view();
        while !since(&view, index).any(|audit| is_answered(&view, audit)) {
            view = store.at_least(view.revision + 1).await;
        }
    };
    tokio::select! {
        _whoever_answered = timeout(ANSWERS, answers) => {}
        // This node itself differs: it stops, and has said so.
        _fatal = store.fatal() => {}
    }
    let view = store.view();
    let audit = since(&view, index)
        .max_by_key(|audit| audit.reports.len())
        .ok_or_else(|| Status::internal("the comparison is not in the log"))?;
    Ok(CompareReplicasResponse {
        audit_index: audit.index,
        agreed_digest: hex::encode(&audit.agreed),
        replicas: replicas(&view, audit),
        waited_millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// The comparison that was begun, and later ones: a member that meets two at once answers the later alone.
fn since(view: &View, index: u64) -> impl Iterator<Item = &Audit> {
    let audits = view.audits().map(AsRef::as_ref);
    audits.filter(move |audit| audit.index >= index)
}

/// Whether there is nothing more to wait for.
fn is_answered(view: &View, audit: &Audit) -> bool {
    let reported = |id: u64| audit.reports.iter().any(|report| report.node_id == id);
    view.nodes().iter().all(|node| reported(node.id))
}

fn replicas(view: &View, audit: &Audit) -> Vec<ComparedReplica> {
    let voters = view.voters();
    view.nodes()
        .iter()
        .map(|node| {
            let mut reports = audit.reports.iter();
            let report = reports.find(|report| report.node_id == node.id);
            let answer = match report {
                None => ReplicaAnswer::None,
                Some(_) if audit.agreed.is_empty() => ReplicaAnswer::Undecided,
                Some(report) if report.digest == audit.agreed => ReplicaAnswer::Equal,
                Some(_) => ReplicaAnswer::Differs,
            };
            ComparedReplica {
                node_id: node.id,
                voter: voters.contains(&node.id),
                answer: answer.into(),
                digest: report.map_or_else(String::new, |report| hex::encode(&report.digest)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use trireme_state::FEATURE_LEVEL;

    use super::*;

    async fn alone(raises_feature_level: bool) -> Store {
        crate::trio::alone(|config| {
            config.timing.hello_interval = Duration::from_millis(100);
            config.raises_feature_level = raises_feature_level;
        })
        .await
    }

    async fn until(store: &Store, fits: impl Fn(&View) -> bool) {
        let waiting = async {
            let mut view = store.view();
            while !fits(&view) {
                view = store.at_least(view.revision + 1).await;
            }
        };
        timeout(ANSWERS, waiting).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cluster_that_does_not_know_comparisons_yet_says_so() {
        let store = alone(false).await;
        let refused = compare(&store).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let message = refused.message();
        assert!(
            message.starts_with("the replicas cannot be compared: it needs feature level 2"),
            "{message}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_only_member_is_equal_to_itself() {
        let store = alone(true).await;
        until(&store, |view| view.feature_level() == FEATURE_LEVEL).await;
        // The leader begins one by itself at about the same time: whichever is answered.
        let answer = compare(&store).await.unwrap();
        let view = store.view();
        let audit = view.audit(answer.audit_index).unwrap();
        assert_eq!(answer.agreed_digest, hex::encode(&audit.agreed));
        assert_eq!(
            answer.replicas,
            [ComparedReplica {
                node_id: 1,
                voter: true,
                answer: ReplicaAnswer::Equal.into(),
                digest: answer.agreed_digest.clone(),
            }]
        );
    }
}
