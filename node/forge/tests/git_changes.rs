//! What a pull request changes, by git: files, patches and commits, compared with git's own words.

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

mod repositories;

use std::fmt::Write as _;

use repositories::{Server, lines};
use trireme_forge::FileStatus;
use trireme_forge::git::{ChangedPath, GitError, MAX_COMMITS};

fn told(files: &[ChangedPath]) -> String {
    let mut text = String::new();
    for file in files {
        let before = file.previous_path.as_deref();
        let before = before.map_or(String::new(), |path| format!(" from {path}"));
        let (status, path) = (file.status, &file.path);
        writeln!(
            text,
            "{status:?} {path}{before} +{} -{}",
            file.additions, file.deletions
        )
        .unwrap();
    }
    text
}

/// GHC-063
#[tokio::test]
async fn changed_files_are_those_since_the_merge_base() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let base = repository.commit(&[
        ("keep", "1"),
        ("edit", "1"),
        ("drop", "gone\n"),
        ("run", "#!\n"),
        ("kind", "same"),
        ("dir/old", &lines(50)),
        ("moved", &lines(40)),
        ("tab\t\"quoted\" é", "1\n"),
    ]);
    repository.branch("topic", &base);
    repository.git(&["mv", "dir/old", "dir/new"]);
    repository.git(&["mv", "moved", "sub-moved"]);
    repository.git(&["rm", "--quiet", "drop", "kind"]);
    repository.git(&["update-index", "--chmod=+x", "run"]);
    repository.git(&["commit", "--quiet", "-m", "moves"]);
    repository.git(&["checkout", "--quiet", "--", "."]);
    std::os::unix::fs::symlink("keep", repository.path.join("kind")).unwrap();
    let head = repository.commit(&[
        ("edit", "2"),
        ("sub/new", "fresh\n"),
        ("bin", "\0\u{1}\0"),
        ("sub-moved", &lines(42)),
        ("tab\t\"quoted\" é", "2\n3\n"),
    ]);
    repository.git(&["checkout", "--quiet", "main"]);
    let main = repository.commit(&[("elsewhere", "1")]);
    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&main, &head]).await.unwrap();

    assert_eq!(
        mirrors.merge_base(repo, &main, &head).await.unwrap(),
        Some(base.clone())
    );
    let changed = mirrors.changed_files(repo, &main, &head).await.unwrap();
    insta::assert_snapshot!(told(&changed), @r#"
    Added bin +0 -0
    Renamed dir/new from dir/old +0 -0
    Removed drop +0 -1
    Modified edit +1 -1
    Changed kind +1 -1
    Changed run +0 -0
    Renamed sub-moved from moved +2 -0
    Added sub/new +1 -0
    Modified tab	"quoted" é +2 -1
    "#);

    let patch = async |path: &str| {
        let file = changed.iter().find(|file| file.path == path).unwrap();
        let patch = mirrors.patch(repo, &main, &head, file).await.unwrap();
        patch.unwrap_or_else(|| "none".to_owned())
    };
    insta::assert_snapshot!(patch("edit").await, @r"
    @@ -1 +1 @@
    -1
    \ No newline at end of file
    +2
    \ No newline at end of file
    ");
    insta::assert_snapshot!(patch("sub/new").await, @r"
    @@ -0,0 +1 @@
    +fresh
    ");
    insta::assert_snapshot!(patch("drop").await, @r"
    @@ -1 +0,0 @@
    -gone
    ");
    insta::assert_snapshot!(patch("sub-moved").await, @r"
    @@ -38,3 +38,5 @@ line 36
     line 37
     line 38
     line 39
    +line 40
    +line 41
    ");
    insta::assert_snapshot!(patch("tab\t\"quoted\" é").await, @r"
    @@ -1 +1,2 @@
    -1
    +2
    +3
    ");
    for without in ["bin", "dir/new", "run"] {
        assert_eq!(patch(without).await, "none", "{without}");
    }

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

    let missing = "0123456789012345678901234567890123456789";
    let error = mirrors
        .changed_files(repo, &main, missing)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let error = mirrors.diff(repo, "HEAD", &head).await.unwrap_err();
    assert!(matches!(error, GitError::BadInput { .. }), "{error}");
}

/// A file whose place a directory takes is not mixed up with what is in it.
#[tokio::test]
async fn a_patch_is_of_one_file() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let base = repository.commit(&[("place", "file\n"), ("other", &lines(30))]);
    repository.git(&["rm", "--quiet", "place"]);
    repository.git(&["mv", "other", "mover"]);
    let head = repository.commit(&[
        ("place/inside", "deep\n"),
        ("other/x", "1\n"),
        ("mover", &lines(31)),
    ]);
    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&base, &head]).await.unwrap();
    let changed = mirrors.changed_files(repo, &base, &head).await.unwrap();
    insta::assert_snapshot!(told(&changed), @r"
    Renamed mover from other +1 -0
    Added other/x +1 -0
    Removed place +0 -1
    Added place/inside +1 -0
    ");
    let mut patches = Vec::new();
    for file in &changed {
        let patch = mirrors.patch(repo, &base, &head, file).await.unwrap();
        patches.push(patch.unwrap().lines().last().unwrap().to_owned());
    }
    assert_eq!(patches, ["+line 30", "+1", "-file", "+deep"]);
}

/// GHC-025: what GitHub would cut at 3,000 files and 250 commits is told to the end.
#[tokio::test]
async fn large_pull_requests_are_told_whole() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let base = repository.commit(&[("start", "1")]);
    let mut script = String::new();
    for n in 0..300 {
        let who = format!("A{n} <a{n}@example.com> {} +0130", 1_700_000_000 + n);
        write!(
            script,
            "commit refs/heads/topic\nauthor {who}\ncommitter C <c@example.com> 1700001000 +0000\ndata <<END\nchange {n}\n\nbody\nEND\n"
        )
        .unwrap();
        if n == 0 {
            writeln!(script, "from {base}").unwrap();
            for file in 0..3500 {
                writeln!(script, "M 100644 inline d{}/f{file}", file % 70).unwrap();
                write!(script, "data <<END\n{file}\nEND\n").unwrap();
            }
        }
        writeln!(script, "M 100644 inline last\ndata <<END\n{n}\nEND").unwrap();
    }
    repository.fast_import(&script);
    let topic = repository.git(&["rev-parse", "topic"]);
    let main = repository.commit(&[("main", "1")]);
    repository.git(&["checkout", "--quiet", "topic"]);
    repository.git(&["merge", "--quiet", "--no-ff", "-m", "take main", &main]);
    let head = repository.git(&["rev-parse", "HEAD"]);

    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&base, &main, &head]).await.unwrap();
    let changed = mirrors.changed_files(repo, &main, &head).await.unwrap();
    assert_eq!(changed.len(), 3501);
    assert!(changed.iter().all(|file| file.additions == 1));

    let commits = mirrors.commits_between(repo, &base, &head).await.unwrap();
    // Those of the topic, the one of main, and the merge, which is last.
    assert_eq!(commits.len(), 302);
    let (merge, rest) = commits.split_last().unwrap();
    assert_eq!(
        (merge.sha.as_str(), merge.message.as_str()),
        (head.as_str(), "take main")
    );
    assert_eq!(merge.parents, [topic.as_str(), main.as_str()]);
    let first = rest
        .iter()
        .find(|commit| commit.author.name == "A0")
        .unwrap();
    assert_eq!(first.message, "change 0\n\nbody");
    assert_eq!(first.parents, [base.as_str()]);
    assert_eq!(first.author.email, "a0@example.com");
    assert_eq!(first.author.at.unwrap().as_second(), 1_700_000_000);
    assert_eq!(first.committer.name, "C");
    for commit in &commits {
        let at = |id: &str| commits.iter().position(|commit| commit.sha == id);
        for parent in &commit.parents {
            assert!(
                at(parent) < at(&commit.sha),
                "{parent} stands behind its child"
            );
        }
    }
    let merges = mirrors
        .merge_commits_between(repo, &main, &head)
        .await
        .unwrap();
    assert_eq!(
        merges.iter().map(|commit| &commit.sha).collect::<Vec<_>>(),
        [&head]
    );
    assert_eq!(
        mirrors.commits_between(repo, &head, &base).await.unwrap(),
        []
    );
}

/// A part of the commits is never passed off as all of them.
#[tokio::test]
async fn too_many_commits_are_an_error() {
    let server = Server::new();
    let repository = server.repository("repo");
    let repo = &repository.id;
    let base = repository.commit(&[("start", "1")]);
    let mut script = String::new();
    for n in 0..=MAX_COMMITS {
        write!(
            script,
            "commit refs/heads/topic\ncommitter C <c@c> {n} +0000\ndata 1\nx\n"
        )
        .unwrap();
        if n == 0 {
            writeln!(script, "from {base}").unwrap();
        }
    }
    repository.fast_import(&script);
    let (head, before) = (
        repository.git(&["rev-parse", "topic"]),
        repository.git(&["rev-parse", "topic^"]),
    );
    let mirrors = server.mirrors().await;
    mirrors.ensure(repo, &[&head]).await.unwrap();
    let error = mirrors
        .commits_between(repo, &base, &head)
        .await
        .unwrap_err();
    assert!(
        matches!(error, GitError::TooMany { limit: 10_000, .. }),
        "{error}"
    );
    let commits = mirrors.commits_between(repo, &base, &before).await.unwrap();
    assert_eq!(commits.len(), MAX_COMMITS);
}
