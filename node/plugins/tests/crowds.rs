//! What becomes of pull requests that very many people have to do with: each of them is asked about.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use stage::{Setup, Stage};
use trireme_sandbox::{
    FileChange, MergeSpec, NewCommit, PullRequestSpec,
    faults::{HookEffect, HookMatch},
    forge::Permission,
    world::{Pr, World, WorldBuilder},
};

/// More than a decision may ask facts for that does not say how many.
const CROWD: usize = 70;

fn login(n: usize) -> String {
    format!("u{n:03}")
}

/// A world with so many who are no members.
fn crowd(many: usize) -> WorldBuilder {
    (0..many).fold(World::builder(), |world, n| world.outsider(&login(n)))
}

/// PLG-VERIFYOWNERS-006, PLG-VERIFYOWNERS-007: of so many strangers some are checked, and none gets in by being one of
/// too many.
#[tokio::test]
async fn plg_verifyowners_006_a_crowd_of_strangers_is_told_and_kept_out() {
    let stage = Stage::new(Setup {
        world: World::builder().file("OWNERS", "approvers: [approver]\n"),
        plugins: "plugins: {acme/widget: {plugins: [verify-owners]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let strangers: Vec<String> = (0..CROWD).map(login).collect();
    let owners = format!("approvers: [approver, {}]\n", strangers.join(", "));
    let pr = stage.world.pr("fix").file("OWNERS", owners);
    let pr = pr.opened_by("author").await;
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    assert_eq!(
        stage.world.labels(&pr),
        ["do-not-merge/invalid-owners-file"]
    );
    let told = stage.said(&pr).remove(0);
    let listed: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .collect();
    assert_eq!(listed, strangers[..50]);
}

/// PLG-DCO-001: whoever the commits are of, they are excused.
#[tokio::test]
async fn plg_dco_001_commits_of_a_crowd_are_looked_at() {
    let stage = Stage::new(Setup {
        world: crowd(CROWD),
        plugins: "plugins: {acme/widget: {plugins: [dco]}}\n\
                  dco: {acme/widget: {skip_dco_check_for_collaborators: true}}"
            .to_owned(),
        ..Setup::default()
    })
    .await;
    let repo = stage.world.repo();
    for n in 0..CROWD {
        stage.world.grant(&login(n), Permission::Write);
        let commit = NewCommit {
            branch: "fix".to_owned(),
            message: "Mend it".to_owned(),
            files: vec![FileChange::write(format!("{n}.txt"), "x")],
            parent: None,
        };
        let user = stage.world.user(&login(n));
        user.push_files(repo, commit).await.unwrap();
    }
    let spec = PullRequestSpec {
        title: "Mend it".to_owned(),
        body: None,
        head: "fix".to_owned(),
        base: "main".to_owned(),
        draft: false,
        maintainer_can_modify: true,
    };
    let number = stage.world.user(&login(0)).open_pull(repo, spec).await;
    let pr = stage.world.pr_number(number.unwrap());
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    assert_eq!(stage.world.labels(&pr), ["dco-signoff: yes"]);
}

async fn merge(stage: &Stage, pr: &Pr) {
    let approver = stage.world.user("approver");
    let merged = approver.merge(&pr.repo, pr.number, MergeSpec::default());
    merged.await.unwrap();
}

/// PLG-CHERRYPICK-005: what one of many asks for while the pull request is open is done.
#[tokio::test]
async fn plg_cherrypick_005_of_a_crowd_that_asks_the_member_gets_it() {
    let stage = Stage::new(Setup {
        world: crowd(CROWD).file("a.txt", "one\n"),
        plugins: "external_plugins: {acme: [{name: cherrypicker}]}".to_owned(),
        ..Setup::default()
    })
    .await;
    stage.world.grant("approver", Permission::Write);
    let release = vec![FileChange::write("RELEASE", "1\n")];
    stage.world.push("approver", "release-1", release).await;
    let pr = stage.world.pr("fix").file("a.txt", "two\n");
    let pr = pr.opened_by("author").await;
    stage.settled().await;
    // What is answered to each of them is told elsewhere.
    let faults = stage.world.sandbox().faults();
    let lost = faults
        .on_hook(HookMatch::event("issue_comment"), HookEffect::Lost, None)
        .unwrap();
    for n in 0..CROWD {
        let asked = "/cherrypick release-1";
        stage.world.comment(&login(n), &pr, asked).await;
    }
    stage
        .world
        .comment("reviewer", &pr, "/cherrypick release-1")
        .await;
    stage.world.expect_delivered().await;
    faults.clear(lost);
    merge(&stage, &pr).await;
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    let said = stage.said(&pr).into_iter();
    let told: Vec<String> = said
        .map(|text| text.split("\n\n<details>").next().unwrap().to_owned())
        .collect();
    assert_eq!(told, ["@reviewer: new pull request created: #2"]);
}
