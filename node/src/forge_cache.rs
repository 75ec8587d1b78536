//! Webhooks tell the client for GitHub what of its cache is in doubt (GHC-050), and a start tells what its app lacks
//! (GHC-024).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use trireme_forge::{RepoId, github::GitHub};
use trireme_proto::state::DeliveryState;
use trireme_raft::{Store, WatchError};
use trireme_state::Change;

/// Follows what arrives, on any node of the cluster, until it is stopped.
pub(crate) async fn follow(store: Store, github: Arc<GitHub>, stop: CancellationToken) {
    loop {
        let mut watch = store.watch(None);
        // Whatever came before, or was missed.
        github.invalidate_all();
        loop {
            let changes = tokio::select! {
                () = stop.cancelled() => return,
                changes = watch.next() => changes,
            };
            match changes {
                Ok(batch) => batch
                    .changes
                    .iter()
                    .filter_map(told_of)
                    .for_each(|(repo, number)| github.invalidate(&repo, number)),
                Err(WatchError::Compacted | WatchError::Lagging) => break,
                Err(WatchError::Closed) => return,
            }
        }
    }
}

/// What a change of the state tells of: the repository and, where it is about one, the issue or pull request.
fn told_of(change: &Change) -> Option<(RepoId, Option<u64>)> {
    let Change::Delivery(delivery) = change else {
        return None;
    };
    // Later states of a delivery are our own doing.
    if delivery.state() != DeliveryState::Received || delivery.repo.is_empty() {
        return None;
    }
    let repo = RepoId::new(delivery.org.clone(), delivery.repo.clone());
    Some((repo, (delivery.number > 0).then_some(delivery.number)))
}

/// Looks at the installations of our apps once, and tells what they lack. That GitHub cannot be asked now is no reason
/// not to start.
pub(crate) async fn tell_gaps(github: Arc<GitHub>, stop: CancellationToken) {
    let gaps = tokio::select! {
        () = stop.cancelled() => return,
        gaps = github.installation_gaps() => gaps,
    };
    match gaps {
        Ok(gaps) => {
            for gap in gaps {
                tracing::warn!(
                    host = gap.host,
                    org = gap.org,
                    suspended = gap.suspended,
                    permissions = gap.permissions.join(", "),
                    events = gap.events.join(", "),
                    "the GitHub App's installation lacks what Prow's plugins need: give it in the App's settings and have the \
                     organisation accept it"
                );
            }
        }
        Err(why) => tracing::warn!(%why, "the GitHub App's installations could not be looked at"),
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::Delivery;

    use super::*;

    #[test]
    fn ghc_050_a_webhook_says_what_is_in_doubt() {
        let told = |repo: &str, number: u64, state: DeliveryState| {
            told_of(&Change::Delivery(Arc::new(Delivery {
                org: "org".into(),
                repo: repo.into(),
                number,
                state: state.into(),
                ..Delivery::default()
            })))
        };
        let repo = RepoId::new("org", "repo");
        assert_eq!(
            told("repo", 7, DeliveryState::Received),
            Some((repo.clone(), Some(7)))
        );
        assert_eq!(told("repo", 0, DeliveryState::Received), Some((repo, None)));
        assert_eq!(told("", 0, DeliveryState::Received), None);
        assert_eq!(told("repo", 7, DeliveryState::Planned), None);
    }
}
