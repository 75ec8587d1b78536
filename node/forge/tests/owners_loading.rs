//! Owners out of real mirrors: at which commit, when they are parsed and when remembered, what is told of bad files.

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

mod repositories;

use prometheus_client::registry::Registry;
use repositories::{Repository, Server};
use trireme_forge::MergeMethod;
use trireme_forge::git::{MergeOutcome, Mirrors};
use trireme_forge::owners::{MAX_REMEMBERED, OwnersLoader, OwnersMetrics, OwnersOptions};

struct Scene {
    repository: Repository,
    mirrors: Mirrors,
    loader: OwnersLoader,
    registry: Registry,
    _server: Server,
}

impl Scene {
    async fn new() -> Self {
        let server = Server::new();
        let repository = server.repository("repo");
        let mirrors = server.mirrors().await;
        let metrics = OwnersMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        Self {
            repository,
            loader: OwnersLoader::new(mirrors.clone()).telling(metrics),
            mirrors,
            registry,
            _server: server,
        }
    }

    async fn approvers(&self, commit: &str, path: &str, options: &OwnersOptions) -> Vec<String> {
        let loaded = self.loader.load(&self.repository.id, commit, options).await;
        loaded
            .unwrap()
            .approvers(path)
            .iter()
            .map(str::to_owned)
            .collect()
    }

    /// What Prometheus is told under a name: the part after it, a line each.
    fn told(&self, name: &str) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn parsed(&self) -> u64 {
        let told = self.told(r#"trireme_owners_loads_total{from="files"} "#);
        told.parse().unwrap_or(0)
    }
}

/// OWN-001, OWN-006, OWN-018
#[tokio::test]
async fn owners_are_those_of_the_commit() {
    let scene = Scene::new().await;
    let (repository, repo) = (&scene.repository, &scene.repository.id);
    let first = repository.commit(&[
        ("OWNERS", "approvers: [alice]\n"),
        ("pkg/OWNERS", "approvers: [team]\nreviewers: [carol]\n"),
        ("OWNERS_ALIASES", "aliases:\n  team: [bob]\n"),
        ("sub/OWNERS_ALIASES", "aliases:\n  team: [other]\n"),
        ("pkg/big/OWNERS", &format!("# {}\n", "x".repeat(1 << 20))),
    ]);
    std::fs::create_dir_all(repository.path.join("linked")).unwrap();
    std::os::unix::fs::symlink("../pkg/OWNERS", repository.path.join("linked/OWNERS")).unwrap();
    let second = repository.commit(&[("pkg/OWNERS", "approvers: [dave\n")]);

    let options = OwnersOptions::default();
    let owners = scene.loader.load(repo, &first, &options).await.unwrap();
    let approvers: Vec<String> = owners
        .approvers("pkg/x.go")
        .iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(approvers, ["bob", "alice"]);
    assert_eq!(owners.find_approver_owners_for_file("pkg/x.go"), "pkg");
    let [problem] = owners.problems() else {
        panic!("{:?}", owners.problems())
    };
    insta::assert_snapshot!(format!("{}: {}", problem.path, problem.message), @"pkg/big/OWNERS: the file is larger than 1048576 bytes");

    let owners = scene.loader.load(repo, &second, &options).await.unwrap();
    assert_eq!(owners.find_approver_owners_for_file("pkg/x.go"), "");
    assert_eq!(owners.find_approver_owners_for_file("linked/x.go"), "");
    let [problem, _] = owners.problems() else {
        panic!("{:?}", owners.problems())
    };
    insta::assert_snapshot!(format!("{}: {}", problem.path, problem.message), @"pkg/OWNERS: line 1: unclosed bracket '['");
}

/// OWN-017, OWN-018
#[tokio::test]
async fn a_push_that_touches_no_owners_costs_no_parsing() {
    let scene = Scene::new().await;
    let repository = &scene.repository;
    let first = repository.commit(&[
        ("OWNERS", "approvers: [alice]\n"),
        ("a/b/OWNERS", "approvers: [bob]\n"),
        ("a/b/c/d", "1"),
        ("README.md", "---\napprovers: [mark]\n---\n"),
        ("vendor/x/y/OWNERS", "approvers: [vera]\n"),
    ]);
    let code = repository.commit(&[("a/b/c/d", "2"), ("e/f", "1"), ("README.md", "text")]);
    let denied = repository.commit(&[("vendor/x/y/OWNERS", "approvers: [victor]\n")]);
    let owned = repository.commit(&[("a/b/OWNERS", "approvers: [carol]\n")]);
    let moved = repository.commit(&[("e/OWNERS", "approvers: [alice]\n")]);
    repository.git(&["revert", "--no-edit", &moved, &owned]);
    let back = repository.git(&["rev-parse", "HEAD"]);

    let options = OwnersOptions::default();
    for (commit, path, expected, parsed) in [
        (&first, "a/b/x", ["bob", "alice"].as_slice(), 1),
        (&first, "a/b/x", &["bob", "alice"], 1),
        (&code, "a/b/x", &["bob", "alice"], 1),
        (&denied, "vendor/x/y/z", &["alice"], 1),
        (&owned, "a/b/x", &["carol", "alice"], 2),
        (&moved, "e/x", &["alice"], 3),
        // What was there before is still known.
        (&back, "a/b/x", &["bob", "alice"], 3),
    ] {
        assert_eq!(
            scene.approvers(commit, path, &options).await,
            expected,
            "{path}"
        );
        assert_eq!(scene.parsed(), parsed, "{path} {expected:?}");
    }

    // Another configuration is another question.
    let md = OwnersOptions {
        md_yaml: true,
        ..options.clone()
    };
    assert_eq!(
        scene.approvers(&first, "README.md", &md).await,
        ["mark", "alice"]
    );
    assert_eq!(scene.approvers(&code, "README.md", &md).await, ["alice"]);
    assert_eq!(scene.parsed(), 5);
    let open = OwnersOptions {
        dir_denylist: vec![],
        ..options
    };
    assert_eq!(
        scene.approvers(&denied, "vendor/x/y/z", &open).await,
        ["victor", "alice"]
    );
    assert_eq!(scene.parsed(), 6);
    assert_eq!(scene.loader.remembered(), (6, MAX_REMEMBERED));
    let (directories, most) = scene.loader.directories();
    assert!(directories > 10 && directories < most);
}

/// Several plugins that ask for the same tree at once have it parsed once.
#[tokio::test]
async fn those_who_ask_at_once_share_the_parsing() {
    let scene = Scene::new().await;
    let commit = scene
        .repository
        .commit(&[("OWNERS", "approvers: [alice]\n")]);
    let options = OwnersOptions::default();
    let loads = (0..8).map(|_| scene.approvers(&commit, "x", &options));
    for approvers in futures::future::join_all(loads).await {
        assert_eq!(approvers, ["alice"]);
    }
    assert_eq!(scene.parsed(), 1);
}

/// What is remembered has a bound.
#[tokio::test]
async fn only_so_many_sets_are_remembered() {
    let scene = Scene::new().await;
    let commit = scene
        .repository
        .commit(&[("OWNERS", "approvers: [alice]\n")]);
    let options = |n: usize| OwnersOptions {
        dir_denylist: vec![format!("^{n}$")],
        ..OwnersOptions::default()
    };
    for n in 0..=MAX_REMEMBERED {
        scene.approvers(&commit, "x", &options(n)).await;
        scene.approvers(&commit, "x", &options(0)).await;
    }
    assert_eq!(scene.loader.remembered(), (MAX_REMEMBERED, MAX_REMEMBERED));
    let parsed = scene.parsed();
    // The one that was used last is there, the one that was used first is not.
    scene.approvers(&commit, "x", &options(0)).await;
    assert_eq!(scene.parsed(), parsed);
    scene.approvers(&commit, "x", &options(1)).await;
    assert_eq!(scene.parsed(), parsed + 1);
}

/// GHC-068: what OWNERS would be after a merge, before it is one.
#[tokio::test]
async fn owners_of_a_merge_that_never_was() {
    let scene = Scene::new().await;
    let (repository, repo) = (&scene.repository, &scene.repository.id);
    let base = repository.commit(&[("OWNERS", "approvers: [alice]\n"), ("a/x", "1")]);
    repository.branch("topic", &base);
    let head = repository.commit(&[("a/OWNERS", "approvers: [bob]\n")]);
    repository.git(&["checkout", "--quiet", "main"]);
    let main = repository.commit(&[("OWNERS", "approvers: [carol]\n")]);
    scene.mirrors.ensure(repo, &[&main, &head]).await.unwrap();
    let merged = scene
        .mirrors
        .merge_onto(repo, &main, &head, MergeMethod::Merge)
        .await;
    let MergeOutcome::Clean { commit, tree } = merged.unwrap() else {
        panic!("it merges");
    };
    let options = OwnersOptions::default();
    for id in [&tree, &commit] {
        assert_eq!(scene.approvers(id, "a/x", &options).await, ["bob", "carol"]);
    }
    assert_eq!(scene.approvers(&main, "a/x", &options).await, ["carol"]);
}

/// OWN-021
#[tokio::test]
async fn problems_of_branches_are_kept_until_they_are_gone() {
    let scene = Scene::new().await;
    let (repository, repo) = (&scene.repository, &scene.repository.id);
    let bad = repository.commit(&[
        ("OWNERS", "approvers: [alice]\n"),
        ("a/OWNERS", "approvers: 5\n"),
        ("OWNERS_ALIASES", "aliases: {team: bob}\n"),
    ]);
    let good = repository.commit(&[
        ("a/OWNERS", "approvers: ['5']\n"),
        ("OWNERS_ALIASES", "aliases: {team: [bob]}\n"),
    ]);
    let options = OwnersOptions::default();
    let load = async |branch: &str, commit: &str| {
        let loaded = scene
            .loader
            .load_branch(repo, branch, commit, &options)
            .await;
        loaded.unwrap();
    };
    load("main", &bad).await;
    load("release", &bad).await;
    // Somebody's attempt is not what is wrong with the repository.
    scene.loader.load(repo, &good, &options).await.unwrap();
    let told = scene.loader.problems();
    assert_eq!(told.len(), 2);
    assert_eq!(
        (&told[0].repo, told[0].branch.as_str(), &told[0].commit),
        (repo, "main", &bad)
    );
    let texts: Vec<String> = told[0]
        .problems
        .iter()
        .map(|p| format!("{}: {}", p.path, p.message))
        .collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    OWNERS_ALIASES: alias group 'team' must contain a list of members
    a/OWNERS: approvers must be a list of names, not a number
    ");
    let mut gauge: Vec<String> = scene
        .told("trireme_owners_problems{")
        .lines()
        .map(str::to_owned)
        .collect();
    gauge.sort();
    insta::assert_snapshot!(gauge.join("\n"), @r#"
    org="org",repo="repo",branch="main"} 2
    org="org",repo="repo",branch="release"} 2
    "#);

    load("main", &good).await;
    let told = scene.loader.problems();
    assert_eq!(
        told.iter()
            .map(|told| told.branch.as_str())
            .collect::<Vec<_>>(),
        ["release"]
    );
    load("release", &good).await;
    assert_eq!(
        (
            scene.loader.problems().len(),
            scene.told("trireme_owners_problems{")
        ),
        (0, String::new())
    );
}
