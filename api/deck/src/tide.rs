//! Tide's pools and merges.

use askama::Template;
use axum::{extract::State, response::Response};
use trireme_proto::state::{IntentState, MergeIntent, MergePool, PoolAction, PoolPull};

use crate::{Deck, html, instant, short};

/// Merges on the page.
const MAX_INTENTS: usize = 100;

struct Pull {
    number: u64,
    title: String,
    author: String,
    tests: &'static str,
    class: &'static str,
    reason: String,
}

struct Pool {
    name: String,
    action: &'static str,
    target: String,
    base: String,
    error: String,
    blockers: Vec<String>,
    pulls: Vec<Pull>,
}

struct Intent {
    about: String,
    head: String,
    state: &'static str,
    class: &'static str,
    commit: String,
    batch: String,
    when: String,
    message: String,
}

#[derive(Template)]
#[template(path = "tide.html")]
struct Page {
    page: &'static str,
    revision: u64,
    node: u64,
    pools: Vec<Pool>,
    intents: Vec<Intent>,
}

fn list(numbers: impl Iterator<Item = u64>) -> String {
    numbers
        .map(|number| format!("#{number}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn pool(pool: &MergePool) -> Pool {
    let batch: Vec<u64> = pool.batch_pending.iter().map(|pull| pull.number).collect();
    let row = |pull: &PoolPull, tests, class| Pull {
        number: pull.number,
        title: pull.title.clone(),
        author: pull.author.clone(),
        tests: if batch.contains(&pull.number) {
            "in a batch"
        } else {
            tests
        },
        class: if batch.contains(&pull.number) {
            "pending"
        } else {
            class
        },
        reason: pull.reason.clone(),
    };
    let mut pulls: Vec<Pull> = pool
        .success
        .iter()
        .map(|pull| row(pull, "passed", "success"))
        .chain(
            pool.pending
                .iter()
                .map(|pull| row(pull, "running", "pending")),
        )
        .chain(
            pool.missing
                .iter()
                .map(|pull| row(pull, "missing", "triggered")),
        )
        .collect();
    pulls.sort_by_key(|pull| pull.number);
    Pool {
        name: format!("{}/{}:{}", pool.org, pool.repo, pool.branch),
        action: match pool.action() {
            PoolAction::Unspecified => "No decision yet",
            PoolAction::Wait => "Waiting",
            PoolAction::Trigger => "Testing",
            PoolAction::TriggerBatch => "Testing a batch",
            PoolAction::Merge => "Merging",
            PoolAction::MergeBatch => "Merging a batch",
            PoolAction::Blocked => "Blocked",
        },
        target: list(pool.target.iter().map(|pull| pull.number)),
        base: short(&pool.base_sha),
        error: pool.error.clone(),
        blockers: pool.blockers.clone(),
        pulls,
    }
}

fn intent(intent: &MergeIntent) -> Intent {
    let (state, class) = match intent.state() {
        IntentState::Unspecified | IntentState::Open => ("open", "open"),
        IntentState::Merged => ("merged", "merged"),
        IntentState::Refused => ("refused", "refused"),
        IntentState::Observed => ("merged, observed", "merged"),
        IntentState::Withdrawn => ("withdrawn", "withdrawn"),
    };
    Intent {
        about: format!("{}/{}#{}", intent.org, intent.repo, intent.number),
        head: short(&intent.head_sha),
        state,
        class,
        commit: short(&intent.merge_sha),
        batch: list(intent.batch.iter().copied()),
        when: instant(intent.opened_ms),
        message: intent.message.clone(),
    }
}

pub(crate) async fn page(State(deck): State<Deck>) -> Response {
    let view = deck.store.view();
    let mut intents: Vec<_> = view.intents().collect();
    intents.sort_by_key(|intent| std::cmp::Reverse(intent.opened_ms));
    html(&Page {
        page: "tide",
        revision: view.revision,
        node: deck.store.node_id(),
        pools: view.pools().map(|record| pool(record)).collect(),
        intents: intents
            .into_iter()
            .take(MAX_INTENTS)
            .map(|record| intent(record))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_request_under_a_batch_says_so() {
        let pull = |number| PoolPull {
            number,
            ..PoolPull::default()
        };
        let shown = pool(&MergePool {
            success: vec![pull(2)],
            pending: vec![pull(1)],
            batch_pending: vec![pull(2)],
            ..MergePool::default()
        });
        let tests: Vec<_> = shown
            .pulls
            .iter()
            .map(|pull| (pull.number, pull.tests))
            .collect();
        assert_eq!(tests, [(1, "running"), (2, "in a batch")]);
    }
}
