//! The `tide` status on every open pull request: written only where it differs from what the forge shows.

use trireme_forge::{CommitStatus, RepoId};
use trireme_office::Work;
use trireme_proto::state::{Context, HeadContext, PutPullRequests, command::Body};

use std::collections::BTreeSet;

use crate::{
    decide::Decision,
    explain::{Standing, cut, expected_status},
    mirror::mirrored_state,
    policy::ContextPolicy,
    pool::Verdict,
    pull::TIDE_CONTEXT,
    session::{PullKey, Session, Trouble, Wanted},
    sync::{Onlooker, Scene},
};

impl Session {
    /// Decides what each onlooker's status should say; those that are about to merge are left alone (TIDE-160).
    pub(crate) fn want_statuses(&self, scene: &Scene<'_>, decision: &Decision) {
        let merging: &[u64] = match decision {
            Decision::Merge(number) => std::slice::from_ref(number),
            Decision::MergeBatch(numbers) => numbers,
            _ => &[],
        };
        let blockers: Vec<u64> = scene
            .blockers
            .iter()
            .map(|blocker| blocker.number)
            .collect();
        for onlooker in &scene.onlookers {
            let pull = &onlooker.pull;
            if merging.contains(&pull.number) {
                continue;
            }
            let (state, description) = status_of(scene, onlooker, &blockers);
            let key = PullKey {
                org: pull.org.clone(),
                repo: pull.repo.clone(),
                number: pull.number,
            };
            let wanted = Wanted {
                sha: pull.head_sha.clone(),
                status: CommitStatus {
                    context: TIDE_CONTEXT.to_owned(),
                    state,
                    description: cut(&description),
                    target_url: scene.rules.target_url(pull),
                },
            };
            self.memory.want(key.clone(), wanted.clone());
            if !self.is_shown(&key, &wanted) {
                self.statuses.add(key);
            }
        }
    }

    fn is_shown(&self, key: &PullKey, wanted: &Wanted) -> bool {
        let view = self.office.view();
        view.pull_request(&key.org, &key.repo, key.number)
            .filter(|mirror| mirror.head_sha == wanted.sha)
            .and_then(|mirror| mirror.contexts.get(TIDE_CONTEXT))
            .is_some_and(|shown| {
                shown.state() == mirrored_state(wanted.status.state)
                    && shown.description == wanted.status.description
            })
    }

    pub(crate) async fn send_status(&self, key: &PullKey) -> Work {
        match self.try_send_status(key).await {
            Ok(()) => Work::Done,
            Err(trouble) => trouble.into(),
        }
    }

    async fn try_send_status(&self, key: &PullKey) -> Result<(), Trouble> {
        let Some(wanted) = self.memory.wanted(key) else {
            return Ok(());
        };
        let view = self.office.view();
        let mirror = view.pull_request(&key.org, &key.repo, key.number);
        let current = mirror.is_some_and(|pull| pull.open && pull.head_sha == wanted.sha);
        let merging = view.open_intent(&key.org, &key.repo, key.number).is_some();
        if !current || merging || self.is_shown(key, &wanted) {
            return Ok(());
        }
        let repo = key.repo_id();
        self.office.assert_held().await?;
        match self
            .forge
            .create_status(&repo, &wanted.sha, &wanted.status)
            .await
        {
            Ok(()) => self.show_status(&repo, &wanted.sha, &wanted.status).await,
            // The head is gone: its successor gets its own.
            Err(why) if why.is_not_found() => Ok(()),
            Err(why) if why.is_outage() => Err(why.into()),
            Err(why) => {
                tracing::error!(%repo, number = key.number, %why, "the tide status was refused");
                Ok(())
            }
        }
    }

    /// Puts a status that was just written into the mirror; the webhook that says so comes later.
    pub(crate) async fn show_status(
        &self,
        repo: &RepoId,
        sha: &str,
        status: &CommitStatus,
    ) -> Result<(), Trouble> {
        let context = HeadContext {
            org: repo.org.clone(),
            repo: repo.repo.clone(),
            sha: sha.to_owned(),
            context: Some(Context {
                context: status.context.clone(),
                state: mirrored_state(status.state).into(),
                description: status.description.clone(),
                target_url: status.target_url.clone(),
                updated_ms: self.office.now_ms(),
            }),
        };
        let command = PutPullRequests {
            pull_requests: Vec::new(),
            contexts: vec![context],
        };
        self.office.propose(Body::PutPullRequests(command)).await?;
        Ok(())
    }
}

fn status_of(
    scene: &Scene<'_>,
    onlooker: &Onlooker,
    blockers: &[u64],
) -> (trireme_forge::StatusState, String) {
    let pull = &onlooker.pull;
    let policy = WithRequired {
        policy: onlooker.policy.as_ref(),
        required: onlooker
            .required
            .iter()
            .map(|test| test.context.as_str())
            .collect(),
    };
    let verdicts = scene.pool.verdicts(pull);
    let mut up_to_date: BTreeSet<&str> = verdicts
        .iter()
        .filter(|(_, verdict)| **verdict == Verdict::Success)
        .map(|(context, _)| *context)
        .collect();
    let head = (pull.number, pull.head_sha.clone());
    let batches = scene.pool.runs.iter().filter(|run| {
        run.batch
            && run.base_sha == scene.pool.base_sha
            && run.pulls.contains(&head)
            && crate::pool::verdict(run.state) == Verdict::Success
    });
    up_to_date.extend(batches.map(|run| run.context.as_str()));
    // What others report is not ours to test again: it is up to date when it is good (TIDE-128).
    let ours: BTreeSet<&str> = scene
        .rules
        .presubmits
        .iter()
        .copied()
        .chain(&onlooker.own.presubmits)
        .map(|job| job.reporter.context.as_str())
        .collect();
    let good = pull.contexts.iter().filter(|context| {
        context.state == trireme_forge::StatusState::Success
            && !ours.contains(context.name.as_str())
    });
    up_to_date.extend(good.map(|context| context.name.as_str()));
    expected_status(&Standing {
        pull,
        forbidden: onlooker.forbidden.clone(),
        in_pool: onlooker.in_pool,
        blockers,
        queries: &scene.queries,
        policy: &policy,
        blocks: scene.rules.blocks(),
        display_all_queries: scene
            .rules
            .running
            .config
            .prow
            .tide
            .display_all_queries_in_status,
        up_to_date,
    })
}

/// A branch's policy with the tests of one pull request.
struct WithRequired<'a> {
    policy: &'a dyn ContextPolicy,
    required: BTreeSet<&'a str>,
}

impl ContextPolicy for WithRequired<'_> {
    fn is_optional(&self, context: &str) -> bool {
        self.policy.is_optional(context)
    }

    fn missing_required(&self, present: &BTreeSet<&str>) -> Vec<String> {
        let mut missing: BTreeSet<String> =
            self.policy.missing_required(present).into_iter().collect();
        let own = self.required.difference(present);
        missing.extend(own.map(|&context| context.to_owned()));
        missing.into_iter().collect()
    }
}
