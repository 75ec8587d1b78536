//! Audits: who has another state than the majority, and what then happens.

use trireme_proto::state::{self as pb, Rejection, command::Body};
use trireme_state::{FEATURE_LEVEL, limits::AUDIT_MEMORY};

use crate::replica::{Replica, code};

fn replica() -> Replica {
    let mut replica = Replica::new();
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: FEATURE_LEVEL,
    }));
    replica
}

fn begin(voters: &[u64]) -> Body {
    Body::BeginAudit(pb::BeginAudit {
        voters: voters.to_vec(),
    })
}

fn report(node_id: u64, audit_index: u64, digest: u8) -> Body {
    Body::ReportDigest(pb::ReportDigest {
        node_id,
        audit_index,
        digest: vec![digest; 32].into(),
    })
}

fn alarms(replica: &Replica) -> Vec<String> {
    replica
        .state
        .alarms()
        .map(|alarm| alarm.key.clone())
        .collect()
}

#[test]
fn a_node_that_differs_from_the_majority_is_named_until_it_is_equal_again() {
    let mut replica = replica();
    let first = replica.done(begin(&[1, 2, 3])).token;
    replica.done(report(2, first, 9));
    replica.done(report(1, first, 7));
    assert!(alarms(&replica).is_empty(), "one against one says nothing");
    replica.done(report(3, first, 7));
    let audit = replica.state.audit(first).unwrap();
    assert_eq!(
        (&audit.agreed[..], &audit.diverged[..]),
        (&[7; 32][..], &[2][..])
    );
    assert_eq!(alarms(&replica), ["diverged/node-2"]);
    let alarm = replica.state.alarm("diverged/node-2").unwrap();
    assert_eq!(alarm.node_id, 2);
    insta::assert_snapshot!(alarm.message, @"node 2's state differed from the majority's at entry 12. It stops, and fetches the state from another node when it is started again; the alarm goes when a later audit finds it equal. If it comes back, suspect the machine's memory and replace the node");

    let second = replica.done(begin(&[1, 2, 3])).token;
    replica.done(report(1, second, 8));
    replica.done(report(3, second, 8));
    assert_eq!(alarms(&replica), ["diverged/node-2"]);
    replica.done(report(2, second, 8));
    assert!(alarms(&replica).is_empty());
}

#[test]
fn a_learner_is_compared_but_has_no_vote() {
    let mut replica = replica();
    let audit = replica.done(begin(&[1])).token;
    replica.done(report(4, audit, 9));
    assert!(replica.state.audit(audit).unwrap().agreed.is_empty());
    replica.done(report(1, audit, 7));
    assert_eq!(alarms(&replica), ["diverged/node-4"]);
}

#[test]
fn voters_that_all_differ_are_left_to_people() {
    let mut replica = replica();
    let first = replica.done(begin(&[1, 2])).token;
    replica.done(report(1, first, 7));
    replica.done(report(2, first, 9));
    assert_eq!(alarms(&replica), ["diverged/cluster"]);
    let second = replica.done(begin(&[1, 2])).token;
    replica.done(report(1, second, 7));
    replica.done(report(2, second, 7));
    assert!(alarms(&replica).is_empty());
}

#[test]
fn what_is_no_report_is_refused_and_rounds_are_bounded() {
    let mut replica = replica();
    assert_eq!(replica.refused(begin(&[])), Rejection::Invalid);
    assert_eq!(replica.refused(begin(&[1, 1])), Rejection::Invalid);
    assert_eq!(replica.refused(report(1, 1, 7)), Rejection::NotFound);
    let audit = replica.done(begin(&[1, 2, 3])).token;
    assert_eq!(replica.refused(report(0, audit, 7)), Rejection::Invalid);
    let short = Body::ReportDigest(pb::ReportDigest {
        node_id: 1,
        audit_index: audit,
        digest: vec![1].into(),
    });
    assert_eq!(replica.refused(short), Rejection::Invalid);
    replica.done(report(1, audit, 7));
    assert!(replica.done(report(1, audit, 7)).duplicate);
    assert_eq!(code(replica.run(report(1, audit, 8))), Rejection::Conflict);
    for _ in 0..AUDIT_MEMORY {
        replica.done(begin(&[1, 2, 3]));
    }
    assert_eq!(replica.state.audits().count(), AUDIT_MEMORY);
    assert_eq!(replica.refused(report(2, audit, 7)), Rejection::NotFound);
}

#[test]
fn a_cluster_of_the_first_release_holds_no_audit() {
    let mut replica = Replica::new();
    assert_eq!(replica.refused(begin(&[1])), Rejection::Conflict);
}
