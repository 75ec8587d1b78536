//! Carrying out merges: each under an intent that the state holds before the forge is asked (section 9 of the
//! checklist, TIDE-152 … TIDE-167).

use std::time::Duration;

use tokio::time::{sleep, timeout};
use trireme_forge::{
    CommitStatus, ForgeError, MergeError, MergeMethod, MergeRequest, Merged,
    PullRequest as ForgePull, Refusal, StatusState,
};
use trireme_office::Work;
use trireme_proto::state::{
    IntentState, MergeIntent, OpenIntent, PullRequest, PutPullRequests, SettleIntent, command::Body,
};
use trireme_state::ids;

use crate::{
    facts,
    hold::refusal,
    merging, mirror,
    pool::{Member, PoolKey},
    pull::{Pull, TIDE_CONTEXT},
    query,
    session::{PullKey, Session, Trouble},
    sync::{Scene, sooner},
};

/// Looks at a branch until it shows our own last merge, which the forge may tell with some delay.
const BASE_LOOKS: usize = 5;
/// Merges of one head whose answer was lost, until it counts as a refusal.
const MAX_LOST: usize = 3;
/// How the message of such an intent begins.
const LOST: &str = "no merge was seen";

/// What an action has come to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Something happened that makes another look worthwhile.
    pub(crate) changed: bool,
    /// For people; empty if all is well.
    pub(crate) error: String,
    /// When to go on, where that is not up to the next change.
    pub(crate) next: Option<Work>,
}

/// What became of one pull request.
enum One {
    Merged {
        sha: String,
    },
    /// Not merged, for a reason that people see.
    Refused(String),
    /// It is not what was decided about any more: look again.
    Stale(String),
    /// Not now.
    Paused(Work),
}

impl Session {
    /// Merges them one after the other. A batch ends with the first that does not merge: what follows was tested on
    /// top of it (TIDE-158).
    pub(crate) async fn merge_all(
        &self,
        scene: &Scene<'_>,
        numbers: &[u64],
    ) -> Result<Outcome, Trouble> {
        let mut outcome = Outcome::default();
        let mut merged: Vec<u64> = Vec::new();
        let mut bases = vec![scene.pool.base_sha.clone()];
        for number in numbers {
            let Some(member) = scene.pool.member(*number) else {
                break;
            };
            if !merged.is_empty() {
                sleep(self.timing.merge_pause).await;
            }
            let batch = match &scene.interrupted {
                Some(interrupted) => &interrupted.batch,
                None => numbers,
            };
            match self.merge_one(scene, member, batch, &bases).await? {
                One::Merged { sha } => {
                    tracing::info!(pool = %scene.pool.key, number, %sha, "merged");
                    outcome.changed = true;
                    merged.push(*number);
                    bases.push(sha);
                }
                One::Refused(why) => {
                    tracing::warn!(pool = %scene.pool.key, number, %why, "not merged");
                    outcome.changed = true;
                    outcome.error = failure(numbers, &merged, *number, &why);
                    break;
                }
                One::Stale(why) => {
                    tracing::info!(pool = %scene.pool.key, number, %why, "looking again before merging");
                    outcome.changed = true;
                    break;
                }
                One::Paused(work) => {
                    outcome.next = Some(work);
                    break;
                }
            }
        }
        Ok(outcome)
    }

    async fn merge_one(
        &self,
        scene: &Scene<'_>,
        member: &Member,
        batch: &[u64],
        bases: &[String],
    ) -> Result<One, Trouble> {
        let pull = &member.pull;
        if let Some(why) = self.is_stale(scene, pull, bases).await? {
            return Ok(One::Stale(why));
        }
        let Some(method) = scene.rules.method(pull) else {
            let why = format!(
                "multiple merge method labels found for {}#{}",
                pull.full_repo(),
                pull.number
            );
            return Ok(One::Refused(why));
        };
        // Branch protection may ask for it.
        if let Err(trouble) = self.set_tide_success(scene, pull).await {
            tracing::error!(pool = %scene.pool.key, number = pull.number, why = %trouble, "cannot set the tide status");
            return match Work::from(trouble) {
                Work::Retry(_) => Ok(One::Refused("merge error (contact Prow admin)".to_owned())),
                work => Ok(One::Paused(work)),
            };
        }
        let intent = self.intent(scene, pull, method, batch, bases);
        match self
            .office
            .propose(Body::OpenIntent(OpenIntent {
                intent: Some(intent.clone()),
            }))
            .await
        {
            Ok(_) => {}
            Err(why) if why.is_conflict() => return Ok(One::Stale(why.to_string())),
            Err(why) => return Err(why.into()),
        }
        self.carry_out(scene, pull, method, &intent).await
    }

    fn intent(
        &self,
        scene: &Scene<'_>,
        pull: &Pull,
        method: MergeMethod,
        batch: &[u64],
        bases: &[String],
    ) -> MergeIntent {
        let base_sha = bases.last().cloned().unwrap_or_default();
        let view = self.office.view();
        let former = view
            .intents_of(&pull.org, &pull.repo, pull.number)
            .filter(|intent| intent.head_sha == pull.head_sha && intent.base_sha == base_sha)
            .count();
        let attempt = u32::try_from(former).unwrap_or(u32::MAX);
        let (title, message) = scene.rules.commit_texts(pull);
        MergeIntent {
            id: ids::intent_id(
                &pull.org,
                &pull.repo,
                pull.number,
                &pull.head_sha,
                &base_sha,
                attempt,
            ),
            org: pull.org.clone(),
            repo: pull.repo.clone(),
            branch: scene.pool.key.branch.clone(),
            number: pull.number,
            head_sha: pull.head_sha.clone(),
            base_sha,
            method: method.as_str().to_owned(),
            commit_title: title.unwrap_or_default(),
            commit_message: message.unwrap_or_default(),
            batch: if batch.len() > 1 {
                batch.to_vec()
            } else {
                Vec::new()
            },
            ..MergeIntent::default()
        }
    }

    /// Whether the world has moved on since the look: the last chance of a hold, a push, a block (TIDE-095, TIDE-167).
    async fn is_stale(
        &self,
        scene: &Scene<'_>,
        pull: &Pull,
        bases: &[String],
    ) -> Result<Option<String>, Trouble> {
        let key = PullKey {
            org: pull.org.clone(),
            repo: pull.repo.clone(),
            number: pull.number,
        };
        let found = self.forge.pull_request(&key.repo_id(), pull.number).await?;
        let mirror = self.refresh_mirror(&found).await?;
        if !found.is_open() || found.merged {
            return Ok(Some("it is closed".to_owned()));
        }
        if found.head.sha != pull.head_sha || found.base.branch != pull.base_ref {
            return Ok(Some("its head or base has changed".to_owned()));
        }
        let view = self.office.view();
        let now = facts::pull(&view, &mirror, &self.memory.search_only(&key));
        let meets = scene
            .queries
            .iter()
            .any(|query| query::matches(query, &now));
        let allowed = self.allowed_methods(&key.repo_id()).await?;
        let method = scene.rules.method(&now);
        if !meets {
            return Ok(Some("it does not meet a query any more".to_owned()));
        }
        if let Some(why) = merging::forbidden(&now, method, allowed, scene.rules.blocks()) {
            return Ok(Some(why));
        }
        let planned = scene.rules.running.version;
        if view.config().map(|config| config.number) != Some(planned) {
            return Ok(Some("the configuration has changed".to_owned()));
        }
        self.is_base_moved(scene, bases).await
    }

    async fn is_base_moved(
        &self,
        scene: &Scene<'_>,
        bases: &[String],
    ) -> Result<Option<String>, Trouble> {
        let PoolKey { org, repo, branch } = &scene.pool.key;
        let repo = trireme_forge::RepoId::new(org, repo);
        for look in 0..BASE_LOOKS {
            let head = self.forge.branch_head(&repo, branch).await?;
            if bases.last() == Some(&head) {
                return Ok(None);
            }
            if !bases.contains(&head) {
                return Ok(Some(format!("{branch} has moved to {head}")));
            }
            if look + 1 < BASE_LOOKS {
                sleep(self.timing.base_look).await;
            }
        }
        Ok(Some(format!("{branch} does not show the last merge yet")))
    }

    /// Brings the mirror up to date and returns it.
    async fn refresh_mirror(&self, found: &ForgePull) -> Result<PullRequest, Trouble> {
        let view = self.office.view();
        let named = |state: &trireme_state::State| {
            state
                .pull_request(&found.repo.org, &found.repo.repo, found.number)
                .map(|pull| (**pull).clone())
        };
        let former = named(&view);
        let Some(next) = mirror::from_forge(found, former.as_ref()) else {
            return Ok(former.unwrap_or_default());
        };
        self.put_pulls(vec![next.clone()]).await?;
        Ok(named(&self.office.view()).unwrap_or(next))
    }

    async fn set_tide_success(&self, scene: &Scene<'_>, pull: &Pull) -> Result<(), Trouble> {
        let shown = pull
            .contexts
            .iter()
            .find(|context| context.name == TIDE_CONTEXT);
        if shown.is_some_and(|context| context.state == StatusState::Success) {
            return Ok(());
        }
        let status = CommitStatus {
            context: TIDE_CONTEXT.to_owned(),
            state: StatusState::Success,
            description: String::new(),
            target_url: scene.rules.target_url(pull),
        };
        let repo = trireme_forge::RepoId::new(&pull.org, &pull.repo);
        self.office.assert_held().await?;
        self.forge
            .create_status(&repo, &pull.head_sha, &status)
            .await?;
        self.show_status(&repo, &pull.head_sha, &status).await
    }

    async fn carry_out(
        &self,
        scene: &Scene<'_>,
        pull: &Pull,
        method: MergeMethod,
        intent: &MergeIntent,
    ) -> Result<One, Trouble> {
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let request = MergeRequest {
            expected_head_sha: intent.head_sha.clone(),
            method,
            title: text(&intent.commit_title),
            message: text(&intent.commit_message),
        };
        let refused = match self.ask(pull, &request).await? {
            Ok(merged) => {
                self.settle(intent, IntentState::Merged, &merged.sha, "", "")
                    .await?;
                self.close_in_mirror(intent, &merged.sha).await?;
                return Ok(One::Merged { sha: merged.sha });
            }
            Err(error) if error.maybe_sent() => {
                tracing::warn!(pool = %scene.pool.key, number = pull.number, why = %error, "the answer to the merge is lost, looking what came of it");
                // The intent stays open: the next look observes what came of it.
                return Ok(One::Paused(Work::After(self.timing.observe)));
            }
            Err(error) if error.is_outage() => {
                self.settle(intent, IntentState::Withdrawn, "", "", &error.to_string())
                    .await?;
                let MergeError::Forge(forge) = error else {
                    return Ok(One::Stale(error.to_string()));
                };
                return Ok(One::Paused(Trouble::from(forge).into()));
            }
            Err(error) => error,
        };
        let (kind, why) = explain_refusal(&refused);
        self.settle(intent, IntentState::Refused, "", kind, &why)
            .await?;
        let inputs = scene.inputs(pull, Some(method));
        self.memory.refusals().remember(&intent.id, inputs);
        Ok(One::Refused(why))
    }

    /// Asks the forge, again while it says that the base was just changed.
    async fn ask(
        &self,
        pull: &Pull,
        request: &MergeRequest,
    ) -> Result<Result<Merged, MergeError>, Trouble> {
        let repo = trireme_forge::RepoId::new(&pull.org, &pull.repo);
        let mut waits = self.timing.base_changed.iter();
        loop {
            self.office.assert_held().await?;
            let call = self.forge.merge(&repo, pull.number, request);
            let answer = match timeout(self.timing.call, call).await {
                Ok(answer) => answer,
                Err(_) => Err(MergeError::Forge(ForgeError::Unavailable {
                    request: format!("merge {}#{}", pull.full_repo(), pull.number),
                    reason: format!("no answer within {:?}", self.timing.call),
                    maybe_sent: true,
                })),
            };
            match (&answer, waits.next()) {
                (Err(MergeError::Refused(refused)), Some(wait))
                    if refused.kind == Refusal::BaseChanged =>
                {
                    sleep(*wait).await;
                }
                _ => return Ok(answer),
            }
        }
    }

    async fn settle(
        &self,
        intent: &MergeIntent,
        state: IntentState,
        merge_sha: &str,
        refusal: &str,
        message: &str,
    ) -> Result<(), Trouble> {
        let command = SettleIntent {
            id: intent.id.clone(),
            state: state.into(),
            merge_sha: merge_sha.to_owned(),
            refusal: refusal.to_owned(),
            message: message.to_owned(),
        };
        self.office.propose(Body::SettleIntent(command)).await?;
        Ok(())
    }

    /// The webhook that says so comes later.
    async fn close_in_mirror(&self, intent: &MergeIntent, merge_sha: &str) -> Result<(), Trouble> {
        let view = self.office.view();
        let Some(mirror) = view.pull_request(&intent.org, &intent.repo, intent.number) else {
            return Ok(());
        };
        if !mirror.open {
            return Ok(());
        }
        let closed = PullRequest {
            open: false,
            merged: true,
            merge_commit_sha: merge_sha.to_owned(),
            contexts: std::collections::BTreeMap::new(),
            ..(**mirror).clone()
        };
        self.put_pulls(vec![closed]).await
    }

    pub(crate) async fn put_pulls(&self, pull_requests: Vec<PullRequest>) -> Result<(), Trouble> {
        let command = PutPullRequests {
            pull_requests,
            contexts: Vec::new(),
        };
        self.office.propose(Body::PutPullRequests(command)).await?;
        Ok(())
    }

    /// Settles what is open in this pool by what the forge shows; returns how long to wait if that is too early to
    /// tell. Nothing else is done in the pool until then.
    pub(crate) async fn settle_open_intents(
        &self,
        key: &PoolKey,
    ) -> Result<Option<Duration>, Trouble> {
        let view = self.office.view();
        let mut wait = None;
        for intent in view.open_intents() {
            if (&intent.org, &intent.repo, &intent.branch) == (&key.org, &key.repo, &key.branch) {
                wait = sooner(wait, self.observe(intent).await?);
            }
        }
        Ok(wait)
    }

    /// TIDE-153
    async fn observe(&self, intent: &MergeIntent) -> Result<Option<Duration>, Trouble> {
        let repo = trireme_forge::RepoId::new(&intent.org, &intent.repo);
        let found = match self.forge.pull_request(&repo, intent.number).await {
            Ok(found) => found,
            Err(why) if why.is_not_found() => {
                self.settle(intent, IntentState::Withdrawn, "", "", &why.to_string())
                    .await?;
                return Ok(None);
            }
            Err(why) => return Err(why.into()),
        };
        if found.merged && found.head.sha == intent.head_sha {
            let sha = found.merge_commit_sha.clone().unwrap_or_default();
            let ours = intent.opened_epoch == self.office.epoch();
            let state = if ours {
                IntentState::Merged
            } else {
                IntentState::Observed
            };
            tracing::info!(
                intent = intent.id, repo = %repo, number = intent.number, %sha, inherited = !ours,
                "the intent was observed as merged, not sent again"
            );
            self.settle(intent, state, &sha, "", "observed").await?;
            self.close_in_mirror(intent, &sha).await?;
            return Ok(None);
        }
        if !found.is_open() || found.head.sha != intent.head_sha {
            self.refresh_mirror(&found).await?;
            let why = "its head moved or it was closed before it merged";
            self.settle(intent, IntentState::Withdrawn, "", "", why)
                .await?;
            return Ok(None);
        }
        let in_flight = i64::try_from(self.timing.in_flight.as_millis()).unwrap_or(i64::MAX);
        let left = intent.opened_ms.saturating_add(in_flight) - self.office.now_ms();
        if let Ok(left) = u64::try_from(left)
            && left > 0
        {
            let left = Duration::from_millis(left);
            return Ok(Some(left.min(self.timing.observe)));
        }
        let view = self.office.view();
        let lost = view
            .intents_of(&intent.org, &intent.repo, intent.number)
            .filter(|other| other.head_sha == intent.head_sha && other.message.starts_with(LOST))
            .count();
        let why = format!("{LOST} within {:?} of asking", self.timing.in_flight);
        tracing::warn!(intent = intent.id, repo = %repo, number = intent.number, %why, "decided anew");
        // Whether it is sent again is decided on what is true by now.
        if lost + 1 < MAX_LOST {
            self.settle(intent, IntentState::Withdrawn, "", "", &why)
                .await?;
        } else {
            self.settle(intent, IntentState::Refused, "", refusal::NO_ANSWER, &why)
                .await?;
        }
        Ok(None)
    }
}

/// Kind and text, as Prow words it.
fn explain_refusal(error: &MergeError) -> (&'static str, String) {
    let MergeError::Refused(refused) = error else {
        return (refusal::OTHER, error.to_string());
    };
    let said = &refused.message;
    match refused.kind {
        Refusal::ModifiedHead => (refusal::MODIFIED_HEAD, format!("PR was modified: {said}")),
        Refusal::BaseChanged => (
            refusal::BASE_CHANGED,
            format!("base branch was modified: {said}"),
        ),
        Refusal::UnauthorizedToPush => (
            refusal::UNAUTHORIZED,
            format!("branch needs to be configured to allow this robot to push: {said}"),
        ),
        Refusal::MergeCommitsForbidden => (
            refusal::METHOD_FORBIDDEN,
            format!(
                "Tide needs to be configured to use the 'rebase' merge method for this repo or the repo needs to allow merge commits: {said}"
            ),
        ),
        Refusal::Unmergeable => (
            refusal::UNMERGEABLE,
            format!(
                "PR is unmergable. Do the Tide merge requirements match the GitHub settings for the repo? {said}"
            ),
        ),
    }
}

/// TIDE-092
fn failure(targets: &[u64], merged: &[u64], number: u64, why: &str) -> String {
    let list = |numbers: &[u64]| {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        format!("[{}]", numbers.join(" "))
    };
    let mut batch = String::new();
    if targets.len() > 1 {
        batch = format!(" from batch {}", list(targets));
        if !merged.is_empty() {
            batch.push_str(&format!(", partial merge {}", list(merged)));
        }
    }
    format!("failed merging [{number}]{batch}: #{number}: {why}")
}

#[cfg(test)]
mod tests {
    use trireme_forge::MergeRefused;

    use super::*;

    #[test]
    fn tide_092_errors_name_the_batch_and_what_was_merged() {
        let refused = MergeError::Refused(MergeRefused {
            kind: Refusal::Unmergeable,
            message: "Pull Request is not mergeable".into(),
        });
        let (kind, why) = explain_refusal(&refused);
        assert_eq!(kind, refusal::UNMERGEABLE);
        insta::assert_snapshot!(failure(&[1, 2, 3], &[1], 2, &why), @"failed merging [2] from batch [1 2 3], partial merge [1]: #2: PR is unmergable. Do the Tide merge requirements match the GitHub settings for the repo? Pull Request is not mergeable");
        insta::assert_snapshot!(failure(&[2], &[], 2, "no"), @"failed merging [2]: #2: no");
    }
}
