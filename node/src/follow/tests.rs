//! A directory that is updated as a kubelet does, and as people do.

use std::{fs, io::Write as _, path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::time::timeout;
use trireme_config::{Config, FileSet, Layout, LoadOptions};

use super::{
    Found,
    directory::{Directory, Timing, Trouble},
    kubelet::{Step, Volume},
    memory::{Judged, Seen, TakenBefore},
};

/// The longest that a change is waited for.
const BOUND: Duration = Duration::from_secs(20);
/// Nothing comes in so long a time, ten times as long as a change takes.
const NOTHING: Duration = Duration::from_millis(600);

/// The default waits, made short. Only what is told is seen: nothing is looked at by itself.
fn quick() -> Timing {
    Timing {
        quiet: Duration::from_millis(30),
        quiet_at_most: Duration::from_millis(300),
        look: Duration::from_secs(3600),
        look_blind: Duration::from_secs(3600),
        half: Duration::from_millis(10),
        half_at_most: Duration::from_millis(300),
        retry: Duration::from_millis(200),
        reread: Duration::from_secs(3600),
    }
}

const CONFIG: &[u8] = b"prowjob_namespace: default\n";

fn periodic(name: &str) -> Vec<u8> {
    format!(
        "periodics:\n- name: {name}\n  interval: 24h\n  spec: {{containers: [{{image: i, command: [date]}}]}}\n"
    )
    .into_bytes()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

struct Mounts {
    directory: TempDir,
}

impl Mounts {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn layout(&self) -> Layout {
        Layout {
            config: self.at("config/config.yaml").display().to_string(),
            jobs: Some(self.at("jobs").display().to_string()),
            supplemental_dirs: vec![self.at("shards").display().to_string()],
            ..Layout::default()
        }
    }

    fn follow(&self, timing: Timing) -> Directory {
        fs::create_dir_all(self.at("shards")).unwrap();
        Directory::new(self.layout(), timing)
    }

    /// Paths below the mounts.
    fn names(&self, files: &FileSet) -> Vec<String> {
        let root = format!("{}/", self.directory.path().display());
        files
            .iter()
            .map(|(path, _)| path.strip_prefix(&root).unwrap().to_owned())
            .collect()
    }
}

async fn next(directory: &mut Directory) -> FileSet {
    timeout(BOUND, directory.next(false))
        .await
        .expect("a change is seen in time")
        .unwrap()
}

async fn nothing(directory: &mut Directory, why: &str) {
    if let Ok(found) = timeout(NOTHING, directory.next(false)).await {
        panic!("{why}: {found:?}");
    }
}

/// Names of the periodics, as the loader finds them.
fn periodics(files: &FileSet) -> Vec<String> {
    let (config, _) = Config::load(files, LoadOptions::default())
        .accepted()
        .unwrap();
    config
        .jobs
        .periodics
        .iter()
        .map(|job| job.base.name.clone())
        .collect()
}

fn version_sha(files: &FileSet) -> String {
    let (config, _) = Config::load(files, LoadOptions::default())
        .accepted()
        .unwrap();
    config.prow.config_version_sha.clone()
}

/// CFG-004, CFG-008, CFG-013, CFG-092: gzip, a tree split over volumes mounted side by side, and `VERSION`.
#[tokio::test]
async fn cfg_092_volumes_are_followed_through_their_swaps() {
    let mounts = Mounts::new();
    let mut config = Volume::mount(
        mounts.at("config"),
        &[("config.yaml", CONFIG), ("VERSION", b"one\n")],
    );
    let mut parts = [("part-0", "a"), ("part-1", "b")].map(|(part, name)| {
        let file = format!("{name}.yaml");
        let content = gzipped(&periodic(name));
        Volume::mount(mounts.at("jobs").join(part), &[(&file, &content)])
    });
    let mut directory = mounts.follow(quick());
    let files = next(&mut directory).await;
    assert_eq!(
        mounts.names(&files),
        [
            "config/VERSION",
            "config/config.yaml",
            "jobs/part-0/a.yaml",
            "jobs/part-1/b.yaml"
        ]
    );
    assert_eq!(periodics(&files), ["a", "b"]);
    assert_eq!(version_sha(&files), "one\n");
    nothing(&mut directory, "nothing changed").await;

    // A job moves from one part to the other, and another comes.
    parts[1].update(&[
        ("b.yaml", &periodic("b")),
        ("c.yaml", &gzipped(&periodic("c"))),
    ]);
    assert_eq!(periodics(&next(&mut directory).await), ["a", "b", "c"]);
    parts[0].update(&[("README", b"no jobs here any more")]);
    let files = next(&mut directory).await;
    assert_eq!(periodics(&files), ["b", "c"]);

    config.update(&[("config.yaml", CONFIG), ("VERSION", b"two")]);
    assert_eq!(version_sha(&next(&mut directory).await), "two");

    // A part more.
    let content = periodic("d");
    Volume::mount(mounts.at("jobs/part-2"), &[("d.yaml", &content)]);
    assert_eq!(periodics(&next(&mut directory).await), ["b", "c", "d"]);
}

/// CFG-092: wherever the writer is ended, what is handed out is the state before or the state after.
#[tokio::test]
async fn cfg_092_an_update_that_stops_between_its_steps_is_never_taken_by_half() {
    for step in [
        Step::Written,
        Step::LinkMade,
        Step::Swapped,
        Step::NewLinked,
        Step::OldUnlinked,
    ] {
        let mounts = Mounts::new();
        Volume::mount(mounts.at("config"), &[("config.yaml", CONFIG)]);
        let (one, two, three) = (periodic("one"), periodic("two"), periodic("three"));
        let mut jobs = Volume::mount(mounts.at("jobs"), &[("a.yaml", &one), ("b.yaml", &two)]);
        let mut directory = mounts.follow(quick());
        assert_eq!(periodics(&next(&mut directory).await), ["one", "two"]);

        // `two` moves from b.yaml, which goes, to c.yaml, which comes.
        let after: [(&str, &[u8]); 2] = [("a.yaml", &three), ("c.yaml", &two)];
        jobs.update_until(step, &after);
        match step {
            Step::Written | Step::LinkMade => {
                nothing(
                    &mut directory,
                    "the former state is still the one that shows",
                )
                .await;
                jobs.update(&after);
            }
            Step::Swapped | Step::NewLinked => {
                let trouble = timeout(BOUND, directory.next(false)).await.unwrap();
                let Err(Trouble::Half(places)) = trouble else {
                    panic!("{step:?}: {trouble:?}");
                };
                let place = match step {
                    Step::Swapped => "c.yaml is not linked yet",
                    _ => "b.yaml is linked but gone",
                };
                assert!(places[0].ends_with(place), "{step:?}: {places:?}");
                // Told again for as long as it lasts.
                let again = timeout(BOUND, directory.next(true)).await.unwrap();
                assert!(matches!(again, Err(Trouble::Half(_))), "{again:?}");
                jobs.complete();
            }
            _ => {}
        }
        let files = next(&mut directory).await;
        assert_eq!(periodics(&files), ["three", "two"], "{step:?}");
        assert_eq!(
            mounts.names(&files)[1..],
            ["jobs/a.yaml", "jobs/c.yaml"],
            "{step:?}"
        );
    }
}

/// CFG-092: files that are changed in place, deep in the tree and in supplemental directories.
#[tokio::test]
async fn cfg_092_nested_and_supplemental_files_are_followed() {
    let mounts = Mounts::new();
    for dir in ["config", "jobs/deep/er", "shards/acme"] {
        fs::create_dir_all(mounts.at(dir)).unwrap();
    }
    fs::write(mounts.at("config/config.yaml"), CONFIG).unwrap();
    fs::write(mounts.at("jobs/deep/er/a.yaml"), periodic("a")).unwrap();
    let mut directory = mounts.follow(quick());
    assert_eq!(periodics(&next(&mut directory).await), ["a"]);

    fs::write(mounts.at("jobs/deep/er/a.yaml"), periodic("changed")).unwrap();
    assert_eq!(periodics(&next(&mut directory).await), ["changed"]);

    fs::write(mounts.at("jobs/deep/er/notes.txt"), "nobody reads this").unwrap();
    nothing(&mut directory, "no file of the configuration changed").await;

    let shard = mounts.at("shards/acme/_prowconfig.yaml");
    fs::write(&shard, "tide: {queries: [{repos: [acme/widget]}]}\n").unwrap();
    let files = next(&mut directory).await;
    assert!(files.get(&shard.display().to_string()).is_some());

    // A directory that is made anew under its old name.
    fs::remove_dir_all(mounts.at("jobs/deep")).unwrap();
    assert!(periodics(&next(&mut directory).await).is_empty());
    fs::create_dir_all(mounts.at("jobs/deep/er")).unwrap();
    fs::write(mounts.at("jobs/deep/er/b.yaml"), periodic("b")).unwrap();
    assert_eq!(periodics(&next(&mut directory).await), ["b"]);
    fs::write(mounts.at("jobs/deep/er/b.yaml"), periodic("c")).unwrap();
    assert_eq!(periodics(&next(&mut directory).await), ["c"]);
}

/// A link above the paths that is swapped, as `git-sync` does.
#[tokio::test]
async fn a_link_above_the_paths_may_be_swapped() {
    let mounts = Mounts::new();
    for (version, name) in [("1", "a"), ("2", "b")] {
        for dir in ["config", "jobs"] {
            fs::create_dir_all(mounts.at(&format!(".trees/{version}/{dir}"))).unwrap();
        }
        let tree = mounts.at(&format!(".trees/{version}"));
        fs::write(tree.join("config/config.yaml"), CONFIG).unwrap();
        fs::write(tree.join("jobs/jobs.yaml"), periodic(name)).unwrap();
    }
    let swap = |version: &str| {
        std::os::unix::fs::symlink(format!(".trees/{version}"), mounts.at("next")).unwrap();
        fs::rename(mounts.at("next"), mounts.at("repo")).unwrap();
    };
    swap("1");
    let layout = Layout {
        config: mounts.at("repo/config/config.yaml").display().to_string(),
        jobs: Some(mounts.at("repo/jobs").display().to_string()),
        ..Layout::default()
    };
    let mut directory = Directory::new(layout, quick());
    assert_eq!(periodics(&next(&mut directory).await), ["a"]);
    swap("2");
    assert_eq!(periodics(&next(&mut directory).await), ["b"]);
}

/// CFG-092: where the system tells nothing, looking finds it.
#[tokio::test]
async fn cfg_092_what_nobody_tells_is_found_by_looking() {
    let mounts = Mounts::new();
    let mut config = Volume::mount(mounts.at("config"), &[("config.yaml", CONFIG)]);
    Volume::mount(mounts.at("jobs"), &[("a.yaml", &periodic("a"))]);
    let look = Duration::from_millis(100);
    let timing = Timing {
        look,
        look_blind: look,
        ..quick()
    };
    let mut directory = mounts.follow(timing).deaf();
    assert_eq!(periodics(&next(&mut directory).await), ["a"]);
    config.update(&[("config.yaml", CONFIG), ("VERSION", b"x")]);
    assert_eq!(version_sha(&next(&mut directory).await), "x");
}

/// CFG-090, CFG-091, CFG-092: what failed is handed out again although nothing changed, what did not after a while.
#[tokio::test]
async fn cfg_092_what_failed_is_tried_again_without_a_change() {
    let mounts = Mounts::new();
    Volume::mount(mounts.at("config"), &[("config.yaml", CONFIG)]);
    Volume::mount(mounts.at("jobs"), &[("a.yaml", &periodic("a"))]);
    let mut directory = mounts.follow(quick());
    let first = next(&mut directory).await;
    let again = timeout(BOUND, directory.next(true)).await.unwrap().unwrap();
    assert_eq!(first, again);
    nothing(&mut directory, "nothing failed, nothing changed").await;

    let timing = Timing {
        reread: Duration::from_millis(200),
        ..quick()
    };
    let mut directory = mounts.follow(timing);
    let first = next(&mut directory).await;
    assert_eq!(next(&mut directory).await, first);
}

/// CFG-092: an office that begins in the middle of a copy waits for its end.
#[tokio::test]
async fn cfg_092_the_first_look_stands_still_too() {
    let mounts = Mounts::new();
    for dir in ["config", "jobs"] {
        fs::create_dir_all(mounts.at(dir)).unwrap();
    }
    fs::write(mounts.at("config/config.yaml"), CONFIG).unwrap();
    fs::write(mounts.at("jobs/0.yaml"), periodic("job-0")).unwrap();
    let timing = Timing {
        quiet: Duration::from_millis(500),
        quiet_at_most: BOUND,
        ..quick()
    };
    let mut directory = mounts.follow(timing);
    let copy = async {
        for number in 1..10 {
            // The pace of a slow writer.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let file = mounts.at(&format!("jobs/{number}.yaml"));
            fs::write(file, periodic(&format!("job-{number}"))).unwrap();
        }
    };
    let (files, ()) = tokio::join!(next(&mut directory), copy);
    assert_eq!(periodics(&files).len(), 10);
}

/// Two nodes with mounts at paths of their own: one whose mount lags behind takes nothing back.
#[tokio::test]
async fn a_node_whose_files_are_older_takes_nothing_back() {
    let (ahead, behind) = (Mounts::new(), Mounts::new());
    let mut cursor = String::new();
    let volumes = |mounts: &Mounts| {
        Volume::mount(mounts.at("config"), &[("config.yaml", CONFIG)]);
        Volume::mount(mounts.at("jobs"), &[("a.yaml", &periodic("one"))])
    };
    let (mut jobs_ahead, mut jobs_behind) = (volumes(&ahead), volumes(&behind));
    let (mut one, mut other) = (ahead.follow(quick()), behind.follow(quick()));

    let mut seen = Seen::default();
    let first = Found::new(&next(&mut one).await).digest;
    assert_eq!(
        seen.judge(&first, &TakenBefore::parse(&cursor)),
        Judged::New
    );
    cursor = TakenBefore::parse(&cursor).with(&first);
    jobs_ahead.update(&[("a.yaml", &periodic("two"))]);
    let second = Found::new(&next(&mut one).await).digest;
    assert_eq!(
        seen.judge(&second, &TakenBefore::parse(&cursor)),
        Judged::New
    );
    cursor = TakenBefore::parse(&cursor).with(&second);
    let taken = TakenBefore::parse(&cursor);

    let mut seen = Seen::default();
    let found = Found::new(&next(&mut other).await).digest;
    assert_eq!(found, first, "wherever it is mounted");
    for _ in 0..2 {
        assert_eq!(seen.judge(&found, &taken), Judged::Older);
    }
    jobs_behind.update(&[("a.yaml", &periodic("two"))]);
    let found = Found::new(&next(&mut other).await).digest;
    assert_eq!(seen.judge(&found, &taken), Judged::Newest);
    // What comes back where somebody looks is meant.
    jobs_behind.update(&[("a.yaml", &periodic("one"))]);
    let found = Found::new(&next(&mut other).await).digest;
    assert_eq!(seen.judge(&found, &taken), Judged::New);
}

/// A file that is gone is told with its name, and what comes back is taken.
#[tokio::test]
async fn what_is_missing_is_told_until_it_is_there() {
    let mounts = Mounts::new();
    fs::create_dir_all(mounts.at("config")).unwrap();
    fs::create_dir_all(mounts.at("jobs")).unwrap();
    let mut directory = mounts.follow(quick());
    let trouble = timeout(BOUND, directory.next(false)).await.unwrap();
    let told = trouble.unwrap_err().to_string();
    assert!(told.contains("config/config.yaml"), "{told}");
    fs::write(mounts.at("config/config.yaml"), CONFIG).unwrap();
    assert!(periodics(&next(&mut directory).await).is_empty());
}

/// The waits that are promised.
#[test]
fn cfg_092_the_default_waits_keep_what_is_promised() {
    let timing = Timing::default();
    let minute = Duration::from_secs(60);
    assert!(timing.retry.mul_f64(1.25) + timing.look <= minute);
    assert!(timing.half_at_most + timing.retry < minute);
    assert_eq!(timing.quiet, Duration::from_secs(1));
    assert!(timing.quiet_at_most <= Duration::from_secs(5));
    assert_eq!(timing.reread, Duration::from_secs(600));
}
