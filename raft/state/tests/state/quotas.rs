//! What may grow, and how far.

use trireme_proto::state::{self as pb, command::Body, outcome};
use trireme_state::{FEATURE_LEVEL, State, grows, limits};

use crate::replica::command;

fn apply(state: &mut State, body: Body) -> pb::outcome::Result {
    let index = state.last_index() + 1;
    let batch = pb::Batch {
        stamp_ms: 1,
        commands: vec![command(body)],
    };
    state.apply(index, batch).outcomes[0]
        .result
        .clone()
        .unwrap()
}

/// Nearly as large as a record may be.
fn agent(number: usize) -> Body {
    Body::RegisterAgent(pb::RegisterAgent {
        agent: Some(pb::Agent {
            id: format!("agent-{number}"),
            clusters: vec!["c".repeat(1000); 800],
            ..pb::Agent::default()
        }),
    })
}

#[test]
fn bytes_of_a_kind_are_bounded_and_freed() {
    let mut state = State::new();
    let raise = Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: FEATURE_LEVEL,
    });
    apply(&mut state, raise);
    let mut put = 0;
    let refused = loop {
        match apply(&mut state, agent(put)) {
            outcome::Result::Done(_) => put += 1,
            outcome::Result::Rejected(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), pb::Rejection::ResourceExhausted);
    assert!(refused.message.starts_with("agents: "), "{refused:?}");
    let quota = |state: &State| {
        let quotas = state.quotas();
        *quotas
            .iter()
            .find(|quota| quota.kind == "agent_bytes")
            .unwrap()
    };
    let full = quota(&state);
    assert!(
        full.used <= limits::MAX_AGENTS_BYTES && full.percent() >= 98,
        "{full:?}"
    );
    let again = State::from_snapshot_rows(state.snapshot_rows()).unwrap();
    assert_eq!(again, state, "bytes follow from the records");
}

#[test]
fn a_cluster_of_the_first_release_counts_as_before() {
    let mut state = State::new();
    for number in 0..90 {
        let done = apply(&mut state, agent(number));
        assert!(
            matches!(done, outcome::Result::Done(_)),
            "{number}: {done:?}"
        );
    }
}

#[test]
fn every_quota_has_its_own_name_and_a_bound() {
    let quotas = State::new().quotas();
    let mut kinds: Vec<_> = quotas.iter().map(|quota| quota.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), quotas.len());
    assert!(
        quotas
            .iter()
            .all(|quota| quota.limit > 0 && quota.used == 0)
    );
}

#[test]
fn on_a_full_disk_things_end_but_do_not_begin() {
    let idle = pb::CommitPlans {
        idle: vec!["trigger".into()],
        ..pb::CommitPlans::default()
    };
    let planned = pb::CommitPlans {
        plans: vec![pb::PlanBody::default()],
        ..idle.clone()
    };
    let pool = |remove| Body::PutPool(pb::PutPool { pool: None, remove });
    for begins in [
        Body::CreateJobs(pb::CreateJobs::default()),
        Body::AcceptDelivery(pb::AcceptDelivery::default()),
        Body::PutBlobChunk(pb::PutBlobChunk::default()),
        Body::PutConfig(pb::PutConfig::default()),
        Body::PutConfigPage(pb::PutConfigPage::default()),
        Body::CommitPlans(planned),
        pool(false),
    ] {
        assert!(grows(&begins), "{begins:?}");
    }
    for ends in [
        Body::FinishJob(pb::FinishJob::default()),
        Body::AbortJobs(pb::AbortJobs::default()),
        Body::SweepJobs(pb::SweepJobs::default()),
        Body::SweepDeliveries(pb::SweepDeliveries::default()),
        Body::SweepBlobs(pb::SweepBlobs::default()),
        Body::SettleEffect(pb::SettleEffect::default()),
        Body::SettleReport(pb::SettleReport::default()),
        Body::SettleIntent(pb::SettleIntent::default()),
        Body::DropTimer(pb::DropTimer::default()),
        Body::TakeOffice(pb::TakeOffice::default()),
        Body::SetAlarm(pb::SetAlarm::default()),
        Body::BeginAudit(pb::BeginAudit::default()),
        Body::CommitPlans(idle),
        pool(true),
    ] {
        assert!(!grows(&ends), "{ends:?}");
    }
}

/// What the README promises is what the constants say.
#[test]
fn the_readme_says_how_long_things_are_kept() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let minutes = |ms: i64| ms / 60_000;
    let hours = |ms: i64| minutes(ms) / 60;
    let days = |ms: i64| hours(ms) / 24;
    for said in [
        format!(
            "| ids of deliveries, so that none is taken twice | after {} hours |",
            hours(limits::DELIVERY_MEMORY_MS)
        ),
        format!(
            "| answers to client requests, for retries | after {} minutes, or {} of them |",
            minutes(limits::REQUEST_MEMORY_MS),
            limits::REQUEST_MEMORY
        ),
        format!(
            "| closed pull requests | after {} days, or {} of them |",
            days(limits::CLOSED_PULL_MEMORY_MS),
            limits::CLOSED_PULL_MEMORY
        ),
        format!(
            "| settled merge intents | after {} days, or {} of them |",
            days(limits::INTENT_MEMORY_MS),
            limits::INTENT_MEMORY
        ),
        format!(
            "| configuration versions | all but the newest {} |",
            limits::CONFIG_MEMORY
        ),
        format!(
            "| blobs that nothing names | after {} minutes |",
            minutes(limits::BLOB_GRACE_MS)
        ),
        format!(
            "| lost agents | after {} hours |",
            hours(limits::LOST_AGENT_MEMORY_MS)
        ),
        format!(
            "| comparisons of the replicas | all but the newest {} |",
            limits::AUDIT_MEMORY
        ),
    ] {
        assert!(readme.contains(&said), "README.md does not say: {said}");
    }
}
