//! Mirrors against real repositories on disk: fetching, reading, comparing, trial merges, bounds.

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use trireme_forge::git::{
    GitCredentials, GitError, GitSecret, MergeOutcome, MirrorLimits, Mirrors, MirrorsOptions,
    TrialMerge,
};
use trireme_forge::owners::{OwnersLoader, OwnersOptions};
use trireme_forge::{EntryKind, FileStatus, ForgeError, MergeMethod, RepoId};

/// A place with repositories, as a server would have them.
struct Server {
    dir: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn repository(&self, name: &str) -> Repository {
        let path = self.dir.path().join("remote/org").join(name);
        std::fs::create_dir_all(&path).unwrap();
        let repository = Repository {
            path,
            id: RepoId::new("org", name),
        };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    fn options(&self) -> MirrorsOptions {
        MirrorsOptions {
            dir: self.dir.path().join("cache"),
            remote: url::Url::from_file_path(self.dir.path().join("remote")).unwrap(),
            credentials: None,
            limits: MirrorLimits::default(),
        }
    }

    async fn mirrors(&self) -> Mirrors {
        Mirrors::open(self.options()).await.unwrap()
    }
}

struct Repository {
    path: PathBuf,
    id: RepoId,
}

impl Repository {
    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(&self.path)
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@t",
                "-c",
                "commit.gpgSign=false",
            ])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A commit on the current branch that writes these files.
    fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let path = self.path.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn branch(&self, name: &str, from: &str) {
        self.git(&["checkout", "--quiet", "-b", name, from]);
    }
}

fn lines(n: usize) -> String {
    (0..n).map(|n| format!("line {n}\n")).collect()
}

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

#[tokio::test]
async fn changed_files_are_those_since_the_merge_base() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let base = repository.commit(&[
        ("keep", "1"),
        ("edit", "1"),
        ("drop", "gone"),
        ("dir/old", &lines(50)),
    ]);
    repository.branch("topic", &base);
    repository.git(&["mv", "dir/old", "dir/new"]);
    repository.git(&["rm", "--quiet", "drop"]);
    let head = repository.commit(&[("edit", "2"), ("sub/new", "fresh")]);
    repository.git(&["checkout", "--quiet", "main"]);
    let main = repository.commit(&[("elsewhere", "1")]);
    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&main, &head]).await.unwrap();

    assert_eq!(
        mirrors.merge_base(repo, &main, &head).await.unwrap(),
        Some(base.clone())
    );
    let changed = mirrors.changed_files(repo, &main, &head).await.unwrap();
    let changed: Vec<_> = changed
        .iter()
        .map(|file| {
            (
                file.path.as_str(),
                file.previous_path.as_deref(),
                file.status,
            )
        })
        .collect();
    assert_eq!(
        changed,
        [
            ("dir/new", Some("dir/old"), FileStatus::Renamed),
            ("drop", None, FileStatus::Removed),
            ("edit", None, FileStatus::Modified),
            ("sub/new", None, FileStatus::Added),
        ]
    );
    let between = mirrors.diff(repo, &main, &head).await.unwrap();
    assert!(
        between
            .iter()
            .any(|file| file.path == "elsewhere" && file.status == FileStatus::Removed)
    );

    repository.git(&["checkout", "--quiet", "--orphan", "alone"]);
    let alone = repository.commit(&[("x", "1")]);
    mirrors.ensure(repo, &[&alone]).await.unwrap();
    assert_eq!(mirrors.merge_base(repo, &main, &alone).await.unwrap(), None);
}

/// TIDE-075, TIDE-076: the tree of a trial merge is the tree that git itself would make.
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

#[tokio::test]
async fn many_fetches_at_once_are_one_after_the_other() {
    let server = Server::new();
    let repository = server.repository("repo");
    let commits: Vec<String> = (0..8)
        .map(|n| repository.commit(&[("x", &n.to_string())]))
        .collect();
    let mirrors = server.mirrors().await;
    let fetches = commits.iter().map(|commit| {
        let (mirrors, repo, commit) = (mirrors.clone(), repository.id.clone(), commit.clone());
        tokio::spawn(async move { mirrors.ensure(&repo, &[&commit]).await })
    });
    for fetch in futures::future::join_all(fetches).await {
        fetch.unwrap().unwrap();
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

/// OWN-001, OWN-006, OWN-018
#[tokio::test]
async fn owners_are_those_of_the_commit() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let first = repository.commit(&[
        ("OWNERS", "approvers: [alice]\n"),
        ("pkg/OWNERS", "approvers: [team]\nreviewers: [carol]\n"),
        ("OWNERS_ALIASES", "aliases:\n  team: [bob]\n"),
    ]);
    std::fs::create_dir_all(repository.path.join("linked")).unwrap();
    std::os::unix::fs::symlink("../pkg/OWNERS", repository.path.join("linked/OWNERS")).unwrap();
    let second = repository.commit(&[("pkg/OWNERS", "approvers: [dave\n")]);

    let loader = OwnersLoader::new(server.mirrors().await);
    let options = OwnersOptions::default();
    let owners = loader.load(repo, &first, &options).await.unwrap();
    let approvers: Vec<String> = owners
        .approvers("pkg/x.go")
        .iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(approvers, ["bob", "alice"]);
    assert_eq!(owners.find_approver_owners_for_file("pkg/x.go"), "pkg");
    assert!(owners.problems().is_empty());
    let filtered = owners.with_collaborators(&["Alice"]);
    assert_eq!(
        filtered.all_owners().into_iter().collect::<Vec<_>>(),
        ["alice"]
    );

    let owners = loader.load(repo, &second, &options).await.unwrap();
    assert_eq!(owners.find_approver_owners_for_file("pkg/x.go"), "");
    assert_eq!(owners.find_approver_owners_for_file("linked/x.go"), "");
    let [problem] = owners.problems() else {
        panic!("{:?}", owners.problems())
    };
    insta::assert_snapshot!(format!("{}: {}", problem.path, problem.message), @"pkg/OWNERS: line 2: while parsing a flow sequence, expected ',' or ']'");
}
