//! REST: codes, texts and shapes, judged by GitHub's OpenAPI where it is at hand.

use serde_json::{Value, json};
use trireme_sandbox::forge::{Permission, ReviewState};
use trireme_sandbox::world::{BOT, Pr, World};
use trireme_sandbox::{FileChange, MergeSpec};

use crate::support::{Api, judge};

async fn recorded() -> World {
    World::builder()
        .file("docs/a b.md", "text\n")
        .recorded()
        .start()
        .await
        .unwrap()
}

const REPO: &str = "/repos/acme/widget";

/// A pull request that has seen everything.
async fn lively_pr(world: &World) -> Pr {
    let pr = world
        .pr("fix")
        .title("Fix it")
        .body("Please")
        .file("README.md", "# better\n")
        .file("new.txt", "new\n")
        .opened_by("author")
        .await;
    world.comment("reviewer", &pr, "/lgtm").await;
    world.label(BOT, &pr, "kind/bug").await;
    let bot = world.user(BOT);
    let lines = [("README.md".to_owned(), 1, "why?".to_owned())];
    bot.review(
        world.repo(),
        pr.number,
        ReviewState::Commented,
        "look",
        &lines,
    )
    .unwrap();
    pr
}

#[tokio::test]
async fn everything_that_is_read_has_githubs_shape() {
    let world = recorded().await;
    let pr = lively_pr(&world).await;
    let sandbox = world.sandbox();
    sandbox
        .set_team("acme", "Core Team", &["reviewer"])
        .unwrap();
    sandbox
        .change(|forge| {
            let now = jiff::Timestamp::UNIX_EPOCH;
            let number = forge.create_milestone(now, BOT, world.repo(), "v1")?;
            let change = trireme_sandbox::forge::IssueChange {
                milestone: Some(Some(number)),
                ..Default::default()
            };
            forge.edit_issue(now, BOT, world.repo(), pr.number, change)
        })
        .unwrap();
    world.hook_to(&["http://127.0.0.1:1/hook"]);
    world.unlabel(BOT, &pr, "kind/bug").await;
    world.label(BOT, &pr, "kind/bug").await;
    world.close("author", &pr).await;
    world.reopen("author", &pr).await;
    let bot = world.user(BOT);
    bot.open_issue(world.repo(), "Broken", None, &[]).unwrap();
    bot.assign(world.repo(), pr.number, &["reviewer".into()])
        .unwrap();
    bot.request_reviewers(world.repo(), pr.number, &["approver".into()])
        .unwrap();
    let head = world.head(&pr);
    sandbox
        .set_check_run(world.repo(), &head, "build", "completed", Some("success"))
        .unwrap();
    let api = Api::of(&world, BOT);
    let status = json!({"state": "success", "context": "ci/x", "description": "ok", "target_url": "http://x/y"});
    api.post(&format!("{REPO}/statuses/{head}"), status)
        .await
        .expect(201);
    world.expect_delivered().await;

    for path in [
        "/user",
        "/users/author",
        "/rate_limit",
        "/orgs/acme",
        "/orgs/acme/members",
        "/orgs/acme/teams",
        "/orgs/acme/teams/core-team",
        "/orgs/acme/teams/core-team/members",
        "/orgs/acme/teams/core-team/memberships/reviewer",
        REPO,
        "/repos/author/widget",
        "/repos/acme/widget/pulls?state=all&base=main&per_page=1",
        "/repos/acme/widget/pulls/1",
        "/repos/acme/widget/pulls/1/files",
        "/repos/acme/widget/pulls/1/commits",
        "/repos/acme/widget/pulls/1/reviews",
        "/repos/acme/widget/pulls/1/comments",
        "/repos/acme/widget/issues?state=open&labels=kind/bug",
        "/repos/acme/widget/issues/1",
        "/repos/acme/widget/issues/2",
        "/repos/acme/widget/issues/1/comments",
        "/repos/acme/widget/issues/1/labels",
        "/repos/acme/widget/issues/1/events",
        "/repos/acme/widget/labels",
        "/repos/acme/widget/labels/kind%2Fbug",
        "/repos/acme/widget/branches",
        "/repos/acme/widget/branches/main",
        "/repos/acme/widget/git/ref/heads/main",
        "/repos/acme/widget/commits/main",
        &format!("{REPO}/commits/{head}"),
        &format!("{REPO}/commits/{head}/status"),
        &format!("{REPO}/commits/{head}/statuses"),
        &format!("{REPO}/commits/{head}/check-runs"),
        "/repos/acme/widget/contents?ref=main",
        "/repos/acme/widget/contents/docs",
        "/repos/acme/widget/contents/docs/a%20b.md?ref=main",
        "/repos/acme/widget/collaborators",
        "/repos/acme/widget/collaborators/reviewer/permission",
        "/repos/acme/widget/hooks",
    ] {
        api.get(path).await.expect(200);
    }
    let hooks = api.get(&format!("{REPO}/hooks")).await.expect(200);
    let hook = format!("{REPO}/hooks/{}", hooks[0]["id"]);
    api.get(&hook).await.expect(200);
    let deliveries = api
        .get(&format!("{hook}/deliveries?per_page=2"))
        .await
        .expect(200);
    let delivery = format!("{hook}/deliveries/{}", deliveries[0]["id"]);
    api.get(&delivery).await.expect(200);
    api.post(&format!("{delivery}/attempts"), json!({}))
        .await
        .expect(202);
    let comments = api
        .get(&format!("{REPO}/issues/1/comments"))
        .await
        .expect(200);
    api.get(&format!("{REPO}/issues/comments/{}", comments[0]["id"]))
        .await
        .expect(200);
    judge(&world, &[]);
}

#[tokio::test]
async fn everything_that_is_written_has_githubs_shape() {
    let world = recorded().await;
    let pr = lively_pr(&world).await;
    let api = Api::of(&world, BOT);
    let issue = format!("{REPO}/issues/{}", pr.number);
    let pull = format!("{REPO}/pulls/{}", pr.number);

    let comment = api
        .post(&format!("{issue}/comments"), json!({"body": "hello"}))
        .await
        .expect(201);
    let comment = format!("{REPO}/issues/comments/{}", comment["id"]);
    api.patch(&comment, json!({"body": "bye"}))
        .await
        .expect(200);
    api.delete(&comment).await.expect(204);

    api.post(&format!("{issue}/labels"), json!({"labels": ["a", "b/c"]}))
        .await
        .expect(200);
    api.post(&format!("{issue}/labels"), json!(["d"]))
        .await
        .expect(200);
    let left = api
        .delete(&format!("{issue}/labels/b%2Fc"))
        .await
        .expect(200);
    let names = |labels: &Value| {
        let names = labels
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&left), ["kind/bug", "a", "d"]);
    api.put(&format!("{issue}/labels"), json!({"labels": ["z"]}))
        .await
        .expect(200);
    api.delete(&format!("{issue}/labels")).await.expect(204);
    let label = json!({"name": "new", "color": "ff0000", "description": "a label"});
    api.post(&format!("{REPO}/labels"), label).await.expect(201);

    api.post(
        &format!("{issue}/assignees"),
        json!({"assignees": ["reviewer", "nobody"]}),
    )
    .await
    .expect(201);
    let shown = api
        .send(
            "DELETE",
            &format!("{issue}/assignees"),
            Some(json!({"assignees": ["reviewer"]})),
        )
        .await;
    assert_eq!(shown.expect(200)["assignees"], json!([]));
    let reviewers = format!("{pull}/requested_reviewers");
    api.post(&reviewers, json!({"reviewers": ["approver"]}))
        .await
        .expect(201);
    api.send(
        "DELETE",
        &reviewers,
        Some(json!({"reviewers": ["approver"]})),
    )
    .await
    .expect(200);

    api.patch(
        &issue,
        json!({"title": "Better", "body": "New", "state": "closed"}),
    )
    .await
    .expect(200);
    api.patch(&pull, json!({"state": "open", "title": "Best"}))
        .await
        .expect(200);
    api.post(
        &format!("{pull}/reviews"),
        json!({"event": "APPROVE", "body": "ok"}),
    )
    .await
    .expect(200);
    let merge = json!({"sha": world.head(&pr), "merge_method": "squash", "commit_title": "T", "commit_message": "M"});
    let merged = api.put(&format!("{pull}/merge"), merge).await.expect(200);
    assert_eq!(merged["merged"], true);
    api.get(&pull).await.expect(200);
    api.get(&format!("{pull}/merge")).await.expect(204);

    let opened = api
        .post(
            &format!("{REPO}/issues"),
            json!({"title": "Issue", "labels": ["z"]}),
        )
        .await;
    opened.expect(201);
    let author = Api::of(&world, "author");
    author
        .post(&format!("{REPO}/forks"), json!({}))
        .await
        .expect(202);
    // GitHub takes a bare list of labels, as Prow sends it, and does not say so.
    judge(&world, &[r#"["d"] is not of type "object""#]);
}

#[tokio::test]
async fn a_merge_is_refused_in_githubs_words() {
    let world = recorded().await;
    let api = Api::of(&world, BOT);
    let pr = world
        .pr("fix")
        .file("README.md", "mine\n")
        .opened_by("author")
        .await;
    let merge = format!("{REPO}/pulls/{}/merge", pr.number);
    let refused = async |body: Value| {
        let answer = api.put(&merge, body).await;
        format!(
            "{} {}",
            answer.status,
            answer.body["message"].as_str().unwrap()
        )
    };
    let zeros = "0".repeat(40);
    insta::assert_snapshot!(refused(json!({"sha": zeros})).await, @"409 Head branch was modified. Review and try the merge again.");

    world.set_draft("author", &pr, true).await;
    insta::assert_snapshot!(refused(json!({})).await, @"405 Pull Request is still a work in progress");
    world.set_draft("author", &pr, false).await;

    let allow = |methods: Vec<_>| {
        world
            .sandbox()
            .change(|forge| {
                forge.repo_mut(world.repo())?.allowed_methods = methods;
                Ok(())
            })
            .unwrap();
    };
    allow(vec![trireme_sandbox::forge::MergeMethod::Merge]);
    insta::assert_snapshot!(refused(json!({"merge_method": "squash"})).await, @"405 Squash merges are not allowed on this repository.");

    let require = |contexts: &[&str]| {
        let contexts = contexts.iter().map(|c| (*c).to_owned()).collect();
        world
            .sandbox()
            .change(|forge| {
                let repo = forge.repo_mut(world.repo())?;
                repo.required_contexts.insert("main".into(), contexts);
                Ok(())
            })
            .unwrap();
    };
    require(&["ci/x"]);
    insta::assert_snapshot!(refused(json!({})).await, @r#"405 Required status check "ci/x" is expected."#);
    require(&[]);

    world
        .push(
            BOT,
            "main",
            vec![FileChange::write("README.md", "theirs\n")],
        )
        .await;
    insta::assert_snapshot!(refused(json!({})).await, @"405 Pull Request is not mergeable");
    assert_eq!(world.sandbox().merges_of(&world.head(&pr)), 0);

    world.close("author", &pr).await;
    insta::assert_snapshot!(refused(json!({})).await, @"405 Pull Request is not mergeable");
    judge(&world, &[]);
}

#[tokio::test]
async fn who_may_not_is_told_as_github_tells_it() {
    let world = recorded().await;
    let pr = world.pr("fix").opened_by("author").await;
    let head = world.head(&pr);
    let issue = format!("{REPO}/issues/{}", pr.number);
    let mut told = Vec::new();
    let mut tell = |who: &str, what: &str, answer: crate::support::Answer| {
        let message = answer.body["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        told.push(format!("{who} {what}: {} {message}", answer.status));
    };
    let outsider = Api::of(&world, "outsider");
    let label = json!({"labels": ["lgtm"]});
    tell(
        "outsider",
        "labels",
        outsider
            .post(&format!("{issue}/labels"), label.clone())
            .await,
    );
    let status = json!({"state": "success"});
    tell(
        "outsider",
        "sets a status",
        outsider
            .post(&format!("{REPO}/statuses/{head}"), status.clone())
            .await,
    );
    let merge = format!("{REPO}/pulls/{}/merge", pr.number);
    tell("outsider", "merges", outsider.put(&merge, json!({})).await);
    tell(
        "outsider",
        "lists hooks",
        outsider.get(&format!("{REPO}/hooks")).await,
    );
    tell(
        "outsider",
        "looks for a member",
        outsider.try_get_plain("/orgs/acme/members/author").await,
    );
    let nobody = Api::anonymous(&world);
    tell(
        "nobody",
        "comments",
        nobody
            .post(&format!("{issue}/comments"), json!({"body": "x"}))
            .await,
    );
    tell("nobody", "asks who they are", nobody.get("/user").await);
    let liar = Api::anonymous(&world).with_token("ghp_wrong");
    tell("liar", "reads", liar.get(REPO).await);
    let bot = Api::of(&world, BOT);
    tell(
        "bot",
        "looks for a member",
        bot.get("/orgs/acme/members/author").await,
    );
    tell(
        "bot",
        "looks for an outsider",
        bot.get("/orgs/acme/members/outsider").await,
    );
    tell(
        "bot",
        "looks for a collaborator",
        bot.get(&format!("{REPO}/collaborators/author")).await,
    );
    tell(
        "bot",
        "looks for none",
        bot.get(&format!("{REPO}/collaborators/outsider")).await,
    );
    tell(
        "bot",
        "sets a status on nothing",
        bot.post(&format!("{REPO}/statuses/{}", "0".repeat(40)), status)
            .await,
    );
    tell(
        "bot",
        "removes a label that is not there",
        bot.delete(&format!("{issue}/labels/none")).await,
    );
    tell(
        "bot",
        "comments nothing",
        bot.post(&format!("{issue}/comments"), json!({"body": " "}))
            .await,
    );
    tell(
        "bot",
        "reads what is not there",
        bot.get("/repos/acme/none").await,
    );
    tell(
        "bot",
        "reads a branch that is not there",
        bot.get(&format!("{REPO}/branches/none")).await,
    );
    tell(
        "bot",
        "requests the author",
        bot.post(
            &format!("{REPO}/pulls/1/requested_reviewers"),
            json!({"reviewers": ["author"]}),
        )
        .await,
    );
    tell(
        "bot",
        "requests an outsider",
        bot.post(
            &format!("{REPO}/pulls/1/requested_reviewers"),
            json!({"reviewers": ["outsider"]}),
        )
        .await,
    );
    insta::assert_snapshot!(told.join("\n"), @r"
    outsider labels: 403 Must have admin rights to Repository.
    outsider sets a status: 404 Not Found
    outsider merges: 403 Must have admin rights to Repository.
    outsider lists hooks: 404 Not Found
    outsider looks for a member: 302 
    nobody comments: 401 Requires authentication
    nobody asks who they are: 401 Requires authentication
    liar reads: 401 Bad credentials
    bot looks for a member: 204 
    bot looks for an outsider: 404 Not Found
    bot looks for a collaborator: 204 
    bot looks for none: 404 Not Found
    bot sets a status on nothing: 422 No commit found for SHA: 0000000000000000000000000000000000000000
    bot removes a label that is not there: 404 Label does not exist
    bot comments nothing: 422 Validation Failed
    bot reads what is not there: 404 Not Found
    bot reads a branch that is not there: 404 Branch not found
    bot requests the author: 422 Review cannot be requested from pull request author.
    bot requests an outsider: 422 Reviews may only be requested from collaborators. One or more of the users or teams you specified is not a collaborator of the acme/widget repository.
    ");
    judge(&world, &[]);
}

#[tokio::test]
async fn a_private_repository_is_not_found_by_who_may_not_read_it() {
    let world = World::start().await;
    world
        .sandbox()
        .change(|forge| {
            forge.repo_mut(world.repo())?.private = true;
            Ok(())
        })
        .unwrap();
    Api::of(&world, "outsider").get(REPO).await.expect(404);
    Api::of(&world, "author").get(REPO).await.expect(200);
    world.grant("outsider", Permission::Read);
    Api::of(&world, "outsider").get(REPO).await.expect(200);
}

#[tokio::test]
async fn lists_come_in_pages_that_link_to_each_other() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    for n in 0..5 {
        world.comment("reviewer", &pr, &format!("{n}")).await;
    }
    let api = Api::of(&world, BOT);
    let mut url = format!("{REPO}/issues/{}/comments?per_page=2", pr.number);
    let mut seen = Vec::new();
    loop {
        let answer = api.get(&url).await;
        let link = answer.header("link").to_owned();
        let comments = answer.expect(200);
        seen.extend(
            comments
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["body"].clone()),
        );
        let next = link.split(", ").find(|l| l.ends_with("rel=\"next\""));
        match next {
            Some(next) => url = next[1..next.find('>').unwrap()].to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn what_has_not_changed_costs_nothing() {
    let world = World::start().await;
    let api = Api::of(&world, BOT);
    let first = api.get(REPO).await;
    let (tag, left) = (
        first.header("etag").to_owned(),
        first.header("x-ratelimit-remaining").to_owned(),
    );
    let again = api
        .try_send("GET", REPO, None, &[("if-none-match", &tag)])
        .await
        .unwrap();
    assert_eq!(
        (again.status, again.header("x-ratelimit-remaining")),
        (304, left.as_str())
    );
    world.pr("fix").opened_by("author").await;
    let changed = api
        .try_send("GET", REPO, None, &[("if-none-match", &tag)])
        .await
        .unwrap();
    assert_eq!(changed.status, 200);
}

#[tokio::test]
async fn who_used_up_the_budget_waits_for_the_hour() {
    let clock = trireme_sandbox::Clock::manual("2024-05-01T12:00:00Z".parse().unwrap());
    let config = trireme_sandbox::SandboxConfig {
        rate_limit: 2,
        clock: clock.clone(),
        ..Default::default()
    };
    let world = World::builder().config(config).start().await.unwrap();
    let api = Api::of(&world, BOT);
    api.get(REPO).await.expect(200);
    api.get(REPO).await.expect(200);
    let refused = api.get(REPO).await;
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert!(
        refused.expect(403)["message"]
            .as_str()
            .unwrap()
            .starts_with("API rate limit exceeded")
    );
    api.get("/rate_limit").await.expect(200);
    clock.advance(jiff::SignedDuration::from_hours(1));
    api.get(REPO).await.expect(200);
}

#[tokio::test]
async fn a_pull_request_says_whether_it_merges() {
    let world = World::start().await;
    let api = Api::of(&world, BOT);
    let pr = world
        .pr("fix")
        .file("README.md", "mine\n")
        .opened_by("author")
        .await;
    let path = format!("{REPO}/pulls/{}", pr.number);
    let state = async || {
        let pull = api.get(&path).await.expect(200);
        format!(
            "{} {} {}",
            pull["mergeable"], pull["rebaseable"], pull["mergeable_state"]
        )
    };
    assert_eq!(state().await, r#"true true "clean""#);
    world
        .push(
            BOT,
            "main",
            vec![FileChange::write("README.md", "theirs\n")],
        )
        .await;
    assert_eq!(state().await, r#"false false "dirty""#);
    world
        .force_push(&pr, vec![FileChange::write("README.md", "both\n")])
        .await;
    assert_eq!(state().await, r#"true true "clean""#);
    world
        .user(BOT)
        .merge(world.repo(), pr.number, MergeSpec::default())
        .await
        .unwrap();
    assert_eq!(state().await, r#"null null "unknown""#);
}

#[tokio::test]
async fn an_issue_remembers_who_labeled_it() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    world.label(BOT, &pr, "lgtm").await;
    world.grant("reviewer", Permission::Triage);
    world.unlabel("reviewer", &pr, "lgtm").await;
    let path = format!("{REPO}/issues/{}/events", pr.number);
    let events = Api::of(&world, "outsider").get(&path).await.expect(200);
    let told = |n: usize| {
        let event = &events[n];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        [
            &event["event"],
            &event["label"]["name"],
            &event["actor"]["login"],
        ]
        .map(text)
    };
    assert_eq!(told(0), ["labeled", "lgtm", BOT]);
    assert_eq!(told(1), ["unlabeled", "lgtm", "reviewer"]);
    let title = world.pull(&pr, |_, issue, _| issue.title.clone());
    world.retitle("author", &pr, "Better").await;
    let reviewers = ["reviewer".to_owned()];
    let author = world.user(BOT);
    author
        .request_reviewers(world.repo(), pr.number, &reviewers)
        .unwrap();
    let events = Api::of(&world, "outsider").get(&path).await.expect(200);
    let (renamed, requested) = (&events[2], &events[3]);
    assert_eq!(renamed["event"], "renamed");
    assert_eq!(renamed["rename"], json!({"from": title, "to": "Better"}));
    assert_eq!(requested["event"], "review_requested");
    assert_eq!(requested["requested_reviewer"]["login"], "reviewer");
    assert_eq!(requested["review_requester"]["login"], BOT);
}

#[tokio::test]
async fn many_may_ask_at_once_whether_a_pull_request_merges() {
    let world = World::start().await;
    world.pr("fix").opened_by("author").await;
    world
        .push(BOT, "main", vec![FileChange::write("other", "x\n")])
        .await;
    let asks = (0..12).map(|_| async {
        let pull = Api::of(&world, BOT).get(&format!("{REPO}/pulls/1")).await;
        pull.expect(200)["mergeable"].clone()
    });
    let answers = futures::future::join_all(asks).await;
    assert_eq!(answers, vec![json!(true); 12]);
}
