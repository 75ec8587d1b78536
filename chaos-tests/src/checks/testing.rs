//! A good history in which tests plant bugs.

use trireme_proto::state::{
    Change, ChangeBatch, Delivery, DeliveryState, Effect, EffectState, IntentState, Job, JobState,
    MergeIntent, Plan, Pull, change::Record,
};

use super::judge;
use crate::{
    DigestAt, History, Last, Merged, Sent, Watched,
    registers::{ABORTED, Asked, CREATED, Outcome, Verb},
};

pub(super) fn batch(revision: u64, records: impl IntoIterator<Item = Record>) -> ChangeBatch {
    let change = |record| Change {
        removed: false,
        record: Some(record),
    };
    ChangeBatch {
        revision,
        stamp_ms: i64::try_from(revision).unwrap() * 1000,
        changes: records.into_iter().map(change).collect(),
    }
}

/// Shows it to every follower.
pub(super) fn show(history: &mut History, batch: ChangeBatch) {
    for watched in &mut history.watched {
        watched.batches.push(batch.clone());
    }
}

/// One register, created at one node, read at another, aborted, and read again.
fn asked() -> Vec<Asked> {
    let ask = |time: u64, node, verb, revision, seen| Asked {
        client: node,
        node,
        key: "r1".to_owned(),
        verb,
        calls: 1,
        called_ns: time * 1000,
        returned_ns: time * 1000 + 500,
        outcome: Outcome::Done { revision, seen },
    };
    vec![
        ask(1, 1, Verb::Create, 10, None),
        ask(2, 2, Verb::ReadAtLeast { revision: 10 }, 10, Some(CREATED)),
        ask(3, 3, Verb::Abort, 12, None),
        ask(4, 2, Verb::Read, 12, Some(ABORTED)),
    ]
}

/// All that is found, as text.
pub(super) fn judged(history: &History) -> String {
    let found = judge(history);
    found
        .iter()
        .map(|violation| format!("{violation}\n"))
        .collect()
}

/// One delivery, whose plan makes one job and one write; the job succeeds and its pull request is merged.
pub(super) fn good() -> History {
    let mut received = Delivery {
        guid: "g1".to_owned(),
        event: "pull_request".to_owned(),
        revision: 2,
        version: 2,
        ..Delivery::default()
    };
    received.set_state(DeliveryState::Received);
    let mut planned = Delivery {
        plugins: vec!["trigger".to_owned()],
        version: 3,
        ..received.clone()
    };
    planned.set_state(DeliveryState::Planned);
    let mut handled = Delivery {
        settled: vec!["trigger".to_owned()],
        version: 5,
        ..planned.clone()
    };
    handled.set_state(DeliveryState::Handled);

    let mut waiting = Effect::default();
    waiting.set_state(EffectState::Waiting);
    let mut done = Effect::default();
    done.set_state(EffectState::Done);
    let plan = Plan {
        guid: "g1".to_owned(),
        plugin: "trigger".to_owned(),
        planned_ms: 4000,
        jobs: vec!["j1".to_owned()],
        effects: vec![waiting],
        ..Plan::default()
    };
    let carried_out = Plan {
        effects: vec![done],
        ..plan.clone()
    };

    let mut triggered = Job {
        id: "j1".to_owned(),
        job: "unit".to_owned(),
        origin: "g1".to_owned(),
        created_revision: 4,
        version: 4,
        pulls: vec![Pull {
            number: 1,
            head_sha: "h1".to_owned(),
            ..Pull::default()
        }],
        ..Job::default()
    };
    triggered.set_state(JobState::Triggered);
    let mut pending = Job {
        build_id: "7".to_owned(),
        version: 5,
        ..triggered.clone()
    };
    pending.set_state(JobState::Pending);
    let mut success = Job {
        completed_ms: 6000,
        version: 6,
        ..pending.clone()
    };
    success.set_state(JobState::Success);

    let mut open = MergeIntent {
        id: "i1".to_owned(),
        number: 1,
        head_sha: "h1".to_owned(),
        ..MergeIntent::default()
    };
    open.set_state(IntentState::Open);
    let mut merged = open.clone();
    merged.set_state(IntentState::Merged);

    let batches = vec![
        batch(2, [Record::Delivery(received)]),
        batch(3, [Record::Delivery(planned)]),
        batch(4, [Record::Plan(plan), Record::Job(triggered)]),
        batch(
            5,
            [
                Record::Job(pending),
                Record::Plan(carried_out.clone()),
                Record::Delivery(handled.clone()),
            ],
        ),
        batch(6, [Record::Job(success.clone())]),
        batch(7, [Record::Intent(open)]),
        batch(8, [Record::Intent(merged.clone())]),
    ];
    let watched = |name: &str| Watched {
        name: name.to_owned(),
        batches: batches.clone(),
        breaks: Vec::new(),
    };
    let digest = |node| DigestAt {
        node,
        revision: 9,
        digest: "d".to_owned(),
    };
    History {
        watched: vec![watched("1"), watched("2")],
        sent: vec![Sent {
            guid: "g1".to_owned(),
            event: "pull_request".to_owned(),
            status: 200,
            redelivery: false,
            at_ms: 2000,
        }],
        merged: vec![Merged {
            number: 1,
            head_sha: "h1".to_owned(),
            commit: "c1".to_owned(),
        }],
        merge_calls: 1,
        last: Last {
            jobs: vec![success],
            deliveries: vec![handled],
            plans: vec![carried_out],
            intents: vec![merged],
        },
        digests: vec![digest(1), digest(2), digest(3)],
        asked: asked(),
        nodes: vec![1, 2, 3],
    }
}
