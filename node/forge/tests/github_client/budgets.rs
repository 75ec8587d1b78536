//! Limits, throttles, urgency, dry runs, and who is named for a request.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use trireme_forge::github::{
    Credentials, GitHub, GitHubOptions, Priority, Rate, RetryPolicy, fixed_secret,
};
use trireme_forge::{
    Assignees, Comments, CommitStatus, Contents, ForgeError, Labels, Membership, MergeError,
    Merges, PullRequests, Repositories, Search, SearchRequest, StatusState, Statuses,
};

use super::stub::{Stub, answer, ok};
use super::{LABELS, github, merge_request, metrics, quick, repo, told};

const SEARCHED: &str = r#"{"data":{"rateLimit":{"cost":7,"remaining":90},"search":{"issueCount":0,"pageInfo":{"hasNextPage":false,"endCursor":null},"nodes":[]}}}"#;

fn query() -> SearchRequest {
    SearchRequest {
        query: "is:issue".into(),
        ..SearchRequest::default()
    }
}

fn options(stub: &Stub) -> GitHubOptions {
    GitHubOptions {
        retry: quick(),
        ..GitHubOptions::new(stub.url.clone(), Credentials::Token(fixed_secret("t")))
    }
}

/// GHC-021: 429 and GitHub's abuse limit are the same, and pause REST alone; nothing more is sent until they are over.
#[tokio::test]
async fn ghc_021_a_secondary_limit_pauses_its_budget_and_no_other() {
    let abuse = r#"{"message":"You have exceeded a secondary rate limit."}"#;
    for limit in [answer(429, &[], "{}"), answer(403, &[], abuse)] {
        let stub = Stub::start([limit, ok(SEARCHED)]).await;
        let github = github(&stub);
        for _ in 0..2 {
            let error = github.labels(&repo(), 1).await.unwrap_err();
            let is_secondary = matches!(
                error,
                ForgeError::RateLimited {
                    secondary: true,
                    ..
                }
            );
            assert!(is_secondary, "{error}");
        }
        github.search_issues(&query()).await.unwrap();
        assert_eq!(stub.requests().len(), 2);
    }
}

/// GHC-021: whoever is not there is not looked for again.
#[tokio::test]
async fn ghc_021_what_does_not_exist_is_asked_for_once() {
    let stub = Stub::start(std::iter::repeat_n(answer(404, &[], "{}"), 4)).await;
    let github = github(&stub);
    assert!(!github.is_org_member("org", "eve").await.unwrap());
    assert!(!github.is_collaborator(&repo(), "eve").await.unwrap());
    assert!(
        github
            .file(&repo(), "OWNERS", "")
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(
        github
            .branch_head(&repo(), "x")
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(stub.requests().len(), 4);
}

/// GHC-023: who is no member of an organisation is not told who is.
#[tokio::test]
async fn ghc_023_a_stranger_to_the_organisation_is_told_so() {
    let public = [("location", "/orgs/org/public_members/eve")];
    let stub = Stub::start([answer(302, &public, ""), answer(204, &[], "")]).await;
    let error = github(&stub).is_org_member("org", "eve").await.unwrap_err();
    insta::assert_snapshot!(error, @"GET /orgs/org/members/eve: forbidden: we are no member of org, which hides its members from us");
    assert_eq!(stub.requests().len(), 1);
}

/// GHC-021: tries and waits together have an end.
#[tokio::test]
async fn ghc_021_reading_ends_in_time_whatever_happens() {
    let stub = Stub::start([]).await;
    let retry = RetryPolicy {
        tries: u32::MAX,
        first_wait: Duration::from_millis(20),
        read_deadline: Duration::from_secs(2),
        ..quick()
    };
    let github = GitHub::new(GitHubOptions {
        retry,
        ..options(&stub)
    })
    .unwrap();
    let began = Instant::now();
    assert!(github.labels(&repo(), 1).await.unwrap_err().is_outage());
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(stub.requests().len() > 2);
}

/// GHC-002: one try has its own time, and another may do better.
#[tokio::test]
async fn ghc_002_a_try_that_takes_too_long_is_followed_by_another() {
    let stub = Stub::start([super::stub::Reply::Silence, ok(LABELS)]).await;
    let retry = RetryPolicy {
        request_timeout: Duration::from_millis(700),
        ..quick()
    };
    let github = GitHub::new(GitHubOptions {
        retry,
        ..options(&stub)
    })
    .unwrap();
    assert_eq!(github.labels(&repo(), 1).await.unwrap().len(), 1);
}

/// GHC-011, GHC-022: GraphQL has the same throttle, and what was free gives its token back.
#[tokio::test]
async fn ghc_011_no_more_is_asked_than_the_throttle_lets_through() {
    let tagged = answer(200, &[("etag", "\"1\"")], LABELS);
    let free = answer(200, &[("x-cache-mode", "COALESCED")], LABELS);
    let stub = Stub::start([tagged, answer(304, &[], ""), free, ok(SEARCHED)]).await;
    let github = GitHub::new(GitHubOptions {
        rate: Some(Rate::new(2, 2).unwrap()),
        ..options(&stub)
    })
    .unwrap();
    github.labels(&repo(), 1).await.unwrap();
    github.labels(&repo(), 1).await.unwrap();
    github.labels(&repo(), 2).await.unwrap();
    github.search_issues(&query()).await.unwrap();
    // Two were spent; the third comes after an hour and a half, and nobody waits for that.
    let error = github.labels(&repo(), 3).await.unwrap_err();
    let after = error.retry_after().unwrap();
    assert!(after > Duration::from_secs(80 * 60), "{error} {after:?}");
    assert!(
        github
            .search_issues(&query())
            .await
            .unwrap_err()
            .is_outage()
    );
    assert_eq!(stub.requests().len(), 4);
}

/// GHC-011: reading waits for its turn, however short its own time is; a change does not outlive its time.
#[tokio::test]
async fn ghc_011_reading_waits_for_the_throttle_and_a_change_does_not() {
    let stub = Stub::start([ok(LABELS), ok(LABELS)]).await;
    let retry = RetryPolicy {
        read_deadline: Duration::from_millis(900),
        mutation_timeout: Duration::from_millis(100),
        throttle_wait: Duration::from_secs(60),
        ..quick()
    };
    let github = GitHub::new(GitHubOptions {
        // The second may go after two seconds.
        rate: Some(Rate::new(3600, 1).unwrap()),
        retry,
        ..options(&stub)
    })
    .unwrap();
    let began = Instant::now();
    github.labels(&repo(), 1).await.unwrap();
    let change = github.add_labels(&repo(), 1, &["x"]).await.unwrap_err();
    assert!(
        change.retry_at().is_some() && !change.maybe_sent(),
        "{change}"
    );
    github.labels(&repo(), 2).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(stub.requests().len(), 2);
}

/// GHC-003: an org that has a throttle of its own does not take from the others.
#[tokio::test]
async fn ghc_003_an_orgs_throttle_is_its_own() {
    let stub = Stub::start([ok(LABELS), ok(LABELS)]).await;
    let rate = Rate::new(1, 1).unwrap();
    let github = GitHub::new(GitHubOptions {
        rate: Some(rate),
        org_rates: BTreeMap::from([("ORG".to_owned(), rate)]),
        ..options(&stub)
    })
    .unwrap();
    let other = trireme_forge::RepoId::new("other", "repo");
    github.labels(&repo(), 1).await.unwrap();
    github.labels(&other, 1).await.unwrap();
    for repo in [repo(), other] {
        assert!(github.labels(&repo, 1).await.unwrap_err().is_outage());
    }
    assert_eq!(stub.requests().len(), 2);
}

/// What merges and what answers people goes before slow repairs, and the metrics say how much is left.
#[tokio::test]
async fn background_work_stops_before_the_hour_is_spent() {
    let reset = (Timestamp::now().as_second() + 600).to_string();
    let left = |remaining: &str| {
        let headers = [
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", reset.as_str()),
            ("x-ratelimit-resource", "core"),
        ];
        answer(200, &headers, LABELS)
    };
    let stub = Stub::start([left("1001"), left("1000"), left("999")]).await;
    let metrics = metrics();
    let github = GitHub::new(GitHubOptions {
        metrics: metrics.clone(),
        ..options(&stub)
    })
    .unwrap();
    let slow = github.with_priority(Priority::Background);
    slow.labels(&repo(), 1).await.unwrap();
    slow.labels(&repo(), 2).await.unwrap();
    let error = slow.labels(&repo(), 3).await.unwrap_err();
    let until = error.retry_at().unwrap().as_second().to_string();
    assert!(error.is_outage() && until > reset, "{error}");
    github.labels(&repo(), 3).await.unwrap();
    assert_eq!(stub.requests().len(), 3);
    let told = told(&metrics);
    assert!(
        told.contains(r#"github_token_usage{token_hash="127.0.0.1:"#),
        "{told}"
    );
    assert!(
        told.contains(r#"api_version="v3",ratelimit_resource="core"} 999"#),
        "{told}"
    );
}

/// GHC-022: GraphQL is tried again when GitHub gives up on it, whatever the status, and its cost is counted.
#[tokio::test]
async fn ghc_022_a_query_is_tried_again_and_its_cost_is_counted() {
    let gave_up = r#"{"data":null,"errors":[{"message":"Something went wrong while executing your query. This may be the result of a timeout"}]}"#;
    let soon = Timestamp::now().as_second().to_string();
    let spent = [
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", soon.as_str()),
    ];
    let limited = r#"{"errors":[{"type":"RATE_LIMITED","message":"API rate limit exceeded"}]}"#;
    let stub = Stub::start([
        answer(502, &[], "<html>"),
        ok(gave_up),
        answer(200, &spent, limited),
        ok(SEARCHED),
    ])
    .await;
    let metrics = metrics();
    let retry = RetryPolicy {
        tries: 4,
        longest_wait: Duration::from_secs(5),
        ..quick()
    };
    let github = GitHub::new(GitHubOptions {
        metrics: metrics.clone(),
        retry,
        ..options(&stub)
    })
    .unwrap();
    let page = github.for_plugin("tide").search_issues(&query()).await;
    assert_eq!(page.unwrap().cost, 7);
    assert_eq!(stub.requests().len(), 4);
    let told = told(&metrics);
    assert!(told.contains(r#",plugin="tide"} 7"#), "{told}");
    assert!(
        told.contains("trireme_github_waited_seconds_total{why=\"limit\"}"),
        "{told}"
    );
}

/// GHC-010: in a dry run nothing that changes anything leaves, and reading goes on.
#[tokio::test]
async fn ghc_010_a_dry_run_changes_nothing() {
    let stub = Stub::start([ok(LABELS)]).await;
    let github = GitHub::new(GitHubOptions {
        dry_run: true,
        ..options(&stub)
    })
    .unwrap();
    let comment = github.create_comment(&repo(), 1, "hi").await.unwrap();
    assert_eq!(comment.body, "hi");
    github.add_labels(&repo(), 1, &["lgtm"]).await.unwrap();
    github.remove_label(&repo(), 1, "lgtm").await.unwrap();
    assert!(
        github
            .assign(&repo(), 1, &["eve"])
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        github
            .unassign(&repo(), 1, &["eve"])
            .await
            .unwrap()
            .is_empty()
    );
    let status = CommitStatus {
        state: StatusState::Success,
        context: "ci".into(),
        description: String::new(),
        target_url: String::new(),
    };
    github.create_status(&repo(), "abc", &status).await.unwrap();
    github.close_pull_request(&repo(), 1).await.unwrap();
    // Nobody may believe that this was merged.
    let Err(MergeError::Forge(error)) = github.merge(&repo(), 1, &merge_request()).await else {
        panic!("merged");
    };
    insta::assert_snapshot!(error, @"PUT /repos/org/repo/pulls/1/merge: not sent, this is a dry run");
    assert!(!error.is_outage());
    github.labels(&repo(), 1).await.unwrap();
    assert_eq!(
        stub.lines(),
        ["GET /repos/org/repo/issues/1/labels?per_page=100"]
    );
}

/// GHC-004: who asks is named by component, plugin and version, and counted.
#[tokio::test]
async fn ghc_004_requests_are_named_and_counted_by_plugin() {
    let stub = Stub::start([ok(LABELS), ok(LABELS), answer(500, &[], "")]).await;
    let metrics = metrics();
    let once = RetryPolicy {
        tries: 1,
        ..quick()
    };
    let github = GitHub::new(GitHubOptions {
        component: "hook".into(),
        metrics: metrics.clone(),
        retry: once,
        ..options(&stub)
    })
    .unwrap();
    let plugin = github.for_plugin("verify owners\n");
    github.labels(&repo(), 1).await.unwrap();
    plugin.labels(&repo(), 2).await.unwrap();
    plugin.labels(&repo(), 3).await.unwrap_err();
    assert_eq!((github.requests(), plugin.requests()), (1, 2));
    let agents: Vec<_> = stub
        .requests()
        .iter()
        .map(|request| request.header("user-agent").unwrap().to_owned())
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        agents[..2],
        [
            format!("hook/{version}"),
            format!("hook.verify-owners-/{version}")
        ]
    );
    let told = told(&metrics);
    assert!(
        told.contains(r#",plugin="verify owners\n",api="v3",method="GET",status="500"} 1"#),
        "{told}"
    );
    assert!(told.contains(r#"path="/repos/:owner/:repo/issues/:var/labels",status="200""#));
}

/// GHC-050: what is left of each budget is known by host, org and resource.
#[tokio::test]
async fn ghc_050_what_is_left_is_told_for_the_cluster_page() {
    let left = |resource: &'static str, remaining: &'static str| {
        [
            ("x-ratelimit-resource", resource),
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", "4000000000"),
        ]
    };
    let stub = Stub::start([
        answer(200, &left("core", "4000"), LABELS),
        answer(200, &left("core", "4100"), LABELS),
        answer(200, &left("graphql", "4900"), SEARCHED),
    ])
    .await;
    let github = GitHub::new(GitHubOptions {
        host: "github.com".to_owned(),
        ..options(&stub)
    })
    .unwrap();
    assert_eq!(github.budgets(), []);
    // Answers overtake each other: the least counts.
    for number in 1..=2 {
        github.labels(&repo(), number).await.unwrap();
    }
    github.search_issues(&query()).await.unwrap();
    let told: Vec<String> = github
        .budgets()
        .iter()
        .map(|told| {
            format!(
                "{} {}: {} of {} until {}",
                told.name, told.resource, told.remaining, told.limit, told.reset
            )
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    github.com core: 4000 of 5000 until 2096-10-02T07:06:40Z
    github.com graphql: 4900 of 5000 until 2096-10-02T07:06:40Z
    ");
}
