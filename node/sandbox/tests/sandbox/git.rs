//! Real git against the sandbox: clone, push, fetch of pull requests, and what follows from a push.

use std::path::Path;
use std::process::Output;

use trireme_sandbox::forge::MergeMethod;
use trireme_sandbox::world::World;
use trireme_sandbox::{FileChange, MergeSpec, NewCommit, PullRequestSpec};

/// Runs git in `dir` as that user of the sandbox.
async fn git(world: &World, login: &str, dir: &Path, args: &[&str]) -> Output {
    let token = world.sandbox().token_for(login);
    let url = world
        .sandbox()
        .url()
        .replace("http://", &format!("http://{login}:{token}@"));
    let config = format!("url.{url}.insteadOf={}", world.sandbox().url());
    tokio::process::Command::new("git")
        .args([
            "-c",
            &config,
            "-c",
            "user.name=U",
            "-c",
            "user.email=u@example.com",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .await
        .unwrap()
}

async fn git_ok(world: &World, login: &str, dir: &Path, args: &[&str]) -> String {
    let output = git(world, login, dir, args).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_clone_has_the_first_commit() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let url = world.sandbox().clone_url(world.repo());
    git_ok(&world, "reviewer", dir.path(), &["clone", "-q", &url, "c"]).await;
    let readme = std::fs::read_to_string(dir.path().join("c/README.md")).unwrap();
    assert_eq!(readme, "# widget\n");
}

#[tokio::test]
async fn a_push_opens_and_moves_a_pull_request_and_its_refs_can_be_fetched() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let bot = trireme_sandbox::world::BOT;
    let url = world.sandbox().clone_url(world.repo());
    git_ok(&world, bot, dir.path(), &["clone", "-q", &url, "c"]).await;
    let clone = dir.path().join("c");
    let commit = async |name: &str| {
        std::fs::write(clone.join(name), "x\n").unwrap();
        git_ok(&world, bot, &clone, &["add", "."]).await;
        git_ok(&world, bot, &clone, &["commit", "-q", "-m", name]).await;
        git_ok(
            &world,
            bot,
            &clone,
            &["push", "-q", "origin", "HEAD:refs/heads/topic"],
        )
        .await;
        git_ok(&world, bot, &clone, &["rev-parse", "HEAD"]).await
    };
    let first = commit("one").await;
    let spec = PullRequestSpec {
        title: "Topic".into(),
        head: "topic".into(),
        base: "main".into(),
        ..PullRequestSpec::default()
    };
    let number = world.user(bot).open_pull(world.repo(), spec).await.unwrap();
    let pr = world.pr_number(number);
    assert_eq!(world.head(&pr), first);

    let second = commit("two").await;
    assert_eq!(world.head(&pr), second);
    let pulls = format!("refs/pull/{number}/*:refs/pr/*");
    git_ok(
        &world,
        "outsider",
        &clone,
        &["fetch", "-q", "origin", &pulls],
    )
    .await;
    let head = git_ok(&world, bot, &clone, &["rev-parse", "refs/pr/head"]).await;
    assert_eq!(head, second);
    let parents = git_ok(&world, bot, &clone, &["rev-parse", "refs/pr/merge^2"]).await;
    assert_eq!(parents, second);
}

#[tokio::test]
async fn a_large_push_arrives_compressed_and_whole() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let bot = trireme_sandbox::world::BOT;
    let url = world.sandbox().clone_url(world.repo());
    git_ok(&world, bot, dir.path(), &["clone", "-q", &url, "c"]).await;
    let clone = dir.path().join("c");
    for i in 0..300 {
        std::fs::write(clone.join(format!("f{i}")), format!("{i}\n").repeat(200)).unwrap();
    }
    git_ok(&world, bot, &clone, &["add", "."]).await;
    git_ok(&world, bot, &clone, &["commit", "-q", "-m", "many"]).await;
    git_ok(&world, bot, &clone, &["push", "-q"]).await;
    git_ok(&world, bot, dir.path(), &["clone", "-q", &url, "d"]).await;
    assert!(dir.path().join("d/f299").exists());
    // A fetch with many haves is what git compresses.
    git_ok(&world, bot, &clone, &["fetch", "-q", "--refetch"]).await;
}

#[tokio::test]
async fn who_may_not_push_is_told_so() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let url = world.sandbox().clone_url(world.repo());
    git_ok(&world, "outsider", dir.path(), &["clone", "-q", &url, "c"]).await;
    let clone = dir.path().join("c");
    git_ok(
        &world,
        "outsider",
        &clone,
        &["commit", "-q", "--allow-empty", "-m", "x"],
    )
    .await;
    let refused = git(&world, "outsider", &clone, &["push", "-q"]).await;
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(stderr.contains("403"), "{stderr}");
}

#[tokio::test]
async fn merges_squashes_and_rebases_make_the_commits_that_github_makes() {
    let world = World::start().await;
    let bot = world.user(trireme_sandbox::world::BOT);
    let merge = async |branch: &str, method: MergeMethod| {
        let pr = world
            .pr(branch)
            .title(&format!("Add {branch}"))
            .opened_by("author")
            .await;
        world
            .push_fix(&pr, vec![FileChange::write(format!("{branch}2"), "2\n")])
            .await;
        let spec = MergeSpec {
            sha: Some(world.head(&pr)),
            method,
            ..MergeSpec::default()
        };
        bot.merge(world.repo(), pr.number, spec).await.unwrap();
        world.expect_merged(&pr).await;
    };
    merge("a", MergeMethod::Merge).await;
    merge("b", MergeMethod::Squash).await;
    merge("c", MergeMethod::Rebase).await;
    let dir = world.sandbox().git_dir(world.repo());
    let graph = git_ok(
        &world,
        "author",
        &dir,
        &["log", "--graph", "--format=%s | %b | %an | %cn", "main"],
    )
    .await;
    let lines: Vec<&str> = graph.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    * Fix |  | author | trireme-bot
    * Add c |  | author | trireme-bot
    * Add b (#2) | * Add b
    |
    | * Fix | author | GitHub
    *   Merge pull request #1 from author/a | Add a | trireme-bot | GitHub
    |\
    | * Fix |  | author | author
    | * Add a |  | author | author
    |/
    * Initial commit |  | trireme-bot | trireme-bot
    ");
}

#[tokio::test]
async fn commits_are_the_same_under_the_same_clock() {
    let at: jiff::Timestamp = "2024-05-01T12:00:00Z".parse().unwrap();
    let run = async || {
        let world = World::builder()
            .clock(trireme_sandbox::Clock::manual(at))
            .start()
            .await
            .unwrap();
        let pr = world.pr("fix").opened_by("author").await;
        world
            .sandbox()
            .clock()
            .advance(jiff::SignedDuration::from_mins(1));
        let bot = world.user(trireme_sandbox::world::BOT);
        let spec = MergeSpec::default();
        bot.merge(world.repo(), pr.number, spec).await.unwrap()
    };
    let first = run().await;
    assert_eq!(first, run().await);
}

#[tokio::test]
async fn a_conflict_makes_a_pull_request_unmergeable_until_it_is_rebased() {
    let world = World::start().await;
    let bot = trireme_sandbox::world::BOT;
    let change = |text: &str| vec![FileChange::write("README.md", text)];
    let pr = world
        .pr("fix")
        .file("README.md", "mine\n")
        .opened_by("author")
        .await;
    world.push(bot, "main", change("theirs\n")).await;
    let merge = || world.user(bot);
    let refused = merge()
        .merge(world.repo(), pr.number, MergeSpec::default())
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "405 Pull Request is not mergeable");
    world.force_push(&pr, change("both\n")).await;
    merge()
        .merge(world.repo(), pr.number, MergeSpec::default())
        .await
        .unwrap();
    world.expect_merged(&pr).await;
}

#[tokio::test]
async fn a_pull_request_whose_head_reaches_its_base_by_a_push_is_merged() {
    let world = World::start().await;
    let bot = world.user(trireme_sandbox::world::BOT);
    let commit = NewCommit {
        branch: "topic".into(),
        message: "Topic".into(),
        files: vec![FileChange::write("t", "t\n")],
        parent: None,
    };
    let tip = bot.push_files(world.repo(), commit).await.unwrap();
    let spec = PullRequestSpec {
        title: "Topic".into(),
        head: "topic".into(),
        base: "main".into(),
        ..PullRequestSpec::default()
    };
    let number = bot.open_pull(world.repo(), spec).await.unwrap();
    bot.set_branch(world.repo(), "main", &tip).await.unwrap();
    assert!(world.is_merged(&world.pr_number(number)));
}

#[tokio::test]
async fn a_clone_may_be_shallow_or_partial_and_may_fetch_by_commit() {
    let world = World::start().await;
    let bot = trireme_sandbox::world::BOT;
    let change = vec![FileChange::write("README.md", "newer\n")];
    let tip = world.push(bot, "main", change).await;
    let dir = tempfile::tempdir().unwrap();
    let url = world.sandbox().clone_url(world.repo());
    let clone = async |args: &[&str], name: &str| {
        let args = [&["clone", "-q"], args, &[url.as_str(), name]].concat();
        git_ok(&world, "reviewer", dir.path(), &args).await;
        let count = ["rev-list", "--count", "HEAD"];
        git_ok(&world, "reviewer", &dir.path().join(name), &count).await
    };
    assert_eq!(clone(&["--depth", "1"], "shallow").await, "1");
    assert_eq!(clone(&["--filter=blob:none"], "partial").await, "2");
    let shallow = dir.path().join("shallow");
    let parent = format!("{tip}^");
    let missing = git(&world, "reviewer", &shallow, &["cat-file", "-e", &parent]).await;
    assert!(!missing.status.success());
    let real = world.sandbox().git_dir(world.repo());
    let parent = git_ok(&world, "reviewer", &real, &["rev-parse", &parent]).await;
    git_ok(
        &world,
        "reviewer",
        &shallow,
        &["fetch", "-q", "origin", &parent],
    )
    .await;
}

#[tokio::test]
async fn a_private_repository_is_cloned_by_its_members_alone() {
    let world = World::start().await;
    world
        .sandbox()
        .change(|forge| {
            forge.repo_mut(world.repo())?.private = true;
            Ok(())
        })
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = world.sandbox().clone_url(world.repo());
    git_ok(&world, "author", dir.path(), &["clone", "-q", &url, "mine"]).await;
    let refused = git(
        &world,
        "outsider",
        dir.path(),
        &["clone", "-q", &url, "theirs"],
    )
    .await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not found"));
}
