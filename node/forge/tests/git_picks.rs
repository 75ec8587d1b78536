//! Commits that are made in a mirror and pushed from it: cherry-picks, forks, branches, and whom the server lets do so.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

mod repositories;

use std::sync::Arc;

use repositories::{Repository, Server, lines};
use trireme_forge::RepoId;
use trireme_forge::git::{
    CherryPick, Committer, GitCredentials, GitError, GitSecret, MAX_PICKED, MirrorLimits, Mirrors,
    MirrorsOptions, Push, Pushed,
};
use trireme_sandbox::world::{BOT, ORG, REPO, World};

fn bot() -> Committer {
    Committer {
        name: "robot".into(),
        email: "robot@users.noreply.github.com".into(),
        at: "2026-01-02T03:04:05Z".parse().unwrap(),
        signing_key: None,
    }
}

/// Who wrote a commit, when, who put it there, and its message.
fn told(repository: &Repository, commit: &str) -> String {
    let format = "--format=%an <%ae> %ad%n%cn <%ce> %cd%n%B";
    repository.git(&["log", "-1", "--date=raw", format, commit])
}

/// GHC-063, GHC-064: picks keep who wrote what and when, and give what git itself would have made.
#[tokio::test]
async fn picked_commits_keep_their_author_date_and_message() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let base = repository.commit(&[("top", &lines(20)), ("bottom", &lines(20))]);
    repository.branch("release", &base);
    let release = repository.commit(&[("release", "1\n"), ("already", "there\n")]);
    repository.branch("topic", &base);
    let change = |files: &[(&str, &str)], author: &str, date: &str, message: &str| {
        for (path, content) in files {
            std::fs::write(repository.path.join(path), content).unwrap();
        }
        repository.git(&["add", "--all"]);
        let (author, date) = (format!("--author={author}"), format!("--date={date}"));
        repository.git(&["commit", "--quiet", &author, &date, "-m", message]);
        repository.git(&["rev-parse", "HEAD"])
    };
    let ann = "Ann Ö <ann@example.com>";
    let one = change(
        &[("top", &lines(19))],
        ann,
        "1700000000 +0130",
        "Cut the top\n\nIt was too long.\n\nFixes: #5",
    );
    let there = change(
        &[("already", "there\n")],
        ann,
        "1700000001 +0000",
        "Bring what is there",
    );
    repository.branch("side", &base);
    let side = change(&[("side", "1\n")], "Sid <s@s>", "1700000002 -0800", "Side");
    repository.git(&["checkout", "--quiet", "topic"]);
    repository.git(&["merge", "--quiet", "--no-ff", "-m", "merge side", "side"]);
    let merge = repository.git(&["rev-parse", "HEAD"]);
    let two = change(
        &[("bottom", &lines(21))],
        "Bob <bob@example.com>",
        "1700000003 +0000",
        "Grow the bottom",
    );

    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&release, &two]).await.unwrap();
    let commits = mirrors.commits_between(repo, &base, &two).await.unwrap();
    let ids: Vec<&str> = commits.iter().map(|commit| commit.sha.as_str()).collect();
    assert_eq!(ids.len(), 5);
    for id in [&one, &there, &side, &merge, &two] {
        assert!(ids.contains(&id.as_str()));
    }
    let picked = mirrors
        .cherry_pick(repo, &release, &ids, &bot())
        .await
        .unwrap();
    let CherryPick::Picked { commit, tree, made } = &picked else {
        panic!("{picked:?}");
    };
    assert_eq!(*made, 3);

    repository.git(&["checkout", "--quiet", "-b", "expected", &release]);
    for id in ids.iter().filter(|id| **id != merge && **id != there) {
        repository.git(&["cherry-pick", id]);
    }
    assert_eq!(*tree, repository.git(&["rev-parse", "HEAD^{tree}"]));

    let push = Push {
        to: repo,
        branch: "cherry-pick-5-to-release",
        commit,
        force: false,
    };
    assert_eq!(mirrors.push(repo, &push).await.unwrap(), Pushed::Done);
    repository.git(&["fsck", "--strict", "--no-dangling"]);
    let history = repository.git(&["rev-list", "--reverse", "release..cherry-pick-5-to-release"]);
    let history: Vec<&str> = history.lines().collect();
    assert_eq!(history.len(), 3);
    insta::assert_snapshot!(told(&repository, history[0]), @r"
    Ann Ö <ann@example.com> 1700000000 +0130
    robot <robot@users.noreply.github.com> 1767323045 +0000
    Cut the top

    It was too long.

    Fixes: #5
    ");
    assert!(
        history
            .iter()
            .any(|id| told(&repository, id).starts_with("Bob <bob@example.com> 1700000003 +0000"))
    );

    // After a crash the same is made again: the same commit, and nothing is pushed.
    let again = mirrors
        .cherry_pick(repo, &release, &ids, &bot())
        .await
        .unwrap();
    assert_eq!(again, picked);
    assert_eq!(mirrors.push(repo, &push).await.unwrap(), Pushed::Done);

    // What is there already makes no commit.
    let nothing = mirrors
        .cherry_pick(repo, commit, &ids, &bot())
        .await
        .unwrap();
    let expected = CherryPick::Picked {
        commit: commit.clone(),
        tree: tree.clone(),
        made: 0,
    };
    assert_eq!(nothing, expected);
}

/// A conflict is an answer, in git's words.
#[tokio::test]
async fn a_pick_that_does_not_fit_is_told_in_gits_words() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let base = repository.commit(&[("a", "1\n"), ("b", "1\n"), ("dir/c", "1\n")]);
    repository.branch("topic", &base);
    let fits = repository.commit(&[("new", "1\n")]);
    let clash = repository.commit(&[("a", "2\n"), ("dir/c", "2\n")]);
    repository.branch("release", &base);
    repository.git(&["rm", "--quiet", "dir/c"]);
    let release = repository.commit(&[("a", "3\n")]);
    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&release, &clash]).await.unwrap();
    let outcome = mirrors
        .cherry_pick(repo, &release, &[&fits, &clash], &bot())
        .await
        .unwrap();
    let CherryPick::Conflict {
        commit,
        paths,
        said,
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        (commit, paths),
        (clash.clone(), vec!["a".to_owned(), "dir/c".to_owned()])
    );
    // Between the two stands the commit that fitted, whose id depends on the clock.
    let said = said.replace(&clash, "CLASH");
    let (before, after) = said.split_once(" deleted in ").unwrap();
    insta::assert_snapshot!(format!("{before} deleted in …{}", &after[40..]), @r"
    CONFLICT (content): Merge conflict in a
    CONFLICT (modify/delete): dir/c deleted in … and modified in CLASH.  Version CLASH of dir/c left in tree.
    ");

    let unknown = "0123456789012345678901234567890123456789";
    let error = mirrors
        .cherry_pick(repo, &release, &[unknown], &bot())
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let many = vec![fits.as_str(); MAX_PICKED + 1];
    let error = mirrors
        .cherry_pick(repo, &release, &many, &bot())
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @"org/repo: there are more than 250 commits to pick");
    let nobody = Committer {
        name: "a\nb".into(),
        ..bot()
    };
    let error = mirrors
        .cherry_pick(repo, &release, &[&fits], &nobody)
        .await
        .unwrap_err();
    assert!(matches!(error, GitError::BadInput { .. }), "{error}");
}

/// GHC-062: what the bot makes is signed with its key, as git itself signs, and git believes it.
#[tokio::test]
async fn picked_commits_are_signed() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let key = server.dir.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "robot", "-f"])
        .arg(&key)
        .status();
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no ssh-keygen on this machine");
            return;
        }
        made => assert!(made.unwrap().success()),
    }
    let base = repository.commit(&[("a", "1")]);
    repository.branch("topic", &base);
    let change = repository.commit(&[("b", "1")]);
    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&change]).await.unwrap();
    let signing = |key: &std::path::Path| Committer {
        signing_key: Some(key.to_owned()),
        ..bot()
    };
    let picked = mirrors
        .cherry_pick(repo, &base, &[&change], &signing(&key))
        .await
        .unwrap();
    let CherryPick::Picked {
        commit, made: 1, ..
    } = picked
    else {
        panic!("{picked:?}");
    };
    let push = Push {
        to: repo,
        branch: "signed",
        commit: &commit,
        force: false,
    };
    assert_eq!(mirrors.push(repo, &push).await.unwrap(), Pushed::Done);
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let believed = server.dir.path().join("believed");
    std::fs::write(&believed, format!("robot {public}")).unwrap();
    let believed = format!("gpg.ssh.allowedSignersFile={}", believed.display());
    repository.git(&["-c", &believed, "verify-commit", "signed"]);
    repository.git(&["fsck", "--strict", "--no-dangling"]);

    let nowhere = server.dir.path().join("nowhere");
    let error = mirrors
        .cherry_pick(repo, &base, &[&change], &signing(&nowhere))
        .await
        .unwrap_err();
    assert!(matches!(error, GitError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("nowhere: "), "{error}");
}

/// GHC-063, GHC-065
#[tokio::test]
async fn branches_are_pushed_to_forks_and_seen_there() {
    let server = Server::new();
    let (repository, fork) = (server.repository("repo"), server.repository("fork"));
    let first = repository.commit(&[("a", "1")]);
    let second = repository.commit(&[("a", "2")]);
    let repo = &repository.id;
    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&second]).await.unwrap();
    let branch = "release/1.2-fix";
    assert_eq!(mirrors.remote_branch(&fork.id, branch).await.unwrap(), None);

    let push = |commit| Push {
        to: &fork.id,
        branch,
        commit,
        force: false,
    };
    assert_eq!(
        mirrors.push(repo, &push(&second)).await.unwrap(),
        Pushed::Done
    );
    assert_eq!(
        mirrors.remote_branch(&fork.id, branch).await.unwrap(),
        Some(second.clone())
    );
    // Names are whole names.
    for other in ["1.2-fix", "release", "fix"] {
        assert_eq!(
            mirrors.remote_branch(&fork.id, other).await.unwrap(),
            None,
            "{other}"
        );
    }

    let refused = mirrors.push(repo, &push(&first)).await.unwrap();
    let Pushed::Rejected { reason } = refused else {
        panic!("{refused:?}");
    };
    insta::assert_snapshot!(reason, @"[rejected] (non-fast-forward)");
    assert_eq!(
        mirrors.remote_branch(&fork.id, branch).await.unwrap(),
        Some(second.clone())
    );
    let forced = Push {
        force: true,
        ..push(&first)
    };
    assert_eq!(mirrors.push(repo, &forced).await.unwrap(), Pushed::Done);
    assert_eq!(
        mirrors.remote_branch(&fork.id, branch).await.unwrap(),
        Some(first.clone())
    );

    let nowhere = RepoId::new("org", "nowhere");
    let error = mirrors
        .push(
            repo,
            &Push {
                to: &nowhere,
                ..push(&second)
            },
        )
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @"org/nowhere: repository not found");
    let error = mirrors.remote_branch(&nowhere, branch).await.unwrap_err();
    insta::assert_snapshot!(error, @"org/nowhere: repository not found");
    let missing = "0123456789012345678901234567890123456789";
    let error = mirrors.push(repo, &push(missing)).await.unwrap_err();
    insta::assert_snapshot!(error, @"org/repo: commit 0123456789012345678901234567890123456789 not found");
    let error = mirrors
        .push(
            repo,
            &Push {
                branch: "a b",
                ..push(&second)
            },
        )
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @r#"org/fork: "a b" cannot be the name of a branch"#);
    // Asking for a branch leaves no mirror behind.
    assert_eq!(mirrors.sizes().len(), 1);
}

/// A fixed secret, as an account's own token is one.
struct Token(String);

#[async_trait::async_trait]
impl GitCredentials for Token {
    async fn secret(&self, _: &RepoId) -> trireme_forge::Result<Option<GitSecret>> {
        Ok(Some(GitSecret {
            username: "x-access-token".into(),
            password: self.0.clone(),
        }))
    }
}

/// GHC-065: over HTTP, with the bot's token, which nobody gets to see.
#[tokio::test]
async fn the_server_decides_who_may_push() {
    let world = World::start().await;
    let sandbox = world.sandbox();
    let repo = RepoId::new(ORG, REPO);
    let as_user = async |login: &str, dir: &tempfile::TempDir| {
        Mirrors::open(MirrorsOptions {
            dir: dir.path().to_owned(),
            remote: sandbox.url().parse().unwrap(),
            credentials: Some(Arc::new(Token(sandbox.token_for(login)))),
            limits: MirrorLimits::default(),
        })
        .await
        .unwrap()
    };
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bot_mirrors = as_user(BOT, &ours).await;
    let main = bot_mirrors
        .remote_branch(&repo, "main")
        .await
        .unwrap()
        .unwrap();
    bot_mirrors.ensure(&repo, &[&main]).await.unwrap();
    let push = Push {
        to: &repo,
        branch: "copy",
        commit: &main,
        force: false,
    };
    assert_eq!(bot_mirrors.push(&repo, &push).await.unwrap(), Pushed::Done);
    assert_eq!(
        bot_mirrors.remote_branch(&repo, "copy").await.unwrap(),
        Some(main.clone())
    );

    let stranger = as_user("author", &theirs).await;
    stranger.ensure(&repo, &[&main]).await.unwrap();
    let push = Push {
        branch: "theirs",
        ..push
    };
    let error = stranger.push(&repo, &push).await.unwrap_err();
    assert!(matches!(error, GitError::Forbidden { .. }), "{error}");
    assert!(
        !error.to_string().contains(&sandbox.token_for("author")),
        "{error}"
    );
    assert_eq!(stranger.remote_branch(&repo, "theirs").await.unwrap(), None);
}

/// Whoever may look at everything and change nothing.
struct OnlyLooking;

#[async_trait::async_trait]
impl GitCredentials for OnlyLooking {
    async fn secret(&self, _: &RepoId) -> trireme_forge::Result<Option<GitSecret>> {
        Ok(None)
    }

    fn may_push(&self) -> bool {
        false
    }
}

/// GHC-010: a dry run says "done" and leaves the other side as it is; what could not be done fails as ever.
#[tokio::test]
async fn ghc_010_a_dry_run_pushes_nothing() {
    let server = Server::new();
    let (repository, fork) = (server.repository("repo"), server.repository("fork"));
    let commit = repository.commit(&[("a", "1")]);
    let repo = &repository.id;
    let options = MirrorsOptions {
        credentials: Some(Arc::new(OnlyLooking)),
        ..server.options()
    };
    let mirrors = Mirrors::open(options).await.unwrap();
    mirrors.ensure(repo, &[&commit]).await.unwrap();
    let push = |commit| Push {
        to: &fork.id,
        branch: "topic",
        commit,
        force: true,
    };
    assert_eq!(
        mirrors.push(repo, &push(&commit)).await.unwrap(),
        Pushed::Done
    );
    let there = mirrors.remote_branch(&fork.id, "topic").await.unwrap();
    assert_eq!(there, None);
    let unknown = "1".repeat(40);
    let error = mirrors.push(repo, &push(&unknown)).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}
