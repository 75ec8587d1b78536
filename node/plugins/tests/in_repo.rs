//! Jobs that stand in the repository itself, told as people meet them: over the sandbox forge with real git, its
//! webhooks and a real store.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use prometheus_client::registry::Registry;
use stage::{Setup, Stage, describe};
use trireme_sandbox::{
    FileChange, MergeSpec,
    faults::{CallEffect, CallMatch},
    forge::{Permission, StatusState},
    world::{BOT, Pr, World},
};

const CONFIG: &str = r"
in_repo_config: {enabled: {acme: true}}
presubmits:
  acme/widget:
  - name: unit
    always_run: true
    spec: {containers: [{image: alpine}]}
";

const TRIGGER: &str = "plugins: {acme/widget: {plugins: [trigger]}}";

const OWN: &str = "\
presubmits:
- name: own
  always_run: true
  spec: {containers: [{image: alpine}]}
postsubmits:
- name: publish
  branches: [main]
  spec: {containers: [{image: alpine}]}
";

/// What is wrong stands in the third line.
const BROKEN: &str = "\
presubmits:
- name: own
  always_run: maybe
  spec: {containers: [{image: alpine}]}
";

fn setup(world: trireme_sandbox::world::WorldBuilder) -> Setup {
    Setup {
        world,
        config: CONFIG,
        plugins: TRIGGER.to_owned(),
        ..Setup::default()
    }
}

async fn stage() -> Stage {
    Stage::new(setup(World::builder())).await
}

async fn opened(stage: &Stage, files: &[(&str, &str)]) -> Pr {
    let mut pr = stage.world.pr("fix");
    for (path, content) in files {
        pr = pr.file(path, *content);
    }
    let pr = pr.opened_by("author").await;
    stage.settled().await;
    pr
}

async fn pushed(stage: &Stage, pr: &Pr, path: &str, content: &str) {
    let change = FileChange::write(path, content);
    stage.world.push_fix(pr, vec![change]).await;
    stage.settled().await;
}

async fn says(stage: &Stage, pr: &Pr, body: &str) {
    stage.world.comment("author", pr, body).await;
    stage.settled().await;
}

/// What the head shows about the repository's own jobs.
fn shown(stage: &Stage, pr: &Pr) -> String {
    match stage.world.statuses(pr).get("in-repo-config") {
        Some((state, description)) => format!("{state:?}: {description}"),
        None => "nothing".to_owned(),
    }
}

fn counted(stage: &Stage, name: &str) -> u64 {
    let mut registry = Registry::default();
    stage.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let start = format!("inRepoConfigCache_{name}_total{{org=\"acme\",repo=\"widget\"}} ");
    let found = text.lines().find_map(|line| line.strip_prefix(&start));
    found.map_or(0, |count| count.parse().unwrap())
}

/// CFG-077, CFG-081, CFG-087, PLG-TRIGGER-005: what a pull request adds runs on it at once, and answers to commands.
#[tokio::test]
async fn cfg_081_a_pull_request_that_adds_a_job_runs_it() {
    let stage = stage().await;
    let pr = opened(&stage, &[(".prow.yaml", OWN)]).await;
    assert_eq!(stage.jobs(&pr), ["unit triggered", "own triggered"]);
    assert_eq!(
        shown(&stage, &pr),
        "Success: In order: 1 presubmit, 1 postsubmit."
    );
    says(&stage, &pr, "/test own").await;
    assert_eq!(
        stage.jobs(&pr),
        ["unit triggered", "own aborted, complete", "own triggered"]
    );
    says(&stage, &pr, "/test ?").await;
    let said = stage.said(&pr);
    assert!(
        said[0].contains("/test own") && said[0].contains("/test unit"),
        "{said:?}"
    );
    // Another pull request does not know it.
    let other = stage.world.pr("other").opened_by("author").await;
    stage.settled().await;
    assert_eq!(stage.jobs(&other), ["unit triggered"]);
    assert_eq!(shown(&stage, &other), "nothing");
}

/// CFG-083, CFG-084, PLG-TRIGGER-006: events about the same commits read them once, and talk reads nothing.
#[tokio::test]
async fn cfg_083_one_reading_serves_all_events_about_the_same_commits() {
    let stage = stage().await;
    let pr = opened(&stage, &[(".prow.yaml", OWN)]).await;
    // The push of the branch itself was an event, too: its postsubmits are looked up at the head alone.
    let (lookups, misses) = (counted(&stage, "lookups"), counted(&stage, "misses"));
    says(&stage, &pr, "/test own").await;
    says(&stage, &pr, "/retest").await;
    assert_eq!(counted(&stage, "misses"), misses);
    assert_eq!(counted(&stage, "lookups"), lookups + 2);
    assert_eq!(counted(&stage, "hits"), lookups + 2 - misses);
    says(&stage, &pr, "Nice work, thank you!").await;
    assert_eq!(counted(&stage, "lookups"), lookups + 2);
}

/// CFG-088: the configuration's jobs run, the author sees file and line, and what is put right is seen to be right.
#[tokio::test]
async fn cfg_088_broken_files_are_told_and_central_jobs_run() {
    let stage = stage().await;
    let pr = opened(&stage, &[(".prow.yaml", BROKEN)]).await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
    insta::assert_snapshot!(shown(&stage, &pr), @"Failure: .prow.yaml:3:15: presubmits[0].always_run: cannot use a string as a boolean");
    let said = stage.world.comments(&pr);
    assert_eq!(said.len(), 1);
    insta::assert_snapshot!(said[0].body, @r"
    The jobs in this repository's own configuration are **not run** on this pull request, because they could not be used once it is merged into `main`:

    ```
    .prow.yaml:3:15: presubmits[0].always_run: cannot use a string as a boolean
    ```

    All other jobs run as always. This comment goes away with the push that puts the files right.

    <!-- trireme: in-repo-config -->
    ");
    let head = stage.world.head(&pr);
    let link = stage.world.sandbox().read(|forge| {
        let statuses = forge.current_statuses(stage.world.repo(), &head);
        statuses[0].target_url.clone().unwrap_or_default()
    });
    assert_eq!(
        link,
        format!(
            "{}/acme/widget/blob/{head}/.prow.yaml#L3",
            stage.world.sandbox().url()
        )
    );
    // Commands repeat nothing.
    says(&stage, &pr, "/test unit").await;
    assert_eq!(stage.world.comments(&pr).len(), 2);

    // Broken in another way: the same comment says so.
    pushed(&stage, &pr, ".prow.yaml", "presubmits: {}\n").await;
    let edited = stage.world.comments(&pr);
    assert_eq!((edited.len(), edited[0].id), (2, said[0].id));
    assert!(
        edited[0]
            .body
            .contains(".prow.yaml:1:13: presubmits: cannot use a mapping as a list"),
        "{}",
        edited[0].body
    );
    assert!(shown(&stage, &pr).starts_with("Failure: .prow.yaml:1:13"));

    pushed(&stage, &pr, ".prow.yaml", OWN).await;
    assert_eq!(stage.said(&pr), Vec::<String>::new());
    assert_eq!(
        shown(&stage, &pr),
        "Success: In order: 1 presubmit, 1 postsubmit."
    );
    let jobs = stage.jobs(&pr);
    assert_eq!(jobs[jobs.len() - 2..], ["unit triggered", "own triggered"]);
    assert_eq!(stage.dead().len(), 0);
}

/// CFG-076
#[tokio::test]
async fn cfg_076_a_cluster_that_is_not_allowed_is_refused_where_the_author_sees_it() {
    let stage = stage().await;
    let own = "presubmits: [{name: own, cluster: trusted, always_run: true, spec: {containers: [{image: alpine}]}}]\n";
    let pr = opened(&stage, &[(".prow/jobs.yaml", own)]).await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
    insta::assert_snapshot!(shown(&stage, &pr), @r#"Failure: .prow/jobs.yaml:1:14: presubmits[0].cluster: cluster "trusted" is not allowed for repository "acme/widget""#);
}

/// CFG-080, CFG-081, PLG-TRIGGER-040: what is merged runs for the pushed commit.
#[tokio::test]
async fn plg_trigger_040_an_own_postsubmit_runs_after_the_merge() {
    let stage = stage().await;
    let pr = opened(&stage, &[(".prow.yaml", OWN)]).await;
    let bot = stage.world.user(BOT);
    let merged = bot.merge(stage.world.repo(), pr.number, MergeSpec::default());
    let sha = merged.await.unwrap();
    stage.settled().await;
    let view = stage.store().view();
    let live: Vec<_> = view.live_jobs().collect();
    let told: Vec<String> = live.iter().map(|job| describe(job)).collect();
    assert_eq!(told, ["publish triggered"]);
    assert_eq!(live[0].base_sha, sha);
}

/// CFG-088: whose change broke nothing is not lectured, and sees that something is wrong.
#[tokio::test]
async fn cfg_088_a_broken_base_is_a_status_and_no_comment() {
    let stage = Stage::new(setup(World::builder().file(".prow.yaml", BROKEN))).await;
    let pr = opened(&stage, &[("main.go", "x")]).await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
    insta::assert_snapshot!(shown(&stage, &pr), @"Failure: Not by this change: .prow.yaml:3:15: presubmits[0].always_run: cannot use a string as a boolean");
    assert_eq!(stage.said(&pr), Vec::<String>::new());

    // The push that mends it is told nothing; what has been told wrong is put right when it is looked at again.
    stage.world.grant("approver", Permission::Write);
    let mended = FileChange::write(".prow.yaml", OWN);
    stage.world.push("approver", "main", vec![mended]).await;
    stage.settled().await;
    says(&stage, &pr, "/test all").await;
    assert_eq!(
        shown(&stage, &pr),
        "Success: In order: 1 presubmit, 1 postsubmit."
    );
    let jobs = stage.jobs(&pr);
    assert_eq!(jobs[jobs.len() - 2..], ["unit triggered", "own triggered"]);
}

/// CFG-088: a push that breaks the files itself shows it.
#[tokio::test]
async fn cfg_088_a_pushed_commit_with_broken_files_shows_it() {
    let stage = stage().await;
    stage.world.grant("approver", Permission::Write);
    let broken = FileChange::write(".prow.yaml", BROKEN);
    let sha = stage.world.push("approver", "main", vec![broken]).await;
    stage.settled().await;
    let statuses = stage.world.sandbox().read(|forge| {
        let statuses = forge.current_statuses(stage.world.repo(), &sha);
        statuses
            .into_iter()
            .map(|status| (status.context.clone(), status.state))
            .collect::<Vec<_>>()
    });
    assert_eq!(
        statuses,
        [("in-repo-config".to_owned(), StatusState::Failure)]
    );
}

/// CFG-077, CFG-088
#[tokio::test]
async fn cfg_088_a_conflict_is_told_as_one() {
    let stage = stage().await;
    stage.world.grant("approver", Permission::Write);
    let builder = stage.world.pr("fix").file("README.md", "mine");
    let pr = builder.file(".prow.yaml", OWN).draft().opened_by("author");
    let pr = pr.await;
    stage.settled().await;
    let theirs = FileChange::write("README.md", "theirs");
    stage.world.push("approver", "main", vec![theirs]).await;
    stage.settled().await;
    stage.world.set_draft("author", &pr, false).await;
    stage.settled().await;
    assert_eq!(
        shown(&stage, &pr),
        "Failure: Conflicts with main in README.md"
    );
    assert!(stage.said(&pr).iter().all(|said| !said.contains("not run")));
}

/// CFG-088: an outage says nothing about the files.
#[tokio::test]
async fn cfg_088_an_outage_of_git_delays_and_accuses_nobody() {
    let stage = stage().await;
    let down = CallMatch {
        path: Some("/acme/widget*/info/refs".to_owned()),
        ..CallMatch::default()
    };
    let faults = stage.world.sandbox().faults();
    let broken = CallEffect::Status { code: 502 };
    faults.on_call(down, broken, Some(4)).unwrap();
    let pr = opened(&stage, &[(".prow.yaml", OWN)]).await;
    assert_eq!(stage.jobs(&pr), ["unit triggered", "own triggered"]);
    assert_eq!(
        shown(&stage, &pr),
        "Success: In order: 1 presubmit, 1 postsubmit."
    );
    assert_eq!(stage.said(&pr), Vec::<String>::new());
}

/// PLG-TRIGGER-034, PLG-TRIGGER-035: runs of own jobs end as others do, even if the configuration knows none.
#[tokio::test]
async fn own_runs_end_with_the_pull_request() {
    let stage = Stage::new(Setup {
        config: "in_repo_config: {enabled: {acme/widget: true}}",
        ..setup(World::builder())
    })
    .await;
    let pr = opened(&stage, &[(".prow.yaml", OWN)]).await;
    assert_eq!(stage.jobs(&pr), ["own triggered"]);
    let renamed = OWN.replace("own", "renamed");
    pushed(&stage, &pr, ".prow.yaml", &renamed).await;
    assert_eq!(
        stage.jobs(&pr),
        ["own aborted, complete", "renamed triggered"]
    );
    stage.world.close("author", &pr).await;
    stage.settled().await;
    assert_eq!(
        stage.jobs(&pr),
        ["own aborted, complete", "renamed aborted, complete"]
    );
}

/// A plan that is stored is not made again: what is pushed before its last write is sent does not change it.
#[tokio::test]
async fn a_stored_plan_does_not_look_at_later_pushes() {
    let stage = stage().await;
    let statuses = CallMatch {
        method: Some("POST".to_owned()),
        path: Some("/repos/acme/widget/statuses/*".to_owned()),
        actor: None,
    };
    let faults = stage.world.sandbox().faults();
    let held = CallEffect::AnswerHeld {
        barrier: "status".to_owned(),
    };
    faults.on_call(statuses, held, Some(1)).unwrap();
    let barrier = faults.barrier("status");
    let pr = stage.world.pr("fix").file(".prow.yaml", OWN);
    let pr = pr.opened_by("author").await;
    barrier.arrived(1).await;
    let change = FileChange::delete(".prow.yaml");
    stage.world.push_fix(&pr, vec![change]).await;
    barrier.release();
    stage.settled().await;
    assert_eq!(
        stage.jobs(&pr),
        [
            "unit aborted, complete",
            "own aborted, complete",
            "unit triggered"
        ]
    );
}

/// CFG-075
#[tokio::test]
async fn cfg_075_where_it_is_off_the_file_is_none_of_our_business() {
    let stage = Stage::new(Setup {
        config: "in_repo_config: {enabled: {acme: true, acme/widget: false}}\npresubmits: {acme/widget: [{name: unit, always_run: true, spec: {containers: [{image: alpine}]}}]}",
        ..setup(World::builder())
    })
    .await;
    let pr = opened(&stage, &[(".prow.yaml", BROKEN)]).await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
    assert_eq!(shown(&stage, &pr), "nothing");
    assert_eq!(counted(&stage, "lookups"), 0);
}
