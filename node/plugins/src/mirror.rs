//! The mirror of pull requests, written from what webhooks tell: a plugin that is always on and never acts outside.

use jiff::Timestamp;
use serde::Deserialize;
use trireme_forge::webhook::Event;
use trireme_forge::{CommitStatus, PullRequest, RepoId, StatusState};
use trireme_proto::state::{
    self, Context, ContextState, HeadContext, Mergeable, PlanBody, PutPullRequests,
};

/// Its name in the state; no plugin of Prow's has it.
pub const MIRROR: &str = "mirror";

/// The plan of an event that tells of a pull request as a whole.
///
/// Comments do not: they carry the issue alone. Reviews of closed pull requests do not tell whether it was merged.
pub(crate) fn plan(event: &Event) -> Option<PlanBody> {
    let pull_request = match event {
        Event::PullRequest(event) => &event.pull_request,
        Event::Review(event) if event.pull_request.is_open() => &event.pull_request,
        Event::ReviewComment(event) if event.pull_request.is_open() => &event.pull_request,
        _ => return None,
    };
    Some(PlanBody {
        plugin: MIRROR.to_owned(),
        pull_requests: vec![record(pull_request)],
        ..PlanBody::default()
    })
}

/// The record as the forge tells it; contexts, review decision and readiness are not in it.
pub(crate) fn record(pr: &PullRequest) -> state::PullRequest {
    let mergeable = match pr.mergeable {
        Some(true) => Mergeable::Yes,
        Some(false) => Mergeable::Conflicting,
        None => Mergeable::Unknown,
    };
    let merge_commit = pr.merge_commit_sha.clone().filter(|_| pr.merged);
    state::PullRequest {
        org: pr.repo.org.clone(),
        repo: pr.repo.repo.clone(),
        number: pr.number,
        title: pr.title.clone(),
        author: pr.author.login.clone(),
        open: pr.is_open(),
        draft: pr.draft,
        merged: pr.merged,
        mergeable: mergeable.into(),
        base_ref: pr.base.branch.clone(),
        head_ref: pr.head.branch.clone(),
        head_sha: pr.head.sha.clone(),
        labels: pr.labels.iter().map(|label| label.name.clone()).collect(),
        milestone: pr
            .milestone
            .as_ref()
            .map(|milestone| milestone.title.clone())
            .unwrap_or_default(),
        updated_ms: pr.updated_at.as_millisecond(),
        body: pr.body.clone(),
        html_url: pr.html_url.clone(),
        merge_commit_sha: merge_commit.unwrap_or_default(),
        ..state::PullRequest::default()
    }
}

/// The context of a status event, for every open pull request with that head.
pub(crate) fn context(event: &Event, payload: &[u8]) -> Option<PutPullRequests> {
    let Event::Status(event) = event else {
        return None;
    };
    Some(PutPullRequests {
        contexts: vec![head_context(
            &event.repository.id,
            &event.sha,
            &event.status,
            status_time(payload),
        )],
        ..PutPullRequests::default()
    })
}

pub(crate) fn head_context(
    repo: &RepoId,
    sha: &str,
    status: &CommitStatus,
    updated_ms: i64,
) -> HeadContext {
    HeadContext {
        org: repo.org.clone(),
        repo: repo.repo.clone(),
        sha: sha.to_owned(),
        context: Some(mirrored(status, updated_ms)),
    }
}

pub(crate) fn mirrored(status: &CommitStatus, updated_ms: i64) -> Context {
    let state = match status.state {
        StatusState::Expected | StatusState::Pending => ContextState::Pending,
        StatusState::Success => ContextState::Success,
        StatusState::Failure => ContextState::Failure,
        StatusState::Error => ContextState::Error,
    };
    Context {
        context: status.context.clone(),
        state: state.into(),
        description: status.description.clone(),
        target_url: status.target_url.clone(),
        updated_ms,
    }
}

/// When the status was set, so that a late webhook does not undo a newer one; 0 if the payload does not tell.
fn status_time(payload: &[u8]) -> i64 {
    #[derive(Deserialize)]
    struct Times {
        updated_at: Option<Timestamp>,
        created_at: Option<Timestamp>,
    }
    serde_json::from_slice(payload).map_or(0, |times: Times| {
        let at = times.updated_at.or(times.created_at);
        at.map_or(0, Timestamp::as_millisecond)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, pull_request, pull_request_event, review_event};
    use trireme_forge::{ReviewState, State};

    #[test]
    fn what_a_webhook_tells_becomes_the_record() {
        let mut event = pull_request_event("closed");
        event.pull_request.state = State::Closed;
        event.pull_request.merged = true;
        event.pull_request.mergeable = Some(true);
        event.pull_request.merge_commit_sha = Some("m".into());
        let plan = plan(&Event::PullRequest(Box::new(event))).unwrap();
        let record = &plan.pull_requests[0];
        assert_eq!((plan.plugin.as_str(), record.number), ("mirror", 5));
        assert!(!record.open && record.merged);
        assert_eq!(
            (record.mergeable(), record.merge_commit_sha.as_str()),
            (Mergeable::Yes, "m")
        );
        assert_eq!(record.head_sha, pull_request().head.sha);
    }

    #[test]
    fn the_forges_test_merge_is_no_merge() {
        let mut pr = pull_request();
        pr.merge_commit_sha = Some("test".into());
        assert_eq!(record(&pr).merge_commit_sha, "");
    }

    #[test]
    fn only_events_that_carry_the_pull_request_are_mirrored() {
        assert!(plan(&review_event("a", "", ReviewState::Approved)).is_some());
        assert!(plan(&comment_event("a", "hi")).is_none());
        let Event::Review(mut late) = review_event("a", "", ReviewState::Approved) else {
            unreachable!()
        };
        late.pull_request.state = State::Closed;
        assert!(plan(&Event::Review(late)).is_none());
    }

    #[test]
    fn a_status_carries_its_time() {
        let payload = br#"{"sha":"abc","state":"error","context":"unit","description":null,"target_url":null,
            "updated_at":"1970-01-01T00:00:02Z","created_at":"1970-01-01T00:00:01Z",
            "repository":{"id":1,"name":"repo","full_name":"org/repo","html_url":"u","default_branch":"main",
            "owner":{"login":"org","type":"Organization"}}}"#;
        let event = Event::parse("status", payload).unwrap();
        let put = context(&event, payload).unwrap();
        let head = &put.contexts[0];
        assert_eq!(
            (head.org.as_str(), head.repo.as_str(), head.sha.as_str()),
            ("org", "repo", "abc")
        );
        let context = head.context.clone().unwrap();
        assert_eq!(
            (context.state(), context.updated_ms),
            (ContextState::Error, 2000)
        );
        assert!(super::context(&comment_event("a", "hi"), payload).is_none());
    }
}
