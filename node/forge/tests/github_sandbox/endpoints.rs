//! What a fake of GitHub must serve to run hook, trigger, tide, crier, approve and lgtm: the rows of the checklist that
//! are marked core, and what is asked of GraphQL, against the sandbox.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use trireme_forge::github::{Credentials, GitHub, GitHubOptions, fixed_secret};
use trireme_forge::{Identity as _, Labels as _};
use trireme_sandbox::Exchange;
use trireme_sandbox::world::{BOT, ORG, REPO};

use super::scene::Scene;

/// As whom.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Bot,
    App,
}

/// The row's path, as the checklist writes it, the method, what to send, and the codes that Prow's client takes.
type Line = (&'static str, &'static str, Value, &'static [u16], As);

/// In an order in which each finds what it needs.
fn lines() -> Vec<Line> {
    let none = || Value::Null;
    vec![
        ("/user", "GET", none(), &[200], As::Bot),
        ("/app", "GET", none(), &[200], As::App),
        ("/app/installations", "GET", none(), &[200], As::App),
        (
            "/app/installations/{id}/access_tokens",
            "POST",
            none(),
            &[201],
            As::App,
        ),
        (
            "/repos/{o}/{r}/installation",
            "GET",
            none(),
            &[200],
            As::App,
        ),
        ("/repos/{o}/{r}/pulls/{n}", "GET", none(), &[200], As::Bot),
        (".../pulls/{n}/files", "GET", none(), &[200], As::Bot),
        (".../pulls/{n}/commits", "GET", none(), &[200], As::Bot),
        (".../pulls/{n}/comments", "GET", none(), &[200], As::Bot),
        (".../pulls/{n}/reviews", "GET", none(), &[200], As::Bot),
        (
            ".../issues/{n}/comments",
            "POST",
            json!({"body": "x"}),
            &[201],
            As::Bot,
        ),
        (".../issues/{n}/comments", "GET", none(), &[200], As::Bot),
        (
            ".../issues/comments/{id}",
            "PATCH",
            json!({"body": "y"}),
            &[200],
            As::Bot,
        ),
        (
            ".../issues/comments/{id}",
            "DELETE",
            none(),
            &[204],
            As::Bot,
        ),
        (
            ".../issues/comments/{id}",
            "DELETE",
            none(),
            &[404],
            As::Bot,
        ),
        (
            ".../issues/{n}/labels",
            "POST",
            json!({"labels": ["lgtm"]}),
            &[200],
            As::Bot,
        ),
        (".../issues/{n}/labels", "GET", none(), &[200], As::Bot),
        (
            ".../issues/{n}/labels/{l}",
            "DELETE",
            none(),
            &[200, 204],
            As::Bot,
        ),
        (".../issues/{n}/events", "GET", none(), &[200], As::Bot),
        (
            "/repos/{o}/{r}/statuses/{sha}",
            "POST",
            json!({"state": "success", "context": "unit"}),
            &[201],
            As::Bot,
        ),
        (".../statuses/{ref}", "GET", none(), &[200], As::Bot),
        (".../commits/{ref}/status", "GET", none(), &[200], As::Bot),
        (".../git/refs/{ref}", "GET", none(), &[200], As::Bot),
        (
            ".../git/refs",
            "POST",
            json!({"ref": "refs/heads/made", "sha": "{sha}"}),
            &[201],
            As::Bot,
        ),
        (
            ".../git/refs/made",
            "PATCH",
            json!({"sha": "{sha}", "force": true}),
            &[200],
            As::Bot,
        ),
        (".../git/refs/made", "DELETE", none(), &[200, 204], As::Bot),
        ("/orgs/{o}/members/{u}", "GET", none(), &[204], As::Bot),
        ("/orgs/{o}/members/outsider", "GET", none(), &[404], As::Bot),
        (".../collaborators/{u}", "GET", none(), &[204], As::Bot),
        (".../collaborators/outsider", "GET", none(), &[404], As::Bot),
        (".../collaborators", "GET", none(), &[200], As::Bot),
        (
            ".../collaborators/{u}/permission",
            "GET",
            none(),
            &[200],
            As::Bot,
        ),
        (
            ".../pulls/{n}/merge",
            "PUT",
            json!({"sha": "0000000000000000000000000000000000000000"}),
            &[409],
            As::Bot,
        ),
        (
            ".../pulls/{n}/merge",
            "PUT",
            json!({"sha": "{sha}", "merge_method": "squash"}),
            &[200],
            As::Bot,
        ),
        (
            ".../pulls/{n}/merge",
            "PUT",
            json!({"sha": "{sha}"}),
            &[405],
            As::Bot,
        ),
    ]
}

/// Looks like an App's proof.
const PROOF: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOjF9.c2lnbmVk";

struct Asked {
    url: url::Url,
    token: String,
}

impl Asked {
    /// One request of a connection of its own, in the words of HTTP/1.1.
    async fn send(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        whom: As,
        accept: &str,
    ) -> (u16, String) {
        let host = self.url.host_str().unwrap();
        let port = self.url.port().unwrap();
        let mut stream = TcpStream::connect((host, port)).await.unwrap();
        let token = if whom == As::App { PROOF } else { &self.token };
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {token}\r\naccept: {accept}\r\n\
             user-agent: test\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }
}

/// GHC-030: each core row answers with a code that Prow's client takes, and its shapes are GitHub's.
#[tokio::test]
async fn ghc_030_a_fake_serves_the_core_rows() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let sandbox = scene.world.sandbox();
    let sha = scene.world.head(&pr);
    let asked = Asked {
        url: sandbox.url().parse().unwrap(),
        token: sandbox.token_for(BOT),
    };
    let org = sandbox.read(|forge| forge.account(ORG).unwrap().id);
    let mut comment = 0;
    for (path, method, body, codes, whom) in lines() {
        let id = if path.contains("/app/") { org } else { comment };
        let path = path.replace("...", "/repos/{o}/{r}");
        let path = path
            .replace("{o}", ORG)
            .replace("{r}", REPO)
            .replace("{n}", &number.to_string())
            .replace("{id}", &id.to_string())
            .replace("{l}", "lgtm")
            .replace("git/refs/{ref}", "git/refs/heads/main")
            .replace("git/refs/made", "git/refs/heads/made")
            .replace("statuses/{ref}", &format!("statuses/{sha}"))
            .replace("{sha}", &sha)
            .replace("{ref}", "main")
            .replace("{u}", "approver");
        let body = body.to_string().replace("{sha}", &sha);
        let body = serde_json::from_str(&body).unwrap();
        let json = "application/vnd.github.v3+json";
        let (status, answer) = asked.send(method, &path, &body, whom, json).await;
        assert!(
            codes.contains(&status),
            "{method} {path}: {status}: {answer}"
        );
        if (method, status) == ("POST", 201) && path.ends_with("/comments") {
            let made: Value = serde_json::from_str(
                &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()],
            )
            .unwrap();
            comment = made["id"].as_u64().unwrap();
        }
    }
    let path = format!("/repos/{ORG}/{REPO}/pulls/{number}");
    for (accept, first) in [
        ("application/vnd.github.v3.diff", "diff --git"),
        ("application/vnd.github.v3.patch", "From "),
    ] {
        let (status, answer) = asked
            .send("GET", &path, &Value::Null, As::Bot, accept)
            .await;
        assert_eq!(status, 200);
        assert!(
            answer.contains(first) && answer.contains("+hello"),
            "{answer}"
        );
    }
    scene.done_but(|exchange| {
        let told = |what: &str| {
            exchange
                .request_headers
                .iter()
                .any(|(_, value)| value.contains(what))
        };
        undescribed(exchange) || told("v3.diff") || told("v3.patch")
    });
}

/// What GitHub takes and does not describe any more, and an answer whose description wants an account to be a user and an
/// enterprise at once.
fn undescribed(exchange: &Exchange) -> bool {
    let old = ["/git/refs/", "/widget/statuses/"];
    let is_old = old.iter().any(|part| exchange.path.contains(part));
    exchange.method == "GET" && (is_old || exchange.path == "/app/installations")
}

/// GHC-030: no core row of the checklist is missing above.
#[test]
fn ghc_030_the_core_rows_are_those_of_the_checklist() {
    let Some(dir) = crate::shared::dir() else {
        return;
    };
    let text = std::fs::read_to_string(dir.join("parity/50-frontend-and-api.md")).unwrap();
    let rows = text.lines().filter(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        cells.len() == 5 && cells[3].trim_start().starts_with("core")
    });
    let known: BTreeSet<String> = lines()
        .iter()
        .map(|(path, ..)| path.replace("/repos/{o}/{r}/", ".../"))
        .collect();
    let mut seen = 0;
    for row in rows {
        let cell = row.split('|').nth(1).unwrap();
        // `a`, `b` after a path share what stands before them; methods are the test's business.
        let paths = cell
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|text| text.starts_with('/') || text.starts_with("..."));
        let mut stem = String::new();
        for path in paths {
            let path = path
                .split(" {")
                .next()
                .unwrap()
                .replace("/repos/{o}/{r}/", ".../");
            let whole = if path.matches('/').count() == 1
                && path.starts_with('/')
                && !stem.is_empty()
                && !known.contains(&path)
            {
                format!("{stem}{path}")
            } else {
                stem = path
                    .rsplit_once('/')
                    .map(|(stem, _)| stem.to_owned())
                    .unwrap_or_default();
                path
            };
            assert!(known.contains(&whole), "{whole} of {row}");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}

/// GHC-030, GHC-012: the client works as an App against it, from the proof to a label.
#[tokio::test]
async fn ghc_030_an_app_is_installed_in_the_sandbox() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let api = scene.world.sandbox().url().parse().unwrap();
    let key = fixed_secret(include_str!("../data/app.pem"));
    let github = GitHub::new(GitHubOptions::new(api, Credentials::App { id: 1, key })).unwrap();
    assert_eq!(github.installation_gaps().await.unwrap(), []);
    let bot = github.bot_user(ORG).await.unwrap();
    assert!(bot.app && bot.is("trireme-app[bot]"));
    github
        .add_labels(&scene.repo, number, &["lgtm"])
        .await
        .unwrap();
    assert_eq!(scene.world.labels(&pr), ["lgtm"]);
    scene.done_but(undescribed);
}

/// GHC-031, GHC-032, GHC-034: the fields of Tide's search, in GitHub's names, with where the next page begins and what it
/// cost.
#[tokio::test]
async fn ghc_031_ghc_032_ghc_034_searches_answer_what_tide_asks_for() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    scene.world.label(BOT, &pr, "lgtm").await;
    let sha = scene.world.head(&pr);
    scene.world.check_run(&pr, "build", Some("success"));
    let (forge, repo) = (&scene.forge, &scene.repo);
    let status = trireme_forge::CommitStatus {
        context: "unit".into(),
        state: trireme_forge::StatusState::Success,
        description: "fine".into(),
        target_url: String::new(),
    };
    forge.create_status(repo, &sha, &status).await.unwrap();
    scene.world.pr("second").opened_by("author").await;
    let query = "query($query: String!, $first: Int!, $after: String) {
        rateLimit { cost remaining }
        search(type: ISSUE, query: $query, first: $first, after: $after) {
          pageInfo { hasNextPage endCursor }
          nodes { ... on PullRequest {
            number author { login } authorMetadata: author { __typename } baseRef { name prefix } headRefName headRefOid
            mergeable mergeStateStatus canBeRebased repository { name nameWithOwner owner { login } } reviewDecision
            milestone { title } body title updatedAt labels(first: 100) { nodes { name } }
            commits(last: 4) { nodes { commit { oid status { contexts { context description state } }
              statusCheckRollup { contexts(last: 100) { nodes { ... on CheckRun { name conclusion status } } } } } } }
          } } } }";
    let sandbox = scene.world.sandbox();
    let asked = Asked {
        url: sandbox.url().parse().unwrap(),
        token: sandbox.token_for(BOT),
    };
    let search = async |first: u32, after: Value| {
        let text = format!("is:pr state:open repo:{ORG}/{REPO} sort:created-asc");
        let body =
            json!({"query": query, "variables": {"query": text, "first": first, "after": after}});
        let sent = asked.send("POST", "/graphql", &body, As::Bot, "application/json");
        let (status, answer) = sent.await;
        assert_eq!(status, 200, "{answer}");
        let text = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
        let answer: Value = serde_json::from_str(text).unwrap();
        assert_eq!(answer["errors"], Value::Null, "{answer}");
        answer["data"].clone()
    };
    let mut found = Vec::new();
    let mut page = search(1, Value::Null).await;
    assert!(page["rateLimit"]["cost"].is_u64() && page["rateLimit"]["remaining"].is_u64());
    assert_eq!(page["search"]["pageInfo"]["hasNextPage"], true);
    found.extend(page["search"]["nodes"].as_array().unwrap().clone());
    page = search(1, page["search"]["pageInfo"]["endCursor"].clone()).await;
    assert_eq!(page["search"]["pageInfo"]["hasNextPage"], false);
    found.extend(page["search"]["nodes"].as_array().unwrap().clone());
    // As Tide and as blockers ask.
    for first in [37, 100] {
        let page = search(first, Value::Null).await;
        assert_eq!(page["search"]["nodes"].as_array().unwrap().len(), 2);
    }
    let mut first = found
        .iter()
        .find(|pull| pull["number"] == number)
        .unwrap()
        .clone();
    assert!(first["updatedAt"].take().is_string());
    assert_eq!(first["headRefOid"].take(), sha);
    let commits = first["commits"].take();
    let commit = &commits["nodes"][0]["commit"];
    assert_eq!(commit["oid"], sha);
    let told = json!([{"context": "unit", "description": "fine", "state": "SUCCESS"}]);
    assert_eq!(commit["status"]["contexts"], told);
    let runs = commit["statusCheckRollup"]["contexts"]["nodes"]
        .as_array()
        .unwrap();
    let run = runs.iter().find(|run| run["name"] == "build").unwrap();
    assert_eq!(
        (&run["conclusion"], &run["status"]),
        (&json!("SUCCESS"), &json!("COMPLETED"))
    );
    assert_eq!(
        first,
        json!({
            "number": number, "author": {"login": "author"}, "authorMetadata": {"__typename": "User"},
            "baseRef": {"name": "main", "prefix": "refs/heads/"}, "headRefName": "fix", "headRefOid": null,
            "mergeable": "MERGEABLE", "mergeStateStatus": first["mergeStateStatus"], "canBeRebased": true,
            "repository": {"name": REPO, "nameWithOwner": format!("{ORG}/{REPO}"), "owner": {"login": ORG}},
            "reviewDecision": null, "milestone": null, "body": "please", "title": "Fix the widget", "updatedAt": null,
            "labels": {"nodes": [{"name": "lgtm"}]}, "commits": null,
        })
    );
    let known = [
        "CLEAN",
        "BLOCKED",
        "UNSTABLE",
        "HAS_HOOKS",
        "BEHIND",
        "DIRTY",
        "UNKNOWN",
        "DRAFT",
    ];
    assert!(known.contains(&first["mergeStateStatus"].as_str().unwrap()));
    scene.done();
}
