//! Several addresses of one GitHub, and several GitHubs.

use std::collections::BTreeMap;

use trireme_forge::git::GitCredentials as _;
use trireme_forge::github::{
    Credentials, GitHub, GitHubOptions, HostOptions, RetryPolicy, fixed_secret,
};
use trireme_forge::{
    Comments, Deliveries as _, HookScope, Identity, Labels, RepoId, Repositories, Search,
    SearchRequest,
};
use url::Url;

use super::stub::{Reply, Stub, answer, ok};
use super::{COMMENT, LABELS, quick, repo};

/// A port that was just free: nothing listens there.
fn nobody() -> Url {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    url.parse().unwrap()
}

fn at(urls: &[Url], retry: RetryPolicy) -> GitHub {
    GitHub::new(GitHubOptions {
        fallbacks: urls[1..].to_vec(),
        retry,
        ..GitHubOptions::new(urls[0].clone(), Credentials::Anonymous)
    })
    .unwrap()
}

/// GHC-001, GHC-005: an address is asked when those before it are not there, even if only one try is allowed.
#[tokio::test]
async fn ghc_005_the_next_address_is_asked_when_nobody_is_at_the_first() {
    let stub = Stub::start([ok(LABELS), answer(201, &[], COMMENT)]).await;
    let once = RetryPolicy {
        tries: 1,
        ..quick()
    };
    let github = at(&[nobody(), nobody(), stub.url.clone()], once);
    assert_eq!(github.labels(&repo(), 1).await.unwrap().len(), 1);
    // A comment cannot have arrived where nobody was.
    github.create_comment(&repo(), 1, "hi").await.unwrap();
    assert_eq!(stub.requests().len(), 2);
}

/// GHC-005: after the last address the first is asked again; an answer of any kind is one.
#[tokio::test]
async fn ghc_005_addresses_are_asked_around() {
    let first = Stub::start([Reply::HangUp, ok(LABELS)]).await;
    let second = Stub::start([Reply::HangUp, answer(404, &[], "{}")]).await;
    let github = at(&[first.url.clone(), second.url.clone()], quick());
    assert_eq!(github.repo_labels(&repo()).await.unwrap().len(), 1);
    assert_eq!((first.requests().len(), second.requests().len()), (2, 1));
    // A broken server is one that answers: no other is asked.
    let broken = Stub::start([]).await;
    let github = at(&[broken.url.clone(), second.url.clone()], quick());
    assert!(github.repo_labels(&repo()).await.unwrap_err().is_outage());
    assert_eq!((broken.requests().len(), second.requests().len()), (3, 1));
}

/// A comment that may have arrived is sent nowhere else.
#[tokio::test]
async fn ghc_005_what_may_have_arrived_is_sent_to_no_other_address() {
    let first = Stub::start([Reply::HangUp]).await;
    let second = Stub::start([answer(201, &[], COMMENT)]).await;
    let github = at(&[first.url.clone(), second.url.clone()], quick());
    let error = github.create_comment(&repo(), 1, "hi").await.unwrap_err();
    assert!(error.maybe_sent());
    assert!(second.requests().is_empty());
}

/// GHC-015, GHC-022: GraphQL, too, is asked beside the next address.
#[tokio::test]
async fn ghc_022_queries_go_to_the_next_address_too() {
    let stub = Stub::start([ok(
        r#"{"data":{"search":{"issueCount":0,"pageInfo":{"hasNextPage":false,"endCursor":null},"nodes":[]}}}"#,
    )])
    .await;
    let github = at(&[nobody(), stub.url.clone()], quick());
    let request = SearchRequest::default();
    github.search_issues(&request).await.unwrap();
    assert_eq!(stub.lines(), ["POST /graphql"]);
    let accept = stub.requests()[0].header("accept").unwrap().to_owned();
    assert!(accept.contains("antiope-preview") && accept.contains("merge-info-preview"));
}

/// GHC-026: which orgs live where; each server is shown its own credentials, and nothing of one is taken for the other's.
#[tokio::test]
async fn ghc_026_orgs_live_on_several_githubs() {
    let user = |login: &str| ok(format!(r#"{{"login":"{login}","type":"User","email":""}}"#));
    let tagged = |tag: &str, body: &str| answer(200, &[("etag", tag)], body);
    let com = Stub::start([tagged("\"com\"", LABELS), user("bot"), answer(304, &[], "")]).await;
    let own = Stub::start([tagged("\"own\"", "[]"), user("robot"), answer(304, &[], "")]).await;
    let mut api = own.url.clone();
    api.set_path("/api/v3");
    let token = |token: &str| Credentials::Token(fixed_secret(token));
    let github = GitHub::new(GitHubOptions {
        others: vec![HostOptions::new(api, token("own"), vec!["Team".to_owned()])],
        ..GitHubOptions::new(com.url.clone(), token("com"))
    })
    .unwrap();
    let team = RepoId::new("team", "repo");
    assert_eq!(github.labels(&repo(), 1).await.unwrap().len(), 1);
    assert_eq!(github.labels(&team, 1).await.unwrap().len(), 0);
    assert_eq!(github.bot_user("org").await.unwrap().login, "bot");
    assert_eq!(github.bot_user("TEAM").await.unwrap().login, "robot");
    assert_eq!(github.bot_user("team").await.unwrap().login, "robot");
    assert_eq!(github.labels(&repo(), 1).await.unwrap().len(), 1);
    assert_eq!(github.labels(&team, 1).await.unwrap().len(), 0);
    insta::assert_snapshot!(own.lines().join("\n"), @r"
    GET /api/v3/repos/team/repo/issues/1/labels?per_page=100
    GET /api/v3/user
    GET /api/v3/repos/team/repo/issues/1/labels?per_page=100
    ");
    let all = |stub: &Stub, name: &str| {
        let requests = stub.requests();
        let told: BTreeMap<_, _> = requests
            .iter()
            .filter_map(|request| Some((request.header(name)?.to_owned(), ())))
            .collect();
        told.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(all(&own, "authorization"), ["Bearer own"]);
    assert_eq!(all(&com, "authorization"), ["Bearer com"]);
    assert_eq!(all(&own, "if-none-match"), ["\"own\""]);
    let secret = github.secret(&team).await.unwrap().unwrap();
    assert_eq!(
        (secret.username.as_str(), secret.password.as_str()),
        ("robot", "own")
    );
    assert!(github.sees_by_org());
}

/// GHC-026: a limit of one GitHub is none of the other's.
#[tokio::test]
async fn ghc_026_a_limit_of_one_github_is_not_anothers() {
    let com = Stub::start([answer(429, &[("retry-after", "60")], "{}")]).await;
    let own = Stub::start([ok(LABELS)]).await;
    let github = GitHub::new(GitHubOptions {
        others: vec![HostOptions::new(
            own.url.clone(),
            Credentials::Anonymous,
            vec!["team".to_owned()],
        )],
        ..GitHubOptions::new(com.url.clone(), Credentials::Anonymous)
    })
    .unwrap();
    let error = github.labels(&repo(), 1).await.unwrap_err();
    assert!(error.retry_at().is_some(), "{error}");
    let team = RepoId::new("team", "repo");
    assert_eq!(github.labels(&team, 1).await.unwrap().len(), 1);
}

/// GHC-009: Enterprise's prefix and ids instead of names; what a proxy hands through is asked through the proxy.
#[tokio::test]
async fn ghc_009_pages_and_renamed_repositories_are_followed_through_a_proxy() {
    let next = r#"<https://ghe.example/api/v3/repositories/1/labels?page=2>; rel="next""#;
    let repository = r#"{"name":"new","full_name":"org/new","owner":{"login":"org"}}"#;
    let moved = [("location", "https://ghe.example/api/v3/repositories/1")];
    let stub = Stub::start([
        answer(200, &[("link", next)], LABELS),
        ok(LABELS),
        answer(301, &moved, ""),
        ok(repository),
    ])
    .await;
    let github = GitHub::new(GitHubOptions {
        host: "ghe.example".to_owned(),
        ..GitHubOptions::new(stub.url.clone(), Credentials::Token(fixed_secret("t")))
    })
    .unwrap();
    assert_eq!(github.repo_labels(&repo()).await.unwrap().len(), 2);
    let found = github.repository(&repo()).await.unwrap();
    assert_eq!(found.id, RepoId::new("org", "new"));
    insta::assert_snapshot!(stub.lines().join("\n"), @r"
    GET /repos/org/repo/labels?per_page=100
    GET /repositories/1/labels?page=2
    GET /repos/org/repo
    GET /repositories/1
    ");
    let shown = |request: &super::stub::Request| request.header("authorization").is_some();
    assert!(stub.requests().iter().all(shown));
}

/// GHC-026, HOOK-043: an App's lost deliveries are asked for where the App is.
#[tokio::test]
async fn ghc_026_each_apps_deliveries_are_asked_for_on_its_host() {
    let app = || Credentials::App {
        id: 42,
        key: fixed_secret(include_str!("../data/app.pem")),
    };
    let com = Stub::start([ok("[]")]).await;
    let own = Stub::start([ok("[]"), answer(202, &[], "{}")]).await;
    let team = HostOptions {
        host: "ghe.example".to_owned(),
        ..HostOptions::new(own.url.clone(), app(), vec!["team".to_owned()])
    };
    let plain = HostOptions {
        host: "plain.example".to_owned(),
        ..HostOptions::new(nobody(), Credentials::Anonymous, vec!["plain".to_owned()])
    };
    let github = GitHub::new(GitHubOptions {
        host: "github.com".to_owned(),
        others: vec![team, plain],
        ..GitHubOptions::new(com.url.clone(), app())
    })
    .unwrap();
    assert_eq!(github.app_hosts(), ["github.com", "ghe.example"]);
    let of = |host: &str| HookScope::App {
        host: host.to_owned(),
    };
    for host in github.app_hosts() {
        let page = github.hook_deliveries(&of(&host), None).await.unwrap();
        assert!(page.deliveries.is_empty());
    }
    github.redeliver(&of("ghe.example"), 5).await.unwrap();
    assert_eq!(com.lines(), ["GET /app/hook/deliveries?per_page=100"]);
    insta::assert_snapshot!(own.lines().join("\n"), @r"
    GET /app/hook/deliveries?per_page=100
    POST /app/hook/deliveries/5/attempts
    ");
    let error = github.redeliver(&of("plain.example"), 5).await.unwrap_err();
    insta::assert_snapshot!(error, @"GET /app/hook/deliveries: not found: no GitHub App of ours is configured for plain.example");
}

/// GHC-014: git signs in as the bot where there is a token, and as GitHub wants it where there is none.
#[tokio::test]
async fn ghc_014_git_signs_in_as_the_bot() {
    let stub = Stub::start([ok(r#"{"login":"robot","type":"User"}"#)]).await;
    let github = GitHub::new(GitHubOptions::new(
        stub.url.clone(),
        Credentials::Token(fixed_secret(" t\n")),
    ))
    .unwrap();
    for _ in 0..2 {
        let secret = github.secret(&repo()).await.unwrap().unwrap();
        assert_eq!(
            (secret.username.as_str(), secret.password.as_str()),
            ("robot", "t")
        );
    }
    assert_eq!(stub.lines(), ["GET /user"]);
}
