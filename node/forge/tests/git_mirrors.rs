//! Mirrors against real repositories on disk: fetching, reading, comparing, trial merges, bounds.

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

mod repositories;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use repositories::{Server, lines};
use trireme_forge::git::{GitCredentials, GitError, GitSecret, MergeOutcome, Mirrors, TrialMerge};
use trireme_forge::{EntryKind, ForgeError, MergeMethod, RepoId};

/// GHC-060, GHC-061
#[tokio::test]
async fn commits_are_fetched_once_and_read() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let first = repository.commit(&[("a/b.txt", "hello"), ("c", "1")]);
    std::os::unix::fs::symlink("c", repository.path.join("link")).unwrap();
    let second = repository.commit(&[("a/x/y", "2")]);
    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&first, &second]).await.unwrap();

    // What is there is not asked for again: the server may even be gone.
    std::fs::rename(&repository.path, repository.path.with_extension("gone")).unwrap();
    mirrors.ensure(repo, &[&second, &first]).await.unwrap();

    assert_eq!(
        mirrors
            .read_file(repo, &first, "a/b.txt")
            .await
            .unwrap()
            .as_deref(),
        Some(&b"hello"[..])
    );
    assert_eq!(
        mirrors.read_file(repo, &first, "a/x/y").await.unwrap(),
        None
    );
    assert_eq!(mirrors.read_file(repo, &second, "a").await.unwrap(), None);
    assert_eq!(
        mirrors.read_file(repo, &second, "link").await.unwrap(),
        None
    );

    let listed = mirrors.list_tree(repo, &second, "").await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|entry| (entry.path.as_str(), entry.kind))
        .collect();
    assert_eq!(
        listed,
        [
            ("a/b.txt", EntryKind::File),
            ("a/x/y", EntryKind::File),
            ("c", EntryKind::File),
            ("link", EntryKind::Symlink)
        ]
    );
    assert_eq!(
        mirrors.list_tree(repo, &second, "a/x/").await.unwrap()[0].path,
        "a/x/y"
    );
    assert!(
        mirrors
            .list_tree(repo, &second, "none")
            .await
            .unwrap()
            .is_empty()
    );

    let files = mirrors
        .read_files(repo, &second, |path| path.starts_with("a/"))
        .await
        .unwrap();
    assert_eq!(
        files,
        [
            ("a/b.txt".to_owned(), b"hello".to_vec()),
            ("a/x/y".to_owned(), b"2".to_vec())
        ]
    );
}

#[tokio::test]
async fn what_the_server_has_not_is_not_found() {
    let server = Server::new();
    let repository = server.repository("repo");
    let first = repository.commit(&[("a", "1")]);
    let mirrors = server.mirrors().await;

    let nowhere = RepoId::new("org", "nowhere");
    let error = mirrors.ensure(&nowhere, &[&first]).await.unwrap_err();
    insta::assert_snapshot!(error, @"org/nowhere: repository not found");
    assert!(error.is_not_found());

    let missing = "0123456789012345678901234567890123456789";
    let error = mirrors
        .ensure(&repository.id, &[missing])
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @"org/repo: commit 0123456789012345678901234567890123456789 not found");
    assert!(error.is_not_found());
    assert!(
        mirrors
            .tree_of(&repository.id, missing)
            .await
            .unwrap_err()
            .is_not_found()
    );

    for bad in ["main", "--upload-pack=x", "abc"] {
        let error = mirrors.ensure(&repository.id, &[bad]).await.unwrap_err();
        assert!(matches!(error, GitError::BadInput { .. }), "{error}");
    }
    for bad in ["..", "-x", "a/b", ""] {
        let error = mirrors
            .ensure(&RepoId::new("org", bad), &[&first])
            .await
            .unwrap_err();
        assert!(matches!(error, GitError::BadInput { .. }), "{error}");
    }
}

/// TIDE-075, TIDE-076, GHC-064, GHC-068: the tree of a trial merge is the tree that git itself would make.
#[tokio::test]
async fn trial_merges_give_gits_own_trees() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let base = repository.commit(&[("top", &lines(20)), ("bottom", &lines(20)), ("x", "1")]);
    repository.branch("one", &base);
    repository.commit(&[("top", &lines(19))]);
    let one = repository.commit(&[("one", "1")]);
    repository.branch("two", &base);
    let two = repository.commit(&[("bottom", &lines(19))]);
    repository.branch("clash", &base);
    let clash = repository.commit(&[("top", &lines(18)), ("one", "2")]);
    repository.git(&["checkout", "--quiet", "main"]);
    let main = repository.commit(&[("main", "1")]);

    repository.git(&["checkout", "--quiet", "-b", "merged", &main]);
    repository.git(&["merge", "--quiet", "--no-edit", "--no-ff", "one"]);
    repository.git(&["merge", "--quiet", "--no-edit", "--no-ff", "two"]);
    let expected = repository.git(&["rev-parse", "HEAD^{tree}"]);

    let mirrors = server.mirrors().await;
    mirrors
        .ensure(repo, &[&main, &one, &two, &clash])
        .await
        .unwrap();
    for method in [MergeMethod::Merge, MergeMethod::Squash, MergeMethod::Rebase] {
        let trial = mirrors
            .merges_cleanly(repo, &main, &[&one, &two], method)
            .await
            .unwrap();
        let TrialMerge::Clean { commit, tree } = trial else {
            panic!("{method:?}: {trial:?}");
        };
        assert_eq!(tree, expected, "{method:?}");
        assert_eq!(mirrors.tree_of(repo, &commit).await.unwrap(), expected);
        let again = mirrors
            .merges_cleanly(repo, &main, &[&one, &two], method)
            .await
            .unwrap();
        assert_eq!(again, TrialMerge::Clean { commit, tree });

        let trial = mirrors
            .merges_cleanly(repo, &main, &[&one, &clash, &two], method)
            .await
            .unwrap();
        let paths = vec!["one".to_owned(), "top".to_owned()];
        assert_eq!(
            trial,
            TrialMerge::Conflict {
                head: clash.clone(),
                paths
            },
            "{method:?}"
        );
    }

    // Rebasing what is in already changes nothing.
    let outcome = mirrors
        .merge_onto(repo, &one, &base, MergeMethod::Rebase)
        .await
        .unwrap();
    let tree = mirrors.tree_of(repo, &one).await.unwrap();
    assert_eq!(
        outcome,
        MergeOutcome::Clean {
            commit: one.clone(),
            tree
        }
    );
}

/// GHC-067
#[tokio::test]
async fn the_cache_keeps_within_its_limits() {
    let server = Server::new();
    let mut options = server.options();
    options.limits.mirrors = 2;
    let mirrors = Mirrors::open(options).await.unwrap();
    let mut repositories = Vec::new();
    for name in ["a", "b", "c"] {
        let repository = server.repository(name);
        let commit = repository.commit(&[("x", name)]);
        mirrors.ensure(&repository.id, &[&commit]).await.unwrap();
        repositories.push((repository, commit));
    }
    let mut kept: Vec<_> = mirrors
        .sizes()
        .into_iter()
        .map(|(repo, _)| repo.repo)
        .collect();
    kept.sort();
    assert_eq!(kept, ["b", "c"]);
    assert!(!server.dir.path().join("cache/org/a.git").exists());

    // It comes back when it is needed.
    let (a, commit) = &repositories[0];
    mirrors.ensure(&a.id, &[commit]).await.unwrap();
    assert_eq!(
        mirrors
            .read_file(&a.id, commit, "x")
            .await
            .unwrap()
            .as_deref(),
        Some(&b"a"[..])
    );
}

#[tokio::test]
async fn a_cache_belongs_to_one_process_and_survives_a_kill() {
    let server = Server::new();
    let repository = server.repository("repo");
    let first = repository.commit(&[("x", "1")]);
    let mirrors = server.mirrors().await;
    mirrors.ensure(&repository.id, &[&first]).await.unwrap();
    let error = Mirrors::open(server.options())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("another process uses it"), "{error}");
    drop(mirrors);

    let mirror = server.dir.path().join("cache/org/repo.git");
    let leave = |path: &str| std::fs::write(mirror.join(path), "").unwrap();
    leave("shallow.lock");
    leave("objects/pack/tmp_pack_x");
    std::fs::create_dir_all(server.dir.path().join("cache/org/half.doomed/objects")).unwrap();

    let mirrors = server.mirrors().await;
    assert!(!mirror.join("shallow.lock").exists());
    assert!(!Path::new(&mirror).join("objects/pack/tmp_pack_x").exists());
    assert!(!server.dir.path().join("cache/org/half.doomed").exists());
    let second = repository.commit(&[("x", "2")]);
    mirrors
        .ensure(&repository.id, &[&first, &second])
        .await
        .unwrap();
    assert_eq!(mirrors.sizes().len(), 1);
}

/// Hands out nothing until all others wait; counts how often git is about to ask the server.
struct Gate {
    mirrors: OnceLock<Mirrors>,
    others: usize,
    asked: AtomicUsize,
    down: bool,
}

#[async_trait::async_trait]
impl GitCredentials for Gate {
    async fn secret(&self, _: &RepoId) -> trireme_forge::Result<Option<GitSecret>> {
        if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
            while self.mirrors.get().unwrap().waiting() < self.others {
                tokio::task::yield_now().await;
            }
        }
        if self.down {
            return Err(ForgeError::Unavailable {
                request: "POST token".into(),
                reason: "502".into(),
                maybe_sent: true,
            });
        }
        Ok(None)
    }
}

/// GHC-067
#[tokio::test]
async fn callers_at_the_same_time_share_one_question_and_its_failure() {
    for down in [false, true] {
        let server = Server::new();
        let repository = server.repository("repo");
        let commits: Vec<String> = (0..8)
            .map(|n| repository.commit(&[("x", &n.to_string())]))
            .collect();
        let gate = Arc::new(Gate {
            mirrors: OnceLock::new(),
            others: 8,
            asked: AtomicUsize::new(0),
            down,
        });
        let mut options = server.options();
        options.credentials = Some(Arc::clone(&gate) as Arc<dyn GitCredentials>);
        let mirrors = Mirrors::open(options).await.unwrap();
        gate.mirrors.set(mirrors.clone()).unwrap();
        let ensure = |commit: &String| {
            let (mirrors, repo, commit) = (mirrors.clone(), repository.id.clone(), commit.clone());
            tokio::spawn(async move { mirrors.ensure(&repo, &[&commit]).await })
        };
        let first = ensure(&commits[0]);
        while gate.asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = commits.iter().map(ensure).collect();
        let mut answers = vec![first.await.unwrap()];
        for other in others {
            answers.push(other.await.unwrap());
        }
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!(failed, if down { 9 } else { 0 });
        // Those who came while the first question was under way are not part of it; they share the second.
        assert_eq!(gate.asked.load(Ordering::Relaxed), 2);
        assert_eq!(mirrors.waiting(), 0);
    }
}

#[tokio::test]
async fn no_secret_no_fetch() {
    struct Locked;

    #[async_trait::async_trait]
    impl GitCredentials for Locked {
        async fn secret(&self, _: &RepoId) -> trireme_forge::Result<Option<GitSecret>> {
            Err(ForgeError::Unauthorized {
                request: "POST token".into(),
                message: "expired".into(),
            })
        }
    }

    let server = Server::new();
    let repository = server.repository("repo");
    let commit = repository.commit(&[("x", "1")]);
    let mut options = server.options();
    options.credentials = Some(Arc::new(Locked));
    let mirrors = Mirrors::open(options).await.unwrap();
    let error = mirrors
        .ensure(&repository.id, &[&commit])
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @"POST token: the forge did not accept our credentials: expired");
}
