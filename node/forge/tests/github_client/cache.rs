//! What is asked once, asked for free, not asked at all, and what stands in while GitHub is broken.

use std::sync::Arc;

use tokio::sync::Notify;
use trireme_forge::{
    Comments, Contents, Labels, Mergeability, Merges, PullRequests, RepoId, mergeable,
};

use super::stub::{Reply, Stub, answer, ok};
use super::{COMMENT, LABELS, as_whom, github, merge_request, metrics, repo, told};
use trireme_forge::github::{AsOf, Credentials, GitHub, GitHubOptions, fixed_secret};

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// GHC-042, GHC-049: concurrent equal questions are one, and share its error, too.
#[tokio::test]
async fn ghc_042_those_who_ask_the_same_at_once_share_the_answer() {
    let go = Arc::new(Notify::new());
    let held = Reply::Held(Arc::clone(&go), Box::new(ok(LABELS)));
    let stub = Stub::start([held, answer(422, &[], r#"{"message":"no"}"#)]).await;
    let github = github(&stub);
    let (upper, lower) = (RepoId::new("Org", "repo"), RepoId::new("org", "Repo"));
    let (a, b, _) = tokio::join!(
        github.labels(&upper, 1),
        async {
            stub.asked(1).await;
            // Names are the same in any case. It asks nothing, or would be answered 422.
            github.labels(&lower, 1).await
        },
        async {
            stub.asked(1).await;
            go.notify_one();
        }
    );
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(stub.requests().len(), 1);
    let repo = repo();
    let (a, b) = tokio::join!(github.labels(&repo, 1), github.labels(&repo, 1));
    assert_eq!(a.unwrap_err(), b.unwrap_err());
    assert_eq!(stub.requests().len(), 2);
}

/// GHC-050: who asks after a change is not answered from before it, neither ours nor one that a webhook tells of.
#[tokio::test]
async fn ghc_050_nobody_is_told_what_was_before_a_change() {
    for ours in [true, false] {
        let go = Arc::new(Notify::new());
        let tagged = answer(200, &[("etag", "\"old\"")], LABELS);
        let stub = Stub::start([Reply::Held(Arc::clone(&go), Box::new(tagged))]).await;
        if ours {
            stub.then(ok("[]"));
        }
        stub.then(answer(200, &[("etag", "\"new\"")], "[]"));
        stub.then(answer(304, &[], ""));
        let (github, here) = (github(&stub), repo());
        let (before, after) = tokio::join!(github.labels(&here, 1), async {
            stub.asked(1).await;
            if ours {
                github.add_labels(&repo(), 1, &["x"]).await.unwrap();
            } else {
                github.invalidate(&repo(), Some(1));
            }
            let after = github.labels(&repo(), 1).await;
            go.notify_one();
            after
        });
        assert_eq!((before.unwrap().len(), after.unwrap().len()), (1, 0));
        // The older answer came last, and is not the one that is kept.
        assert!(github.labels(&repo(), 1).await.unwrap().is_empty());
        let requests = stub.requests();
        let last = requests.last().unwrap();
        assert_eq!(last.header("if-none-match"), Some("\"new\""));
    }
}

/// GHC-041: a list without a tag, but with a time, is asked for by its time.
#[tokio::test]
async fn ghc_041_what_has_no_tag_is_asked_for_by_its_time() {
    let when = "Thu, 01 Jan 2026 00:00:00 GMT";
    let stub = Stub::start([
        answer(200, &[("last-modified", when)], LABELS),
        answer(304, &[], ""),
        // Changed, and cannot be asked for by a condition from now on.
        ok("[]"),
        ok("[]"),
    ])
    .await;
    let github = github(&stub);
    for expected in [1, 1, 0, 0] {
        assert_eq!(github.labels(&repo(), 1).await.unwrap().len(), expected);
    }
    let conditions: Vec<bool> = stub
        .requests()
        .iter()
        .map(|request| request.header("if-modified-since") == Some(when))
        .collect();
    assert_eq!(conditions, [false, true, true, false]);
}

/// GHC-049: what is named by its content is asked for once; a branch is not.
#[tokio::test]
async fn ghc_049_what_cannot_change_is_not_asked_for_again() {
    let file = r#"{"encoding":"base64","content":"aGk="}"#;
    let tagged = || answer(200, &[("etag", "\"1\"")], file);
    let stub = Stub::start([tagged(), tagged(), answer(304, &[], "")]).await;
    let metrics_of = metrics();
    let github = GitHub::new(GitHubOptions {
        metrics: metrics_of.clone(),
        ..GitHubOptions::new(stub.url.clone(), Credentials::Anonymous)
    })
    .unwrap();
    for reference in [SHA, SHA, "main", "main"] {
        assert_eq!(
            github.file(&repo(), "OWNERS", reference).await.unwrap(),
            b"hi"
        );
    }
    // Our own changes leave it alone.
    github.invalidate(&repo(), None);
    github.file(&repo(), "OWNERS", SHA).await.unwrap();
    assert_eq!(stub.requests().len(), 3);
    assert_eq!(github.requests(), 3);
    let told = told(&metrics_of);
    for mode in ["HIT\"", "MISS\"", "REVALIDATED\""] {
        let line = told
            .lines()
            .find(|line| line.starts_with("ghcache_responses_total") && line.contains(mode));
        assert!(line.unwrap().contains("/repos/:owner/:repo/contents/:var"));
        assert!(line.unwrap().ends_with(" 2") != mode.starts_with("REVAL"));
    }
    assert!(told.contains("trireme_github_cache_bytes"));
}

/// GHC-049: while GitHub is broken an old answer stands in where it does no harm, and only there.
#[tokio::test]
async fn ghc_049_an_old_answer_stands_in_for_a_broken_forge_where_it_does_no_harm() {
    let tagged = |body: &str| answer(200, &[("etag", "\"1\"")], body);
    let stub = Stub::start([tagged(LABELS), tagged(LABELS), answer(502, &[], "")]).await;
    let github = github(&stub);
    github.repo_labels(&repo()).await.unwrap();
    github.labels(&repo(), 1).await.unwrap();
    assert_eq!(github.repo_labels(&repo()).await.unwrap().len(), 1);
    assert_eq!(stub.requests().len(), 3);
    // A label may be lgtm: better no answer than an old one.
    assert!(github.labels(&repo(), 1).await.unwrap_err().is_outage());
    // And none of before a change.
    github.invalidate(&repo(), None);
    assert!(github.repo_labels(&repo()).await.unwrap_err().is_outage());
}

/// GHC-049: another token of the same identity has the same cache.
#[tokio::test]
async fn ghc_049_the_cache_outlives_a_token() {
    let stub = Stub::start([
        answer(200, &[("etag", "\"1\"")], LABELS),
        answer(304, &[], ""),
    ])
    .await;
    let tokens = std::sync::atomic::AtomicU32::new(0);
    let rotating = Arc::new(move || {
        let n = tokens.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("token-{n}")
    });
    let github = as_whom(&stub.url, Credentials::Token(rotating));
    for _ in 0..2 {
        assert_eq!(github.labels(&repo(), 1).await.unwrap().len(), 1);
    }
    let with: Vec<_> = stub
        .requests()
        .iter()
        .map(|request| request.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(with, ["Bearer token-0", "Bearer token-1"]);
}

/// GHC-050: each change makes doubtful what it is about, and nothing else; what is the same after all is free.
#[tokio::test]
async fn ghc_050_changes_make_doubtful_what_they_are_about() {
    let tagged = |body: &str| answer(200, &[("etag", "\"1\"")], body);
    let merged = r#"{"sha":"fff","merged":true,"message":""}"#;
    let stub = Stub::start([
        tagged(LABELS),
        answer(201, &[], COMMENT),
        answer(502, &[], ""),
        ok(merged),
        answer(502, &[], ""),
        answer(304, &[], ""),
    ])
    .await;
    let github = github(&stub);
    github.repo_labels(&repo()).await.unwrap();
    github.create_comment(&repo(), 1, "hi").await.unwrap();
    // An old answer: a comment changes no labels of the repository.
    github.repo_labels(&repo()).await.unwrap();
    github.merge(&repo(), 1, &merge_request()).await.unwrap();
    // A merge may change all: asked for again, until GitHub says that they are the same.
    github.repo_labels(&repo()).await.unwrap();
    assert_eq!(stub.requests().len(), 6);
    let last = stub.requests().pop().unwrap();
    assert_eq!(last.header("if-none-match"), Some("\"1\""));
}

/// GHC-021: connections are kept.
#[tokio::test]
async fn ghc_021_connections_are_kept() {
    let kept = || answer(200, &[("connection", "keep-alive")], "[]");
    let stub = Stub::start([kept(), kept(), kept()]).await;
    let github = as_whom(&stub.url, Credentials::Token(fixed_secret("t")));
    for number in 1..=3 {
        github.changed_files(&repo(), number).await.unwrap();
    }
    assert_eq!(stub.connections(), 1);
}

/// GHC-019, GHC-050: what is waited for is asked for anew each time, also by whom an answer of a moment ago would do.
#[tokio::test]
async fn ghc_019_a_wait_for_mergeability_ends_in_a_new_answer() {
    let pull = |mergeable: &str| {
        format!(
            r#"{{"number":1,"state":"open","title":"t","mergeable":{mergeable},"base":{{"ref":"main","sha":"b"}},"head":{{"ref":"fix","sha":"a"}},"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z"}}"#
        )
    };
    let tagged = |tag: &str, mergeable| answer(200, &[("etag", tag)], pull(mergeable));
    let stub = Stub::start([tagged("\"1\"", "null"), tagged("\"2\"", "false")]).await;
    let github = github(&stub).as_of(&AsOf::new(std::time::Instant::now()));
    let known = github.pull_request(&repo(), 1).await.unwrap();
    assert_eq!(known.mergeable, None);
    let (repo, second_wait) = (repo(), mergeable::FIRST_WAIT * 2);
    let asked = github.mergeability(&repo, 1, "a");
    let found = tokio::time::timeout(second_wait, asked).await;
    let found = found.expect("told after the first wait").unwrap();
    assert_eq!(found, Mergeability::Conflicting);
    let requests = stub.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header("if-none-match"), Some("\"1\""));
}
