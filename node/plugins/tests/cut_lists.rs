//! Pull requests of which GitHub tells a part alone: nothing is decided by a part (GHC-025).

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

mod stage;

use stage::{Setup, Stage};
use trireme_sandbox::world::World;

/// GHC-025: the 3,001st file is nobody's whose approval would do for those that GitHub tells.
#[tokio::test]
async fn ghc_025_nothing_is_approved_from_a_cut_list() {
    let stage = Stage::new(Setup {
        world: World::builder()
            .member("zoe")
            .file("OWNERS", "approvers: [approver]\n")
            .file(
                "zzz/OWNERS",
                "options: {no_parent_owners: true}\napprovers: [zoe]\n",
            ),
        plugins: "plugins: {acme/widget: {plugins: [approve]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("huge").many_files("aaa", 3000);
    let pr = pr.file("zzz/last.txt", "x\n").opened_by("author").await;
    stage.settled().await;
    stage.world.comment("approver", &pr, "/approve").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    let said = stage.said(&pr).pop().unwrap();
    assert!(said.contains("- ~~[OWNERS]"), "{said}");
    assert!(said.contains("- **[zzz/OWNERS]"), "{said}");
    stage.world.comment("zoe", &pr, "/approve").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["approved"]);
}
