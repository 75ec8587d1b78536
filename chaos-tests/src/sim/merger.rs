//! A controller in place of Tide, which needs git: it merges every open pull request of the mirror, by Tide's rules of
//! safety. The intent is committed before the call; the office is made sure of in between; an intent whose call may still
//! be under way is only observed until nothing can come of it any more.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;
use trireme_office::{Controller, ControllerError, Office, OfficeError};
use trireme_proto::state::{
    IntentState, MergeIntent, OpenIntent, PullRequest, PutPullRequests, SettleIntent, command::Body,
};
use trireme_raft::WatchError;

use super::forge::{BRANCH, Forge, NotMerged, ORG, REPO};

/// A merge call that was sent within [`SOON`] after its intent has landed by then, if ever.
const IN_FLIGHT: Duration = Duration::from_secs(15);
/// An intent older than this is not followed by a call: the call could come too late.
const SOON: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Merger(pub(crate) Forge);

#[async_trait]
impl Controller for Merger {
    fn name(&self) -> &'static str {
        "merger"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let resigned = office.resigned();
        while !resigned.is_cancelled() {
            let view = office.view();
            let mut watch = office.watch(view.revision);
            let mut waits = false;
            for intent in view.intents() {
                if intent.state() == IntentState::Open {
                    waits |= !self.observe(&office, intent).await?;
                }
            }
            let pulls = view.pull_requests(ORG, REPO).filter(|pull| pull.open);
            for pull in pulls {
                waits |= !self.merge(&office, pull).await?;
            }
            let pause = async {
                match waits {
                    true => sleep(PAUSE).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = resigned.cancelled() => return Ok(()),
                next = watch.next() => if let Err(WatchError::Closed) = next { return Ok(()) },
                () = pause => {}
            }
        }
        Ok(())
    }
}

fn since(office: &Office, intent: &MergeIntent) -> Duration {
    let passed = office.now_ms().saturating_sub(intent.opened_ms);
    Duration::from_millis(u64::try_from(passed).unwrap_or(0))
}

impl Merger {
    /// False when it must be looked at again.
    async fn observe(&self, office: &Office, intent: &MergeIntent) -> Result<bool, OfficeError> {
        match self.0.merged_by(intent.number).await {
            None => Ok(false),
            Some(Some(commit)) => {
                self.settle(office, intent, IntentState::Observed, &commit)
                    .await?;
                Ok(true)
            }
            Some(None) if since(office, intent) < IN_FLIGHT => Ok(false),
            // The next look opens another intent.
            Some(None) => {
                self.settle(office, intent, IntentState::Refused, "")
                    .await?;
                Ok(true)
            }
        }
    }

    async fn merge(&self, office: &Office, pull: &PullRequest) -> Result<bool, OfficeError> {
        let view = office.view();
        let former = view.intents_of(ORG, REPO, pull.number);
        let former: Vec<&MergeIntent> = former.map(|intent| &**intent).collect();
        if former
            .iter()
            .any(|intent| intent.state() == IntentState::Open)
        {
            return Ok(false);
        }
        let done = former
            .iter()
            .find(|intent| matches!(intent.state(), IntentState::Merged | IntentState::Observed));
        if let Some(done) = done {
            // Its holder left before it could say so in the mirror.
            self.close(office, done).await?;
            return Ok(true);
        }
        let attempt = former.len().to_string();
        let number = pull.number.to_string();
        let parts = [number.as_str(), &pull.head_sha, &attempt];
        let id = trireme_state::ids::derived_id("simulated-merge", &parts);
        let intent = MergeIntent {
            id: id.clone(),
            org: ORG.to_owned(),
            repo: REPO.to_owned(),
            branch: BRANCH.to_owned(),
            number: pull.number,
            head_sha: pull.head_sha.clone(),
            method: "merge".to_owned(),
            ..MergeIntent::default()
        };
        let opened = office
            .propose(Body::OpenIntent(OpenIntent {
                intent: Some(intent),
            }))
            .await;
        match opened {
            Ok(_) => {}
            Err(error) if error.is_conflict() => return Ok(false),
            Err(error) => return Err(error),
        }
        let Some(intent) = office.view().intent(&id).cloned() else {
            return Ok(false);
        };
        if intent.state() != IntentState::Open || since(office, &intent) > SOON {
            return Ok(false);
        }
        office.assert_held().await?;
        if since(office, &intent) > SOON {
            return Ok(false);
        }
        match self
            .0
            .merge(office.node_id(), pull.number, &pull.head_sha)
            .await
        {
            Ok(commit) => {
                self.settle(office, &intent, IntentState::Merged, &commit)
                    .await?;
                Ok(true)
            }
            Err(NotMerged::Refused(_) | NotMerged::Unknown) => Ok(false),
        }
    }

    async fn settle(
        &self,
        office: &Office,
        intent: &MergeIntent,
        state: IntentState,
        commit: &str,
    ) -> Result<(), OfficeError> {
        let settle = Body::SettleIntent(SettleIntent {
            id: intent.id.clone(),
            state: state.into(),
            merge_sha: commit.to_owned(),
            ..SettleIntent::default()
        });
        conflict_is_fine(office.propose(settle).await)?;
        match state {
            IntentState::Merged | IntentState::Observed => self.close(office, intent).await,
            _ => Ok(()),
        }
    }

    /// The mirror says that it is merged.
    async fn close(&self, office: &Office, intent: &MergeIntent) -> Result<(), OfficeError> {
        let view = office.view();
        let Some(pull) = view.pull_request(ORG, REPO, intent.number) else {
            return Ok(());
        };
        let put = Body::PutPullRequests(PutPullRequests {
            pull_requests: vec![PullRequest {
                open: false,
                merged: true,
                updated_ms: pull.updated_ms + 1,
                ..PullRequest::clone(pull)
            }],
            contexts: Vec::new(),
        });
        conflict_is_fine(office.propose(put).await)
    }
}

fn conflict_is_fine<T>(told: Result<T, OfficeError>) -> Result<(), OfficeError> {
    match told {
        Err(error) if !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
