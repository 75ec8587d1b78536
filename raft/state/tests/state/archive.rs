//! What leaves memory is found in the archive, in the order in which it is read.

use prost::Message as _;
use trireme_proto::state::{self as pb, JobState, command::Body};
use trireme_state::{archive_keys as keys, arrival, seq_of};

use crate::replica::{
    Replica, accept, comment, commit, create, finish, lease, plan, presubmit, register,
    settle_effect, settle_report,
};

/// Records under a prefix, in key order.
fn read(replica: &Replica, prefix: keys::Key) -> Vec<bytes::Bytes> {
    let prefix = prefix.prefix();
    let rows = replica
        .archive
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, value)| (&key[..], &value[..]));
    keys::join(rows)
        .expect("whole records")
        .into_iter()
        .map(|(_, record)| record)
        .collect()
}

#[test]
fn a_swept_run_is_found_by_id_in_histories_and_whole() {
    let mut replica = Replica::new();
    let incarnation = replica.done(register("agent", 0)).token;
    let mut jobs = Vec::new();
    for id in ["a", "b"] {
        let mut job = presubmit(id, "unit", 1, "head");
        job.prowjob = vec![b'x'; 200 << 10].into();
        replica.done(create([job]));
        let fence = replica
            .done(Body::LeaseJob(lease(id, "agent", incarnation)))
            .token;
        replica.done(finish(id, fence, JobState::Success));
        replica.done(Body::SettleReport(settle_report(
            id,
            "github-reporter",
            JobState::Success,
        )));
        jobs.push(replica.job(id).clone());
    }
    replica.done(Body::SweepJobs(pb::SweepJobs {
        ids: vec!["a".into(), "b".into()],
    }));
    let stored = read(&replica, keys::job("a"));
    assert_eq!(pb::Job::decode(&stored[0][..]).unwrap(), jobs[0]);
    for histories in [
        keys::Key::new(keys::RUN),
        keys::runs_of_job("unit"),
        keys::runs_of_pull("org", "repo", 1),
    ] {
        let runs: Vec<_> = read(&replica, histories)
            .iter()
            .map(|record| pb::RunSummary::decode(&record[..]).unwrap())
            .collect();
        let ids: Vec<_> = runs.iter().map(|run| run.job_id.as_str()).collect();
        assert_eq!(ids, ["b", "a"], "newest first");
        assert_eq!(runs[1], trireme_state::run_summary(&jobs[0]));
    }
    assert_eq!(read(&replica, keys::run(seq_of(&jobs[1]))).len(), 1);
    assert!(read(&replica, keys::runs_of_job("uni")).is_empty());
}

#[test]
fn a_swept_delivery_is_found_by_guid_and_in_order_with_its_plans() {
    let mut replica = Replica::new();
    let mut stored = Vec::new();
    for guid in ["g", "h"] {
        replica.done(accept(guid));
        let plans = vec![plan("lgtm", vec![comment("hello")])];
        replica.done(Body::CommitPlans(commit(guid, &["lgtm"], plans, &[])));
        replica.done(settle_effect(guid, "lgtm", 0, pb::EffectState::Done));
        stored.push((**replica.state.delivery(guid).unwrap()).clone());
    }
    replica.done(Body::SweepDeliveries(pb::SweepDeliveries {
        guids: vec!["g".into(), "h".into()],
    }));
    let one = read(&replica, keys::delivery("g"));
    assert_eq!(pb::Delivery::decode(&one[0][..]).unwrap(), stored[0]);
    let order: Vec<_> = read(&replica, keys::Key::new(keys::DELIVERY_IN_ORDER))
        .iter()
        .map(|record| pb::Delivery::decode(&record[..]).unwrap())
        .collect();
    assert_eq!(
        order
            .iter()
            .map(|delivery| &delivery.guid)
            .collect::<Vec<_>>(),
        ["h", "g"]
    );
    assert!(
        order
            .iter()
            .all(|delivery| delivery.payload_zstd.is_empty())
    );
    assert_eq!(
        read(&replica, keys::delivery_in_order(arrival(&stored[0]))).len(),
        1
    );
    let plans = read(&replica, keys::plans_of("g"));
    assert_eq!(pb::Plan::decode(&plans[0][..]).unwrap().effects.len(), 1);
}
