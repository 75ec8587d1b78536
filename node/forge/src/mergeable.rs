//! Waiting until the forge knows whether a pull request merges cleanly: it computes that some time after it is first
//! asked (GHC-019).

use std::time::Duration;

use tokio::time::sleep;

use crate::error::Result;
use crate::types::PullRequest;

/// How often the pull request is read.
pub const READS: u32 = 3;

/// The wait before the second read; twice as long before each further one.
pub const FIRST_WAIT: Duration = Duration::from_secs(3);

/// Whether the forge could merge a pull request without conflicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mergeability {
    Mergeable,
    Conflicting,
    /// Not known after [`READS`] reads.
    Unknown,
    /// The head is this one now: what is asked about is of the past.
    HeadMoved(String),
    /// It was merged or closed meanwhile.
    Settled,
}

/// Reads a pull request until the forge has an answer for `head_sha`; `first_wait` is [`FIRST_WAIT`] but in tests.
///
/// # Errors
/// Those of `read`, at once.
pub async fn mergeability<F: Future<Output = Result<PullRequest>>>(
    head_sha: &str,
    first_wait: Duration,
    mut read: impl FnMut() -> F,
) -> Result<Mergeability> {
    let mut wait = first_wait;
    for attempt in 1..=READS {
        let pull = read().await?;
        if pull.head.sha != head_sha {
            return Ok(Mergeability::HeadMoved(pull.head.sha));
        }
        if pull.merged || !pull.is_open() {
            return Ok(Mergeability::Settled);
        }
        match pull.mergeable {
            Some(true) => return Ok(Mergeability::Mergeable),
            Some(false) => return Ok(Mergeability::Conflicting),
            // The forge tells of no event when it has computed the answer.
            None if attempt < READS => sleep(wait).await,
            None => {}
        }
        wait *= 2;
    }
    Ok(Mergeability::Unknown)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::types::{PullRequestEnd, RepoId, State, User};

    fn pull(head: &str, mergeable: Option<bool>) -> PullRequest {
        PullRequest {
            repo: RepoId::new("o", "r"),
            number: 1,
            node_id: String::new(),
            html_url: String::new(),
            title: String::new(),
            body: String::new(),
            author: User::default(),
            author_association: String::new(),
            state: State::Open,
            draft: false,
            merged: false,
            merge_commit_sha: None,
            mergeable,
            base: PullRequestEnd::default(),
            head: PullRequestEnd {
                sha: head.to_owned(),
                ..Default::default()
            },
            labels: vec![],
            assignees: vec![],
            requested_reviewers: vec![],
            requested_teams: vec![],
            auto_merge: false,
            milestone: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            commits: None,
        }
    }

    /// What is concluded from these answers, and how many were read.
    async fn told(answers: Vec<PullRequest>) -> (Mergeability, usize) {
        let mut reads = 0;
        let mut answers = answers.into_iter();
        let told = mergeability("head", Duration::from_millis(1), || {
            reads += 1;
            std::future::ready(Ok(answers.next().unwrap()))
        })
        .await
        .unwrap();
        (told, reads)
    }

    /// GHC-019
    #[tokio::test]
    async fn mergeability_is_read_three_times_at_most() {
        let unknown = || pull("head", None);
        assert_eq!(
            told(vec![pull("head", Some(true))]).await,
            (Mergeability::Mergeable, 1)
        );
        assert_eq!(
            told(vec![unknown(), pull("head", Some(false))]).await,
            (Mergeability::Conflicting, 2)
        );
        assert_eq!(
            told(vec![unknown(), unknown(), unknown()]).await,
            (Mergeability::Unknown, 3)
        );
    }

    /// GHC-019
    #[tokio::test]
    async fn a_head_that_moved_and_a_merge_end_the_wait() {
        let moved = vec![pull("head", None), pull("next", Some(true))];
        assert_eq!(
            told(moved).await,
            (Mergeability::HeadMoved("next".into()), 2)
        );
        let merged = PullRequest {
            merged: true,
            ..pull("head", None)
        };
        assert_eq!(told(vec![merged]).await, (Mergeability::Settled, 1));
        let closed = PullRequest {
            state: State::Closed,
            ..pull("head", None)
        };
        assert_eq!(told(vec![closed]).await, (Mergeability::Settled, 1));
    }
}
