//! What the client does when GitHub does not simply answer: retries, limits, lost answers, caches, redirects, pages,
//! and whose name it acts in.

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

mod app;
mod away;
mod budgets;
mod cache;
mod hosts;
mod stub;

use std::time::{Duration, Instant};

use stub::{Reply, Stub, answer, ok};
use trireme_forge::git::GitCredentials as _;
use trireme_forge::github::{
    Credentials, GitHub, GitHubMetrics, GitHubOptions, MUTATION_TIMEOUT, RetryPolicy,
    TokenObserver, fixed_secret,
};
use trireme_forge::{
    Comments, ForgeError, Identity, Labels, Membership, MergeError, MergeMethod, MergeRequest,
    Merges, PullRequests, Refusal, RepoId, Repositories, Search, SearchRequest, Statuses,
};
use url::Url;

fn quick() -> RetryPolicy {
    RetryPolicy {
        tries: 3,
        tries_not_found: 2,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(50),
        mutation_timeout: Duration::from_secs(8),
        request_timeout: Duration::from_secs(5),
        read_deadline: Duration::from_secs(20),
        throttle_wait: Duration::from_secs(1),
    }
}

/// Whose changes have little time.
fn hurried(stub: &Stub) -> GitHub {
    let retry = RetryPolicy {
        mutation_timeout: Duration::from_millis(400),
        ..quick()
    };
    let credentials = Credentials::Token(fixed_secret("t0ken\n"));
    GitHub::new(GitHubOptions {
        retry,
        ..GitHubOptions::new(stub.url.clone(), credentials)
    })
    .unwrap()
}

fn as_whom(api: &Url, credentials: Credentials) -> GitHub {
    let options = GitHubOptions {
        retry: quick(),
        ..GitHubOptions::new(api.clone(), credentials)
    };
    GitHub::new(options).unwrap()
}

fn github(stub: &Stub) -> GitHub {
    as_whom(&stub.url, Credentials::Token(fixed_secret("t0ken\n")))
}

fn metrics() -> GitHubMetrics {
    GitHubMetrics::default()
}

/// What Prometheus would read.
fn told(metrics: &GitHubMetrics) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

fn repo() -> RepoId {
    RepoId::new("org", "repo")
}

const COMMENT: &str = r#"{"id":7,"html_url":"u","user":{"login":"bot","type":"Bot"},"body":"hi","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z"}"#;

const LABELS: &str = r#"[{"name":"lgtm","color":"ededed","description":null}]"#;

fn merge_request() -> MergeRequest {
    MergeRequest {
        expected_head_sha: "abc".into(),
        method: MergeMethod::Squash,
        title: Some("title".into()),
        message: None,
    }
}

/// GHC-004, GHC-005: the headers of a call, and how often it is tried.
#[tokio::test]
async fn reading_is_tried_again_until_it_works_or_tries_run_out() {
    let stub = Stub::start([answer(502, &[], "<html>"), Reply::HangUp, ok(LABELS)]).await;
    let labels = github(&stub).labels(&repo(), 1).await.unwrap();
    assert_eq!(labels[0].name, "lgtm");
    let request = &stub.requests()[0];
    assert_eq!(
        request.line,
        "GET /repos/org/repo/issues/1/labels?per_page=100"
    );
    assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
    assert_eq!(
        request.header("accept"),
        Some("application/vnd.github+json")
    );
    assert_eq!(request.header("x-github-api-version"), Some("2022-11-28"));

    let down = Stub::start([]).await;
    let error = github(&down).labels(&repo(), 1).await.unwrap_err();
    assert_eq!(down.requests().len(), 3);
    assert!(error.is_outage() && !error.maybe_sent());
    insta::assert_snapshot!(error, @"GET /repos/org/repo/issues/1/labels?per_page=100: the forge is unavailable: status 500 Internal Server Error");
}

/// GHC-005: what GitHub just told us of is looked for again.
#[tokio::test]
async fn what_is_new_may_not_be_found_at_first() {
    let stub = Stub::start([answer(404, &[], r#"{"message":"Not Found"}"#), ok("[]")]).await;
    assert!(
        github(&stub)
            .changed_files(&repo(), 1)
            .await
            .unwrap()
            .is_empty()
    );

    // Whoever is no member now was none a moment ago.
    let stub = Stub::start([answer(404, &[], "{}")]).await;
    assert!(!github(&stub).is_org_member("org", "eve").await.unwrap());
    assert_eq!(stub.lines(), ["GET /orgs/org/members/eve"]);
}

#[tokio::test]
async fn a_comment_that_may_have_arrived_is_not_sent_again() {
    for lost in [answer(502, &[], ""), Reply::HangUp, Reply::Silence] {
        let stub = Stub::start([lost, answer(201, &[], COMMENT)]).await;
        let error = hurried(&stub)
            .create_comment(&repo(), 1, "hi")
            .await
            .unwrap_err();
        assert!(error.maybe_sent() && error.is_outage(), "{error}");
        assert_eq!(stub.requests().len(), 1);
        assert_eq!(stub.requests()[0].body, r#"{"body":"hi"}"#);
    }
}

/// GHC-006: a limit that ends soon is waited for.
#[tokio::test]
async fn a_comment_that_cannot_have_arrived_is_sent_again() {
    // A port that was just free: nothing listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(listener);
    let error = as_whom(&free, Credentials::Anonymous)
        .create_comment(&repo(), 1, "hi")
        .await;
    let error = error.unwrap_err();
    assert!(error.is_outage() && !error.maybe_sent(), "{error}");

    // Refused for its rate, and the limit ends soon.
    let now = jiff::Timestamp::now().as_second().to_string();
    let spent = answer(
        403,
        &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &now)],
        "{}",
    );
    let stub = Stub::start([spent, answer(201, &[], COMMENT)]).await;
    let options = GitHubOptions {
        retry: RetryPolicy {
            longest_wait: Duration::from_secs(5),
            mutation_timeout: Duration::from_secs(5),
            ..quick()
        },
        ..GitHubOptions::new(stub.url.clone(), Credentials::Anonymous)
    };
    let comment = GitHub::new(options)
        .unwrap()
        .create_comment(&repo(), 1, "hi")
        .await
        .unwrap();
    assert_eq!((comment.id, comment.body.as_str()), (7, "hi"));
    assert_eq!(stub.requests().len(), 2);
}

#[tokio::test]
async fn a_mutation_ends_in_time_whatever_happens() {
    let stub = Stub::start(std::iter::repeat_n(Reply::Silence, 9)).await;
    let started = Instant::now();
    let error = hurried(&stub)
        .add_labels(&repo(), 1, &["lgtm"])
        .await
        .unwrap_err();
    // Setting a label twice is setting it once: nothing to look out for.
    assert!(error.is_outage() && !error.maybe_sent(), "{error}");
    assert!(started.elapsed() < MUTATION_TIMEOUT);
}

/// GHC-006: a limit that ends too late is an error that says when.
#[tokio::test]
async fn a_spent_budget_is_not_asked_again() {
    let reset = jiff::Timestamp::now().as_second() + 600;
    let spent = answer(
        403,
        &[
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", &reset.to_string()),
        ],
        "{}",
    );
    let stub = Stub::start([spent]).await;
    let github = github(&stub);
    for _ in 0..3 {
        let error = github.labels(&repo(), 1).await.unwrap_err();
        assert!(
            matches!(
                error,
                ForgeError::RateLimited {
                    secondary: false,
                    ..
                }
            ),
            "{error}"
        );
        // A second later: GitHub's clock and ours differ.
        assert_eq!(error.retry_at().unwrap().as_second(), reset + 1);
    }
    assert_eq!(stub.requests().len(), 1);

    let stub = Stub::start([answer(403, &[("retry-after", "60")], "{}")]).await;
    let error = github_error(&stub).await;
    assert!(
        matches!(
            error,
            ForgeError::RateLimited {
                secondary: true,
                ..
            }
        ),
        "{error}"
    );
}

async fn github_error(stub: &Stub) -> ForgeError {
    github(stub).labels(&repo(), 1).await.unwrap_err()
}

/// GHC-007, GHC-008
#[tokio::test]
async fn refusals_are_told_apart() {
    let say = async |status: u16, body: &str| {
        github_error(&Stub::start([answer(status, &[], body), answer(status, &[], body)]).await)
            .await
    };
    insta::assert_snapshot!(say(401, r#"{"message":"Bad credentials"}"#).await, @"GET /repos/org/repo/issues/1/labels?per_page=100: the forge did not accept our credentials: Bad credentials");
    insta::assert_snapshot!(say(403, r#"{"message":"Resource not accessible by integration"}"#).await, @"GET /repos/org/repo/issues/1/labels?per_page=100: forbidden: Resource not accessible by integration");
    insta::assert_snapshot!(say(404, r#"{"message":"Not Found"}"#).await, @"GET /repos/org/repo/issues/1/labels?per_page=100: not found: Not Found");
    insta::assert_snapshot!(say(422, r#"{"message":"Validation Failed","errors":[{"resource":"Issue","field":"x","code":"missing"}]}"#).await, @"GET /repos/org/repo/issues/1/labels?per_page=100: refused with status 422: Validation Failed (Issue.x: missing)");
    insta::assert_snapshot!(say(410, r#"{"message":"Issues are disabled for this repo"}"#).await, @"GET /repos/org/repo/issues/1/labels?per_page=100: refused with status 410: Issues are disabled for this repo");
    insta::assert_snapshot!(say(200, r#"{"not":"a list"}"#).await, @"GET /repos/org/repo/issues/1/labels?per_page=100: cannot read the answer: invalid type: map, expected a sequence at line 1 column 0");
}

/// GHC-041
#[tokio::test]
async fn what_did_not_change_costs_nothing() {
    let stub = Stub::start([
        answer(200, &[("etag", "\"1\"")], LABELS),
        answer(304, &[("etag", "\"1\"")], ""),
        answer(200, &[("etag", "\"2\"")], "[]"),
    ])
    .await;
    let github = github(&stub);
    let first = github.labels(&repo(), 1).await.unwrap();
    assert_eq!(github.labels(&repo(), 1).await.unwrap(), first);
    assert!(github.labels(&repo(), 1).await.unwrap().is_empty());
    let conditions: Vec<_> = stub
        .requests()
        .iter()
        .map(|request| request.header("if-none-match").map(str::to_owned))
        .collect();
    assert_eq!(
        conditions,
        [None, Some("\"1\"".to_owned()), Some("\"1\"".to_owned())]
    );
}

/// GHC-009
#[tokio::test]
async fn lists_are_followed_to_their_end_on_the_same_server() {
    let stub = Stub::start([]).await;
    let next = format!(
        "<{}repos/org/repo/labels?per_page=100&page=2>; rel=\"next\"",
        stub.url
    );
    stub.then(answer(200, &[("link", &next)], LABELS));
    stub.then(ok(LABELS));
    let labels = github(&stub).repo_labels(&repo()).await.unwrap();
    assert_eq!(labels.len(), 2);
    assert_eq!(
        stub.lines()[1],
        "GET /repos/org/repo/labels?per_page=100&page=2"
    );

    let stub = Stub::start([answer(
        200,
        &[("link", "<https://evil.example/x>; rel=\"next\"")],
        LABELS,
    )])
    .await;
    insta::assert_snapshot!(github(&stub).repo_labels(&repo()).await.unwrap_err(), @"GET /repos/org/repo/labels?per_page=100: cannot read the answer: the next page is on another server: https://evil.example/x");
}

/// GHC-009
#[tokio::test]
async fn a_renamed_repository_is_followed_but_not_to_another_server() {
    let repository = r#"{"name":"new","full_name":"org/new","owner":{"login":"org","type":"Organization"},"default_branch":"main","allow_squash_merge":true}"#;
    let stub = Stub::start([
        answer(301, &[("location", "/repositories/1")], ""),
        ok(repository),
    ])
    .await;
    let found = github(&stub).repository(&repo()).await.unwrap();
    assert_eq!(found.id, RepoId::new("org", "new"));
    assert!(found.allow_squash_merge && !found.allow_merge_commit);
    assert_eq!(
        stub.requests()[1].header("authorization"),
        Some("Bearer t0ken")
    );

    let stub = Stub::start([answer(301, &[("location", "https://evil.example/")], "")]).await;
    insta::assert_snapshot!(github(&stub).repository(&repo()).await.unwrap_err(), @"GET /repos/org/repo: refused with status 301: redirected to another server: https://evil.example/");
}

/// GHC-016: Prow's kinds of refused merges.
#[tokio::test]
async fn a_merge_is_done_refused_or_in_doubt() {
    let stub = Stub::start([ok(r#"{"sha":"fff","merged":true,"message":"x"}"#)]).await;
    let merged = github(&stub)
        .merge(&repo(), 1, &merge_request())
        .await
        .unwrap();
    assert_eq!(merged.sha, "fff");
    let request = &stub.requests()[0];
    assert_eq!(request.line, "PUT /repos/org/repo/pulls/1/merge");
    assert_eq!(
        request.body,
        r#"{"sha":"abc","merge_method":"squash","commit_title":"title"}"#
    );

    let message = r#"{"message":"Head branch was modified. Review and try the merge again."}"#;
    let stub = Stub::start([answer(409, &[], message)]).await;
    let Err(MergeError::Refused(refused)) = github(&stub).merge(&repo(), 1, &merge_request()).await
    else {
        panic!("not refused")
    };
    assert_eq!(refused.kind, Refusal::ModifiedHead);
    assert_eq!(
        refused.message,
        "Head branch was modified. Review and try the merge again."
    );

    let stub = Stub::start([Reply::HangUp, ok("{}")]).await;
    let error = github(&stub)
        .merge(&repo(), 1, &merge_request())
        .await
        .unwrap_err();
    assert!(error.maybe_sent() && error.is_outage());
    assert_eq!(stub.requests().len(), 1);
}

/// HOOK-025
#[tokio::test]
async fn removing_a_label_that_is_not_there_is_done() {
    let stub = Stub::start([answer(404, &[], r#"{"message":"Label does not exist"}"#)]).await;
    github(&stub)
        .remove_label(&repo(), 1, "do-not-merge/hold")
        .await
        .unwrap();
    assert_eq!(
        stub.lines(),
        ["DELETE /repos/org/repo/issues/1/labels/do-not-merge%2Fhold"]
    );

    let stub = Stub::start([answer(404, &[], r#"{"message":"Not Found"}"#)]).await;
    let error = github(&stub)
        .remove_label(&repo(), 1, "x")
        .await
        .unwrap_err();
    assert!(error.is_not_found());
}

#[tokio::test]
async fn combined_status_is_all_its_pages() {
    let page = |context: &str| {
        format!(
            r#"{{"sha":"abc","state":"failure","statuses":[{{"context":"{context}","state":"success","description":null,"target_url":null}}]}}"#
        )
    };
    let stub = Stub::start([]).await;
    let next = format!(
        "<{}repos/org/repo/commits/abc/status?page=2>; rel=\"next\"",
        stub.url
    );
    stub.then(answer(200, &[("link", &next)], page("a")));
    stub.then(ok(page("b")));
    let combined = github(&stub).combined_status(&repo(), "abc").await.unwrap();
    let contexts: Vec<_> = combined
        .statuses
        .iter()
        .map(|status| status.context.as_str())
        .collect();
    assert_eq!(contexts, ["a", "b"]);
}

/// TIDE-013: what came counts, and it is known that it is not all.
#[tokio::test]
async fn a_search_that_breaks_off_keeps_what_came() {
    let node = r#"{"number":1,"title":"t","url":"u","repository":{"name":"repo","owner":{"login":"org"}}}"#;
    let pull = r#"{"number":5,"title":"t","body":"b","isDraft":false,"updatedAt":"2026-01-01T00:00:00Z","author":{"__typename":"Bot","login":"bot"},"baseRefName":"main","baseRef":{"name":"main","prefix":"refs/heads/"},"headRefName":"topic","headRefOid":"abc","mergeable":"MERGEABLE","mergeStateStatus":"CLEAN","canBeRebased":true,"reviewDecision":null,"repository":{"name":"repo","owner":{"login":"org"}},"labels":{"nodes":[{"name":"lgtm"}]},"milestone":null,"commits":{"nodes":[{"commit":{"oid":"abc","status":{"contexts":[{"context":"ci","description":null,"state":"EXPECTED"}]},"statusCheckRollup":{"contexts":{"nodes":[{},{"name":"check","status":"COMPLETED","conclusion":"NEUTRAL"}]}}}}]}}"#;
    let page = |nodes: &str, next: bool| {
        format!(
            r#"{{"data":{{"rateLimit":{{"cost":1,"remaining":9}},"search":{{"issueCount":2,"pageInfo":{{"hasNextPage":{next},"endCursor":"c"}},"nodes":[{nodes}]}}}}}}"#
        )
    };
    let stub = Stub::start([ok(page(&format!("{pull},null,{{}}"), true))]).await;
    let found = github(&stub)
        .search_all_pull_requests("is:pr", Some("org"))
        .await
        .unwrap();
    assert_eq!((found.nodes.len(), found.cost, found.total), (1, 1, 2));
    insta::assert_snapshot!(found.incomplete.unwrap(), @"POST /graphql (search pull requests): the forge is unavailable: status 500 Internal Server Error");
    let pull = &found.nodes[0];
    assert_eq!(pull.base_branch, "main");
    let head = pull.head_commit().unwrap();
    assert_eq!(head.statuses[0].state.as_upper(), "EXPECTED");
    assert_eq!(head.check_runs[0].conclusion, "NEUTRAL");
    assert_eq!(head.check_runs.len(), 1);

    let stub = Stub::start([ok(page(node, false))]).await;
    let request = SearchRequest {
        query: "is:issue".into(),
        ..Default::default()
    };
    let found = github(&stub).search_issues(&request).await.unwrap();
    assert_eq!((found.nodes[0].number, found.next), (1, None));

    let limited =
        r#"{"data":null,"errors":[{"type":"RATE_LIMITED","message":"API rate limit exceeded"}]}"#;
    let stub = Stub::start([ok(limited)]).await;
    let error = github(&stub).search_issues(&request).await.unwrap_err();
    assert!(matches!(error, ForgeError::RateLimited { .. }), "{error}");
    let refused = r#"{"errors":[{"message":"Field 'x' doesn't exist on type 'Query'"}]}"#;
    let stub = Stub::start([ok(refused)]).await;
    insta::assert_snapshot!(github(&stub).search_issues(&request).await.unwrap_err(), @"POST /graphql (search issues): refused with status 200: Field 'x' doesn't exist on type 'Query'");
}

fn app(stub: &Stub) -> GitHub {
    let key = fixed_secret(include_str!("../data/app.pem"));
    as_whom(&stub.url, Credentials::App { id: 42, key })
}

/// GHC-012, GHC-014. HOOK-022, CFG-098: whoever keeps secrets out of logs is told of each token and of its end.
#[tokio::test]
async fn an_app_acts_as_its_installation_in_each_organisation() {
    let installations =
        r#"[{"id":1,"account":{"login":"Org"}},{"id":2,"account":{"login":"other"}}]"#;
    let token = |token: &str| {
        answer(
            201,
            &[],
            format!(r#"{{"token":"{token}","expires_at":"2999-01-01T00:00:00Z"}}"#),
        )
    };
    let stub = Stub::start([
        ok(r#"{"slug":"trireme-bot","id":42}"#),
        ok(installations),
        token("one"),
        ok(LABELS),
        // Revoked: a new one is asked for, once.
        answer(401, &[], r#"{"message":"Bad credentials"}"#),
        ok(installations),
        token("two"),
        ok(LABELS),
    ])
    .await;
    let (tell, told) = std::sync::mpsc::channel();
    let github = app(&stub).telling(TokenObserver::new(move |token, expires| {
        tell.send((token.to_owned(), expires.to_string())).unwrap();
    }));
    let bot = github.bot_user("org").await.unwrap();
    assert!(bot.app && bot.is("trireme-bot[bot]"));
    assert_eq!(github.bot_user("org").await.unwrap(), bot);
    github.labels(&repo(), 1).await.unwrap();
    github.labels(&repo(), 2).await.unwrap();
    let secret = github.secret(&repo()).await.unwrap().unwrap();
    assert_eq!(
        (secret.username.as_str(), secret.password.as_str()),
        ("x-access-token", "two")
    );
    let end = "2999-01-01T00:00:00Z".to_owned();
    assert_eq!(
        told.try_iter().collect::<Vec<_>>(),
        [("one".to_owned(), end.clone()), ("two".to_owned(), end)]
    );

    insta::assert_snapshot!(stub.lines().join("\n"), @r"
    GET /app
    GET /app/installations?per_page=100
    POST /app/installations/1/access_tokens
    GET /repos/org/repo/issues/1/labels?per_page=100
    GET /repos/org/repo/issues/2/labels?per_page=100
    GET /app/installations?per_page=100
    POST /app/installations/1/access_tokens
    GET /repos/org/repo/issues/2/labels?per_page=100
    ");
    let requests = stub.requests();
    let with = |n: usize| requests[n].header("authorization").unwrap().to_owned();
    assert!(with(0).starts_with("Bearer ey") && with(2).starts_with("Bearer ey"));
    assert_eq!(
        (with(3), with(7)),
        ("Bearer one".to_owned(), "Bearer two".to_owned())
    );

    let stub = Stub::start([ok("[]")]).await;
    let error = app(&stub).labels(&repo(), 1).await.unwrap_err();
    insta::assert_snapshot!(error, @"GET /app/installations: forbidden: the GitHub App is not installed in organization org");
    let broken = as_whom(
        &stub.url,
        Credentials::App {
            id: 1,
            key: fixed_secret("no key"),
        },
    );
    let error = broken.bot_user("org").await.unwrap_err().to_string();
    assert!(
        error.contains("private key is not an RSA key in PEM"),
        "{error}"
    );
}

/// CFG-115: what the expensive checks of a configuration ask.
#[tokio::test]
async fn cfg_115_repositories_of_an_org_and_installations_of_an_app_are_listed_to_the_end() {
    let page = r#"[{"name":"a","full_name":"org/a","owner":{"login":"org"},"archived":true}]"#;
    let stub = Stub::start([]).await;
    let next = format!(
        "<{}orgs/org/repos?per_page=100&page=2>; rel=\"next\"",
        stub.url
    );
    stub.then(answer(200, &[("link", &next)], page));
    stub.then(ok(
        r#"[{"name":"b","full_name":"org/b","owner":{"login":"org"}}]"#,
    ));
    let installations = r#"[{"id":1,"account":{"login":"org"}},{"id":2,"account":null},{"id":3,"account":{"login":"Other"}}]"#;
    stub.then(ok(installations));
    let github = github(&stub);
    let repos = github.org_repositories("org").await.unwrap();
    let names: Vec<_> = repos
        .iter()
        .map(|repo| (repo.id.to_string(), repo.archived))
        .collect();
    assert_eq!(
        names,
        [("org/a".to_owned(), true), ("org/b".to_owned(), false)]
    );
    assert_eq!(github.app_installations().await.unwrap(), ["org", "Other"]);
    assert_eq!(
        stub.lines(),
        [
            "GET /orgs/org/repos?per_page=100",
            "GET /orgs/org/repos?per_page=100&page=2",
            "GET /app/installations?per_page=100"
        ]
    );
}
