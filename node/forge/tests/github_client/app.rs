//! A GitHub App's installations: tokens, ids that become stale, orgs that fail alone.

use trireme_forge::github::{Credentials, GitHub, GitHubOptions, fixed_secret};
use trireme_forge::{Comments, Identity, Labels, RepoId};

use super::stub::{Reply, Stub, answer, ok};
use super::{COMMENT, LABELS, metrics, quick, repo, told};

fn options(stub: &Stub) -> GitHubOptions {
    let key = fixed_secret(include_str!("../data/app.pem"));
    GitHubOptions {
        retry: quick(),
        ..GitHubOptions::new(stub.url.clone(), Credentials::App { id: 42, key })
    }
}

fn app(stub: &Stub) -> GitHub {
    GitHub::new(options(stub)).unwrap()
}

fn token(token: &str) -> Reply {
    let body = format!(r#"{{"token":"{token}","expires_at":"2999-01-01T00:00:00Z"}}"#);
    answer(201, &[], body)
}

fn installations(ids: &[(u64, &str, bool)]) -> Reply {
    let one = |(id, org, suspended): &(u64, &str, bool)| {
        let at = if *suspended {
            r#""2026-01-01T00:00:00Z""#
        } else {
            "null"
        };
        format!(
            r#"{{"id":{id},"app_slug":"bot","account":{{"login":"{org}"}},"suspended_at":{at}}}"#
        )
    };
    let all: Vec<String> = ids.iter().map(one).collect();
    ok(format!("[{}]", all.join(",")))
}

/// GHC-022: an installation that was made anew has another id; the old one is dropped when GitHub does not know it.
#[tokio::test]
async fn ghc_022_a_stale_id_is_dropped() {
    let stub = Stub::start([
        installations(&[(1, "org", false)]),
        token("one"),
        // The app was removed and installed again.
        answer(401, &[], "{}"),
        installations(&[(1, "org", false)]),
        answer(404, &[], r#"{"message":"Not Found"}"#),
    ])
    .await;
    let github = app(&stub);
    let error = github.labels(&repo(), 1).await.unwrap_err();
    insta::assert_snapshot!(error, @"GET /app/installations: forbidden: the GitHub App is not installed in organization org");

    let stub = Stub::start([
        installations(&[(1, "org", false), (5, "other", false)]),
        token("other"),
        ok(LABELS),
        // Found in the list that was read for the other one, and gone since.
        answer(404, &[], r#"{"message":"Not Found"}"#),
        installations(&[(2, "org", false), (5, "other", false)]),
        token("two"),
        ok(LABELS),
        // The other one's token is still good.
        ok(LABELS),
    ])
    .await;
    let github = app(&stub);
    let other = RepoId::new("other", "repo");
    github.labels(&other, 1).await.unwrap();
    github.labels(&repo(), 1).await.unwrap();
    github.labels(&other, 2).await.unwrap();
    insta::assert_snapshot!(stub.lines().join("\n"), @r"
    GET /app/installations?per_page=100
    POST /app/installations/5/access_tokens
    GET /repos/other/repo/issues/1/labels?per_page=100
    POST /app/installations/1/access_tokens
    GET /app/installations?per_page=100
    POST /app/installations/2/access_tokens
    GET /repos/org/repo/issues/1/labels?per_page=100
    GET /repos/other/repo/issues/2/labels?per_page=100
    ");
}

/// GHC-027: an org fails alone, its gauge says why, and nobody asks for it again and again.
#[tokio::test]
async fn ghc_027_an_org_without_a_working_installation_fails_alone() {
    let stub = Stub::start([
        installations(&[(1, "Org", false), (2, "asleep", true), (3, "drowsy", false)]),
        answer(
            403,
            &[],
            r#"{"message":"This installation has been suspended"}"#,
        ),
        token("one"),
        ok(LABELS),
        answer(
            403,
            &[],
            r#"{"message":"Resource not accessible by integration"}"#,
        ),
    ])
    .await;
    let metrics = metrics();
    let github = GitHub::new(GitHubOptions {
        metrics: metrics.clone(),
        ..options(&stub)
    })
    .unwrap();
    let labels = async |org: &str| github.labels(&RepoId::new(org, "repo"), 1).await;
    let mut errors = Vec::new();
    for org in ["asleep", "gone", "drowsy", "asleep", "gone", "drowsy"] {
        errors.push(labels(org).await.unwrap_err().to_string());
    }
    assert_eq!(errors[..3], errors[3..]);
    insta::assert_snapshot!(errors[..3].join("\n"), @r"
    GET /app/installations: forbidden: the installation of the GitHub App in organization asleep is suspended
    GET /app/installations: forbidden: the GitHub App is not installed in organization gone
    GET /app/installations: forbidden: the installation of the GitHub App in organization drowsy is suspended
    ");
    labels("org").await.unwrap();
    let comment = github.create_comment(&repo(), 1, "hi").await.unwrap_err();
    insta::assert_snapshot!(comment, @"POST /repos/org/repo/issues/1/comments: forbidden: Resource not accessible by integration");
    assert_eq!(stub.requests().len(), 5);
    let told = told(&metrics);
    for (org, reason) in [
        ("asleep", "suspended"),
        ("drowsy", "suspended"),
        ("gone", "missing"),
        ("org", "lacks-right"),
    ] {
        let gauge = format!(r#"org="{org}",reason="{reason}"}} 1"#);
        assert!(told.contains(&gauge), "{gauge}: {told}");
    }
}

/// GHC-027: the token of one org is not waited for by another.
#[tokio::test]
async fn ghc_027_no_org_waits_for_anothers_token() {
    let stub = Stub::start([
        installations(&[(1, "org", false), (2, "other", false)]),
        Reply::Silence,
        token("two"),
        ok(LABELS),
    ])
    .await;
    let github = app(&stub);
    let other = RepoId::new("other", "repo");
    let silent = async {
        github.labels(&repo(), 1).await.unwrap_err();
        panic!("it ended first");
    };
    tokio::select! {
        never = silent => never,
        done = async {
            stub.asked(2).await;
            github.labels(&other, 1).await
        } => assert_eq!(done.unwrap().len(), 1),
    }
}

/// GHC-010: in a dry run tokens are asked for, so that reading works.
#[tokio::test]
async fn ghc_010_a_dry_run_asks_for_tokens() {
    let stub = Stub::start([
        installations(&[(1, "org", false)]),
        token("one"),
        ok(LABELS),
        answer(201, &[], COMMENT),
    ])
    .await;
    let github = GitHub::new(GitHubOptions {
        dry_run: true,
        ..options(&stub)
    })
    .unwrap();
    github.labels(&repo(), 1).await.unwrap();
    github.create_comment(&repo(), 1, "hi").await.unwrap();
    assert_eq!(stub.requests().len(), 3);
}

/// GHC-012: forty who need the first token at once ask for it once, and none of them starves the request for it.
#[tokio::test]
async fn ghc_012_many_who_wait_for_a_token_ask_once() {
    let stub = Stub::start([installations(&[(1, "org", false)]), token("one")]).await;
    let numbers = 1..=trireme_forge::github::MAX_IN_FLIGHT as u64 + 10;
    for _ in numbers.clone() {
        stub.then(ok(LABELS));
    }
    let github = app(&stub);
    let repo = repo();
    let all = numbers.map(|number| github.labels(&repo, number));
    for answer in futures::future::join_all(all).await {
        answer.unwrap();
    }
    let asked = stub.lines();
    let tokens = asked.iter().filter(|line| line.starts_with("POST"));
    assert_eq!(tokens.count(), 1);
}

/// A change ends in its time even if it has to wait for a token first: nothing is sent afterwards.
#[tokio::test]
async fn a_change_that_waited_too_long_for_its_token_is_not_sent() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let held = Reply::Held(go.clone(), Box::new(installations(&[(1, "org", false)])));
    let stub = Stub::start([held, token("one"), answer(201, &[], COMMENT)]).await;
    let mut options = options(&stub);
    let time = std::time::Duration::from_secs(1);
    options.retry.mutation_timeout = time;
    let github = GitHub::new(options).unwrap();
    let (error, ()) = tokio::join!(
        async { github.create_comment(&repo(), 1, "hi").await.unwrap_err() },
        async {
            stub.asked(1).await;
            // Longer than the change has.
            tokio::time::sleep(time * 2).await;
            go.notify_one();
        }
    );
    assert!(error.is_outage() && !error.maybe_sent(), "{error}");
    assert_eq!(stub.requests().len(), 2);
}

/// GHC-013: a ghproxy on the way is told whose budget it is and when the token ends.
#[tokio::test]
async fn ghc_013_a_proxy_is_told_of_the_budget() {
    let stub = Stub::start([
        ok(r#"{"slug":"bot","id":42}"#),
        installations(&[(1, "org", false)]),
        token("one"),
        ok(LABELS),
    ])
    .await;
    let github = app(&stub);
    let bot = github.bot_user("org").await.unwrap();
    assert_eq!(bot.email, "bot@users.noreply.github.com");
    github.labels(&repo(), 1).await.unwrap();
    let requests = stub.requests();
    let budgets: Vec<_> = requests
        .iter()
        .map(|request| {
            request
                .header("x-prow-ghcache-token-budget-identifier")
                .unwrap()
        })
        .collect();
    assert_eq!(budgets, ["42", "bot", "bot", "bot - org"]);
    let last = requests[3].header("x-prow-token-expires-at");
    assert_eq!(last, Some("2999-01-01T00:00:00Z"));
}

/// GHC-024: what each installation lacks is named.
#[tokio::test]
async fn ghc_024_gaps_of_installations_are_named() {
    let all = r#""permissions":{"actions":"read","administration":"read","checks":"write","contents":"write","issues":"write","members":"read","pull_requests":"write","statuses":"write","workflows":"write"},"events":["check_run","issue_comment","issues","pull_request","pull_request_review","pull_request_review_comment","push","status"]"#;
    let less = all
        .replace(r#""statuses":"write""#, r#""statuses":"read""#)
        .replace(r#""members":"read","#, "")
        .replace(r#""push","#, "");
    let stub = Stub::start([ok(format!(
        r#"[{{"id":1,"account":{{"login":"fine"}},{all}}},{{"id":2,"account":{{"login":"less"}},{less}}}]"#
    ))])
    .await;
    let gaps = app(&stub).installation_gaps().await.unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].org.as_str(), gaps[0].suspended), ("less", false));
    assert_eq!(gaps[0].permissions, ["members: read", "statuses: write"]);
    assert_eq!(gaps[0].events, ["push"]);
    // Nobody but an app has any.
    let anonymous = GitHubOptions::new(stub.url.clone(), Credentials::Anonymous);
    assert!(
        GitHub::new(anonymous)
            .unwrap()
            .installation_gaps()
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(stub.requests().len(), 1);
}
