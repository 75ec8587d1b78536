//! Repair of the mirror: what the forge lists against what the state holds.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use trireme_forge::{PullRequest, RepoId};
use trireme_office::Work;
use trireme_proto::state::command::Body;
use trireme_proto::state::{self, Mergeable, PutPullRequests};

use super::chores::unable;
use super::{Session, not_recorded};
use crate::mirror::{mirrored, record};

/// Heads whose statuses are read in one round; the rest in the next ones.
const MAX_HEADS: usize = 200;
/// Pull requests looked up one by one in a round, because the list lacks them.
const MAX_LOOKUPS: usize = 200;
/// Records and their bytes in one command.
const MAX_RECORDS: usize = 100;
const MAX_BYTES: usize = 256 << 10;

/// The record to write, if the mirror lacks it or says something older or else.
fn repaired(
    listed: &PullRequest,
    former: Option<&state::PullRequest>,
) -> Option<state::PullRequest> {
    let mut next = record(listed);
    let Some(former) = former else {
        return Some(next);
    };
    if next.updated_ms < former.updated_ms {
        return None;
    }
    // What a list does not tell stays.
    let same_change = next.head_sha == former.head_sha && next.base_ref == former.base_ref;
    if next.mergeable() == Mergeable::Unknown && same_change {
        next.mergeable = former.mergeable;
    }
    next.review_decision.clone_from(&former.review_decision);
    next.ready_since_ms = former.ready_since_ms;
    if next.merge_commit_sha.is_empty() && next.merged {
        next.merge_commit_sha.clone_from(&former.merge_commit_sha);
    }
    next.closed_ms = former.closed_ms;
    next.version = former.version;
    if next.head_sha == former.head_sha {
        next.contexts.clone_from(&former.contexts);
    }
    (next != *former).then_some(next)
}

/// Cuts records into commands.
fn portions(records: Vec<state::PullRequest>) -> Vec<Vec<state::PullRequest>> {
    let mut portions: Vec<Vec<state::PullRequest>> = Vec::new();
    let mut bytes = 0;
    for record in records {
        let size = record.encoded_len();
        match portions.last_mut() {
            Some(portion) if portion.len() < MAX_RECORDS && bytes + size <= MAX_BYTES => {
                portion.push(record);
                bytes += size;
            }
            _ => {
                portions.push(vec![record]);
                bytes = size;
            }
        }
    }
    portions
}

impl Session {
    /// Brings the mirror of a repository up to what the forge says.
    pub(super) async fn repair_pulls(&self, repo: &RepoId) -> Result<(), Work> {
        let forge = self.tools.forge.as_ref();
        let failed = |error| unable(&format!("cannot list the pull requests of {repo}"), &error);
        let listed = forge.open_pull_requests(repo).await.map_err(failed)?;
        let view = self.office.view();
        let mirror: BTreeMap<u64, &state::PullRequest> = view
            .pull_requests(&repo.org, &repo.repo)
            .map(|pull| (pull.number, pull.as_ref()))
            .collect();

        let mut records = Vec::new();
        let mut heads = 0;
        for pr in &listed {
            let former = mirror.get(&pr.number).copied();
            let Some(mut next) = repaired(pr, former) else {
                continue;
            };
            let new_head = former.is_none_or(|former| former.head_sha != next.head_sha);
            if new_head {
                heads += 1;
                if heads > MAX_HEADS {
                    continue;
                }
                next.contexts = self.contexts(repo, &next.head_sha).await?;
            }
            records.push(next);
        }
        let open: BTreeSet<u64> = listed.iter().map(|pr| pr.number).collect();
        let vanished = mirror
            .values()
            .filter(|pull| pull.open && !open.contains(&pull.number))
            .take(MAX_LOOKUPS);
        for pull in vanished {
            records.extend(self.look_up(repo, pull).await?);
        }
        if !records.is_empty() {
            tracing::info!(%repo, pull_requests = records.len(), "repairing the mirror");
        }
        for pull_requests in portions(records) {
            let put = PutPullRequests {
                pull_requests,
                ..PutPullRequests::default()
            };
            let put = self.office.propose(Body::PutPullRequests(put)).await;
            put.map_err(not_recorded)?;
        }
        Ok(())
    }

    async fn contexts(
        &self,
        repo: &RepoId,
        sha: &str,
    ) -> Result<BTreeMap<String, state::Context>, Work> {
        let failed = |error| unable(&format!("cannot read the statuses of {repo}@{sha}"), &error);
        let combined = self.tools.forge.combined_status(repo, sha).await;
        let statuses = combined.map_err(failed)?.statuses;
        // Without a time: whatever a webhook tells is newer.
        let contexts = statuses.iter().map(|status| mirrored(status, 0));
        Ok(contexts
            .map(|context| (context.context.clone(), context))
            .collect())
    }

    /// A pull request that the mirror holds for open and the list lacks.
    async fn look_up(
        &self,
        repo: &RepoId,
        former: &state::PullRequest,
    ) -> Result<Option<state::PullRequest>, Work> {
        match self.tools.forge.pull_request(repo, former.number).await {
            Ok(pr) => Ok(repaired(&pr, Some(former))),
            Err(error) if error.is_not_found() => Ok(Some(state::PullRequest {
                open: false,
                ..former.clone()
            })),
            Err(error) => {
                let what = format!("cannot read {repo}#{}", former.number);
                Err(unable(&what, &error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{labels, pull_request};

    #[test]
    fn only_what_differs_is_repaired() {
        let listed = pull_request();
        let missing = repaired(&listed, None).unwrap();
        assert_eq!((missing.number, missing.open), (5, true));

        let mut known = missing;
        known.mergeable = Mergeable::Conflicting.into();
        known.review_decision = "APPROVED".into();
        known.ready_since_ms = 7;
        known.version = 9;
        assert_eq!(repaired(&listed, Some(&known)), None);

        let mut newer = known.clone();
        newer.updated_ms += 1;
        newer.title = "Another".into();
        assert_eq!(repaired(&listed, Some(&newer)), None);

        let mut labelled = listed.clone();
        labelled.labels = labels(&["lgtm"]);
        let next = repaired(&labelled, Some(&known)).unwrap();
        assert_eq!(next.labels, ["lgtm"]);
        assert_eq!(next.mergeable(), Mergeable::Conflicting);
        assert_eq!(
            (next.review_decision.as_str(), next.ready_since_ms),
            ("APPROVED", 7)
        );

        let mut pushed = listed;
        pushed.head.sha = "c".repeat(40);
        let next = repaired(&pushed, Some(&known)).unwrap();
        assert_eq!(next.mergeable(), Mergeable::Unknown);
    }

    #[test]
    fn records_are_put_in_commands_of_bounded_size() {
        let small = record(&pull_request());
        let portions_of = |record: &state::PullRequest, n: usize| -> Vec<usize> {
            portions(vec![record.clone(); n])
                .iter()
                .map(Vec::len)
                .collect()
        };
        assert_eq!(portions_of(&small, 250), [100, 100, 50]);
        let mut large = small;
        large.body = "x".repeat(100 << 10);
        assert_eq!(portions_of(&large, 5), [2, 2, 1]);
        large.body = "x".repeat(300 << 10);
        assert_eq!(portions_of(&large, 2), [1, 1]);
        assert_eq!(portions(vec![]), Vec::<Vec<state::PullRequest>>::new());
    }
}
