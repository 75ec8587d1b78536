//! Jobs of repositories on disk: what is read of which commits, what is refused, what is remembered.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and print what they measure"
)]

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::registry::Registry;
use trireme_config::{Config, FileSet, Layout, LoadOptions};
use trireme_forge::git::{MirrorLimits, Mirrors, MirrorsOptions};
use trireme_in_repo::{CacheLimits, Commits, InRepo, InRepoError, InRepoMetrics, MAX_FILES, Own};

/// A repository, a mirror's place, and the cache over it.
struct Stand {
    dir: tempfile::TempDir,
    path: PathBuf,
    metrics: InRepoMetrics,
}

const REPO: &str = "org/repo";

impl Stand {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("remote/org/repo");
        std::fs::create_dir_all(&path).unwrap();
        let stand = Self {
            dir,
            path,
            metrics: InRepoMetrics::default(),
        };
        stand.git(&["init", "--quiet", "--initial-branch=main"]);
        stand
    }

    fn git(&self, args: &[&str]) -> String {
        let identity = [
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "commit.gpgSign=false",
        ];
        let output = Command::new("git")
            .current_dir(&self.path)
            .args(identity)
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {told}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, content: &str) -> &Self {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn link(&self, path: &str, to: &str) -> &Self {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
        self
    }

    fn remove(&self, path: &str) -> &Self {
        let path = self.path.join(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        self
    }

    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn branch(&self, name: &str, from: &str) -> &Self {
        self.git(&["checkout", "--quiet", "-b", name, from]);
        self
    }

    async fn in_repo(&self, limits: CacheLimits) -> InRepo {
        let options = MirrorsOptions {
            dir: self.dir.path().join("cache"),
            remote: url::Url::from_file_path(self.dir.path().join("remote")).unwrap(),
            credentials: None,
            limits: MirrorLimits::default(),
        };
        let mirrors = Mirrors::open(options).await.unwrap();
        InRepo::new(mirrors, limits, self.metrics.clone())
    }

    /// What is counted under a name, 0 if nothing was.
    fn counted(&self, name: &str) -> u64 {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let start = format!("inRepoConfigCache_{name}{{org=\"org\",repo=\"repo\"}} ");
        let found = text.lines().find_map(|line| line.strip_prefix(&start));
        found.map_or(0, |count| count.parse().unwrap())
    }
}

fn config(text: &str) -> Arc<Config> {
    let mut files = FileSet::new(Layout {
        config: "config.yaml".to_owned(),
        ..Layout::default()
    });
    files.insert("config.yaml", text.as_bytes());
    let loaded = Config::load(&files, LoadOptions::default());
    loaded.accepted().unwrap().0
}

const ON: &str = "in_repo_config: {enabled: {org: true}}\n";

fn job(name: &str) -> String {
    format!("presubmits: [{{name: {name}, spec: {{containers: [{{image: a}}]}}}}]\n")
}

fn names(own: &Own) -> Vec<&str> {
    let presubmits = own.jobs.presubmits.iter().map(|job| &job.base);
    let all = presubmits.chain(own.jobs.postsubmits.iter().map(|job| &job.base));
    all.map(|base| base.name.as_str()).collect()
}

/// The names of the jobs, or what is wrong.
async fn told(in_repo: &InRepo, base: &str, heads: &[&str]) -> String {
    match in_repo
        .jobs(&config(ON), REPO, Commits { base, heads })
        .await
    {
        Ok(own) => names(&own).join(" "),
        Err(InRepoError::Broken { found, .. }) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            found.join("\n")
        }
        Err(error) => error.to_string(),
    }
}

/// CFG-077: what counts is what the merge would make, and nothing is ever checked out.
#[tokio::test]
async fn cfg_077_heads_are_merged_into_the_base() {
    let stand = Stand::new();
    let root = stand.write(".prow/a.yaml", &job("a")).commit();
    stand.branch("one", &root);
    let one = stand.write(".prow/b.yaml", &job("b")).commit();
    stand.branch("two", &root);
    let two = stand.write(".prow/c.yaml", &job("c")).commit();
    stand.branch("clash", &root);
    let clash = stand.write(".prow/c.yaml", &job("other")).commit();
    stand.git(&["checkout", "--quiet", "main"]);
    let base = stand.write("README", "moved on").commit();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    assert_eq!(told(&in_repo, &base, &[]).await, "a");
    assert_eq!(told(&in_repo, &base, &[&one]).await, "a b");
    assert_eq!(told(&in_repo, &base, &[&one, &two]).await, "a b c");
    let conflict = told(&in_repo, &base, &[&two, &clash]).await;
    assert_eq!(
        conflict,
        format!("failed to merge {clash:?}: conflicts in .prow/c.yaml")
    );
    // Whether the pull request touches the files is told apart (CFG-087).
    stand.branch("code", &root);
    let code = stand.write("main.go", "x").commit();
    let changed = async |heads: &[&str]| {
        let at = Commits { base: &base, heads };
        in_repo.jobs(&config(ON), REPO, at).await.unwrap().changed
    };
    assert!(changed(&[&one]).await);
    assert!(!changed(&[&code]).await);
    assert!(!changed(&[]).await);
}

/// CFG-077: by the method that Tide uses for the repository.
#[tokio::test]
async fn cfg_077_rebased_where_tide_rebases() {
    let stand = Stand::new();
    let root = stand.write(".prow.yaml", &job("root")).commit();
    stand.branch("pr", &root).write("x", "1").commit();
    // Goes away again: what is merged conflicts nowhere, what is rebased does in between.
    stand.write(".prow.yaml", &job("tried")).commit();
    let head = stand.write(".prow.yaml", &job("root")).commit();
    stand.git(&["checkout", "--quiet", "main"]);
    let base = stand.write(".prow.yaml", &job("moved")).commit();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    let at = Commits {
        base: &base,
        heads: &[&head],
    };
    let merged = in_repo.jobs(&config(ON), REPO, at).await.unwrap();
    assert_eq!(names(&merged), ["moved"]);
    let rebase = config(&format!("{ON}tide: {{merge_method: {{org: rebase}}}}\n"));
    let rebased = in_repo.jobs(&rebase, REPO, at).await;
    assert!(
        matches!(&rebased, Err(InRepoError::Conflict { paths, .. }) if paths[..] == [".prow.yaml"]),
        "{rebased:?}"
    );
}

/// CFG-078 and CFG-104 as git has it: links, directories, submodules.
#[tokio::test]
async fn cfg_104_links_are_followed_to_what_a_sparse_checkout_holds() {
    let stand = Stand::new();
    stand
        .write("jobs.yaml", &job("top"))
        .write(".prow/real/deep.yaml", &job("deep"))
        .write("ci/jobs.yaml", &job("far"))
        .link(".prow/a.yaml", "../jobs.yaml")
        .link(".prow/b.yaml", "real/../real/deep.yaml")
        .link(".prow/c.yaml", "./a.yaml")
        // Not entered, or its file would come again.
        .link(".prow/dir", "real")
        // Not read: it is no job file.
        .link(".prow/notes", "../ci/jobs.yaml");
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    // That each is read twice shows that the links were followed.
    let links = stand.commit();
    assert_eq!(
        told(&in_repo, &links, &[]).await,
        ".prow/real/deep.yaml:1:14: presubmits[0].name: duplicated presubmit jobs (consider both inrepo and central config): [deep top]"
    );
    stand.remove(".prow/a.yaml").remove(".prow/b.yaml");
    stand
        .remove(".prow/c.yaml")
        .link(".prow/z.yaml", "dir/../../jobs.yaml");
    let commit = stand.commit();
    assert_eq!(told(&in_repo, &commit, &[]).await, "deep top");
    for (to, why) in [
        (
            "../ci/jobs.yaml",
            "which is neither at the top level nor in .prow/",
        ),
        ("nowhere.yaml", "which is not there"),
        ("/etc/passwd", "which is outside of the repository"),
        ("../../x", "which is outside of the repository"),
        ("z.yaml", "which leads through too many links"),
        ("../jobs.yaml/x", "which leads through a file"),
    ] {
        stand.remove(".prow/z.yaml").link(".prow/z.yaml", to);
        let commit = stand.commit();
        assert_eq!(
            told(&in_repo, &commit, &[]).await,
            format!(".prow/z.yaml: it is a link to {to:?}, {why}")
        );
    }
    stand.remove(".prow/z.yaml").link(".prow/z.yaml", "real");
    let commit = stand.commit();
    assert_eq!(
        told(&in_repo, &commit, &[]).await,
        ".prow/z.yaml: it is a link to the directory \"real\""
    );
    // What is ignored may lead anywhere.
    stand.write(".prow/.prowignore", "z.yaml\n");
    let commit = stand.commit();
    assert_eq!(told(&in_repo, &commit, &[]).await, "deep");
}

#[tokio::test]
async fn cfg_078_directory_file_or_nothing() {
    let stand = Stand::new();
    let nothing = stand.write("README", "x").commit();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    assert_eq!(told(&in_repo, &nothing, &[]).await, "");
    let file = stand.write(".prow.yaml", &job("file")).commit();
    assert_eq!(told(&in_repo, &file, &[]).await, "file");
    stand.write(".prow/b/x.yml", &job("second"));
    stand.write(".prow/a.yaml", &job("first"));
    let dir = stand.write(".prow/README.md", "x").commit();
    assert_eq!(told(&in_repo, &dir, &[]).await, "first second");
    stand.remove(".prow").write(".prow", "x");
    let plain = stand.commit();
    assert_eq!(
        told(&in_repo, &plain, &[]).await,
        ".prow: reading \".prow\": it is a file and not a directory"
    );
    stand.remove(".prow").link(".prow", "nowhere");
    let dangling = stand.commit();
    assert_eq!(told(&in_repo, &dangling, &[]).await, "file");
    stand
        .remove(".prow.yaml")
        .write("jobs.yaml", &job("linked"))
        .link(".prow.yaml", "jobs.yaml");
    let linked = stand.commit();
    assert_eq!(told(&in_repo, &linked, &[]).await, "linked");
}

#[tokio::test]
async fn more_files_than_are_read_are_told() {
    let stand = Stand::new();
    for n in 0..=MAX_FILES {
        stand.write(&format!(".prow/{n}.yaml"), "");
    }
    let many = stand.commit();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    assert_eq!(
        told(&in_repo, &many, &[]).await,
        ".prow: org/repo: there are more than 2000 files that are read at the top level and in .prow"
    );
    stand.remove(".prow");
    let large = "#".repeat(9 << 20);
    let large = stand.write(".prow.yaml", &large).commit();
    assert_eq!(
        told(&in_repo, &large, &[]).await,
        ".prow: org/repo: what is read of .prow is larger than 8388608 bytes"
    );
}

/// CFG-075: off means that git is not asked, and that nothing takes room in the cache.
#[tokio::test]
async fn cfg_075_where_it_is_off_nothing_is_read() {
    let stand = Stand::new();
    let base = stand.write(".prow.yaml", &job("own")).commit();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    let off = config("in_repo_config: {enabled: {'*': true, org/repo: false}}\n");
    let at = Commits {
        base: &base,
        heads: &[],
    };
    assert_eq!(
        names(&in_repo.jobs(&off, REPO, at).await.unwrap()),
        Vec::<&str>::new()
    );
    in_repo.warm(&off, REPO, &base, &[&base]).await.unwrap();
    assert_eq!(stand.counted("lookups_total"), 0);
    assert!(!stand.dir.path().join("cache/org").exists());
    let everywhere = config("in_repo_config: {enabled: {'*': true}}\n");
    let own = in_repo.jobs(&everywhere, REPO, at).await.unwrap();
    assert_eq!(names(&own), ["own"]);
}

/// CFG-081, CFG-082
#[tokio::test]
async fn cfg_082_what_resolves_to_nothing_is_no_head() {
    let stand = Stand::new();
    let base = stand.write(".prow.yaml", &job("own")).commit();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    assert_eq!(told(&in_repo, &base, &["", ""]).await, "own");
    let gone = "0123456789012345678901234567890123456789";
    let missing = told(&in_repo, &base, &[gone]).await;
    assert_eq!(missing, format!("org/repo: commit {gone} not found"));
    let on = config("in_repo_config: {enabled: {'*': true}}\n");
    let at = Commits {
        base: &base,
        heads: &[],
    };
    let error = in_repo.jobs(&on, "repo", at).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "didn't get two results when splitting repo identifier \"repo\""
    );
}

/// CFG-083: what is cached is what stands in the files; the configuration in force makes jobs of it.
#[tokio::test]
async fn cfg_083_a_new_configuration_applies_to_what_is_cached() {
    let stand = Stand::new();
    let text = "presubmits: [{name: own, cluster: far, spec: {containers: [{image: a}]}}]\n";
    let base = stand.write(".prow.yaml", text).commit();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    let at = Commits {
        base: &base,
        heads: &[],
    };
    let (strict, open) = (
        config(ON),
        config("in_repo_config: {enabled: {org: true}, allowed_clusters: {org/repo: [far]}}\n"),
    );
    for _ in 0..2 {
        let refused = in_repo.jobs(&strict, REPO, at).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            ".prow.yaml:1:14: presubmits[0].cluster: cluster \"far\" is not allowed for repository \"org/repo\""
        );
        let own = in_repo.jobs(&open, REPO, at).await.unwrap();
        assert_eq!(own.jobs.presubmits[0].base.cluster, "far");
    }
    let first = in_repo.jobs(&open, REPO, at).await.unwrap();
    let second = in_repo.jobs(&open, REPO, at).await.unwrap();
    assert!(Arc::ptr_eq(&first.jobs, &second.jobs), "defaulted once");
    assert_eq!(stand.counted("lookups_total"), 6);
    assert_eq!(
        (stand.counted("misses_total"), stand.counted("hits_total")),
        (1, 5)
    );
    assert_eq!(stand.counted("cache_usage_size"), 1);
    let found = in_repo.remembered(&open, REPO, &[]).unwrap();
    assert!(Arc::ptr_eq(&found, &second.jobs));
}

/// CFG-083, CFG-084: broken files and conflicts are the same each time and are kept; what git could not do is tried again.
#[tokio::test]
async fn cfg_084_broken_files_are_kept_and_failures_are_not() {
    let stand = Stand::new();
    let base = stand
        .write(".prow.yaml", "presubmits:\n- name: [\n")
        .commit();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    let first = told(&in_repo, &base, &[]).await;
    assert!(
        first.starts_with(".prow.yaml:2:9: error unmarshalling"),
        "{first}"
    );
    assert_eq!(told(&in_repo, &base, &[]).await, first);
    assert_eq!(
        (
            stand.counted("misses_total"),
            stand.counted("evictions_manual_total"),
            stand.counted("cache_usage_size")
        ),
        (1, 0, 1)
    );
    assert!(in_repo.remembered(&config(ON), REPO, &[]).is_none());

    let ours = stand.branch("ours", &base).write("file", "ours").commit();
    let theirs = stand
        .branch("theirs", &base)
        .write("file", "theirs")
        .commit();
    let first = told(&in_repo, &ours, &[&theirs]).await;
    assert!(first.contains("conflicts in file"), "{first}");
    assert_eq!(told(&in_repo, &ours, &[&theirs]).await, first);
    assert_eq!(stand.counted("misses_total"), 2);

    let absent = "0123456789012345678901234567890123456789";
    for misses in [3, 4] {
        told(&in_repo, absent, &[]).await;
        assert_eq!(stand.counted("misses_total"), misses);
    }
    assert_eq!(stand.counted("evictions_manual_total"), 2);
    assert_eq!(stand.counted("cache_usage_size"), 2);
}

/// CFG-086: one fetch and one reading for a pool of pull requests.
#[tokio::test]
async fn cfg_086_a_pool_is_read_ahead() {
    let stand = Stand::new();
    let base = stand.write(".prow.yaml", &job("own")).commit();
    let mut heads = Vec::new();
    for n in 0..5 {
        stand.branch(&format!("pr{n}"), &base);
        heads.push(stand.write(&format!("file{n}"), "x").commit());
    }
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    let config = config(ON);
    let all: Vec<&str> = heads.iter().map(String::as_str).collect();
    in_repo.warm(&config, REPO, &base, &all).await.unwrap();
    assert_eq!(stand.counted("misses_total"), 5);
    // The server may be gone now.
    std::fs::rename(&stand.path, stand.path.with_extension("gone")).unwrap();
    for head in &all {
        let at = Commits {
            base: &base,
            heads: &[head],
        };
        let own = in_repo.jobs(&config, REPO, at).await.unwrap();
        assert_eq!(names(&own), ["own"]);
    }
    assert_eq!(
        (stand.counted("misses_total"), stand.counted("hits_total")),
        (5, 5)
    );
}

/// Not a bound, which other work on the machine would break: `--nocapture` prints what it takes.
#[tokio::test]
async fn what_a_reading_takes() {
    let stand = Stand::new();
    for n in 0..200 {
        stand.write(&format!("dir{}/file{n}", n % 20), &"line\n".repeat(50));
    }
    stand.write(".prow/jobs.yaml", &job("own")).commit();
    for n in 0..50 {
        stand.write("dir1/file1", &format!("{n}")).commit();
    }
    let base = stand.git(&["rev-parse", "HEAD"]);
    stand.branch("pr", "HEAD~20");
    let heads: Vec<String> = (0..20)
        .map(|n| {
            stand
                .write(".prow/more.yaml", &job(&format!("more{n}")))
                .commit()
        })
        .collect();
    let in_repo = stand.in_repo(CacheLimits::default()).await;
    let config = config(ON);
    let mut times = Vec::new();
    // The first one fetches.
    for head in heads.iter().rev() {
        let at = Commits {
            base: &base,
            heads: &[head],
        };
        let began = Instant::now();
        let own = in_repo.jobs(&config, REPO, at).await.unwrap();
        times.push(began.elapsed());
        assert_eq!(own.jobs.presubmits.len(), 2);
    }
    let fetched = times.remove(0);
    times.sort();
    let at = Commits {
        base: &base,
        heads: &[&heads[0]],
    };
    let began = Instant::now();
    for _ in 0..1000 {
        in_repo.jobs(&config, REPO, at).await.unwrap();
    }
    println!(
        "with a fetch {fetched:?}, cold {:?} (median of {}), cached {:?}",
        times[times.len() / 2],
        times.len(),
        began.elapsed() / 1000
    );
}
