//! Teams and people.

use trireme_forge::ForgeError;
use trireme_sandbox::world::{BOT, ORG};

use crate::scene::Scene;

/// PLG-MILESTONE-001, PLG-LGTM-009, PLG-LABEL-005
#[tokio::test]
async fn teams_are_known_by_name_slug_and_number() {
    let scene = Scene::new().await;
    let forge = &scene.forge;
    let id = scene
        .world
        .team("SIG Chairs/TLs", &["approver", "reviewer"]);
    let teams = forge.teams(ORG).await.unwrap();
    assert_eq!(
        teams
            .iter()
            .map(|team| (team.id, team.name.as_str(), team.slug.as_str()))
            .collect::<Vec<_>>(),
        [(id, "SIG Chairs/TLs", "sig-chairs-tls")]
    );
    let slug = "sig-chairs-tls";
    assert_eq!(forge.team(ORG, slug).await.unwrap(), teams[0]);
    let missing = forge.team(ORG, "no-such-team").await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let by_slug = forge.team_members(ORG, "sig-chairs-tls").await.unwrap();
    assert_eq!(by_slug, ["approver", "reviewer"]);
    assert_eq!(forge.team_members_by_id(ORG, id).await.unwrap(), by_slug);
    let is_member =
        async |slug: &str, login: &str| forge.is_team_member(ORG, slug, login).await.unwrap();
    assert!(is_member("sig-chairs-tls", "Approver").await);
    assert!(!is_member("sig-chairs-tls", "author").await);
    assert!(!is_member("no-such-team", "author").await);
    assert!(
        forge
            .team_members_by_id(ORG, 999_999)
            .await
            .unwrap_err()
            .is_not_found()
    );
    scene.done();
}

/// What a file calls a person may be no name at all: a URL with it would lead to the list of all.
#[tokio::test]
async fn dots_are_nobodys_name() {
    let scene = Scene::new().await;
    let forge = &scene.forge;
    let repo = scene.repo.clone();
    for dots in [".", ".."] {
        assert!(!forge.is_org_member(ORG, dots).await.unwrap(), "{dots}");
        assert!(!forge.is_collaborator(&repo, dots).await.unwrap(), "{dots}");
    }
    assert!(forge.is_org_member(ORG, "reviewer").await.unwrap());
    scene.done();
}

/// PLG-BLUNDERBUSS-006, GHC-033
#[tokio::test]
async fn somebody_busy_says_so() {
    let scene = Scene::new().await;
    let forge = &scene.forge;
    let busy = async |login: &str| forge.has_limited_availability(ORG, login).await;
    assert!(!busy("reviewer").await.unwrap());
    scene.world.busy("reviewer", true);
    assert!(busy("reviewer").await.unwrap());
    let error = busy("nobody-at-all").await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let account = forge.account(ORG, "reviewer").await.unwrap();
    assert!(account.user.is("reviewer") && account.name.is_empty());
    assert!(
        forge
            .account(ORG, "nobody-at-all")
            .await
            .unwrap_err()
            .is_not_found()
    );
    scene.done();
}

/// HOOK-026, GHC-023
#[tokio::test]
async fn who_is_no_member_themselves_cannot_tell_who_is() {
    let scene = Scene::new().await;
    let forge = &scene.forge;
    assert!(forge.is_org_member(ORG, "author").await.unwrap());
    assert!(!forge.is_org_member(ORG, "outsider").await.unwrap());
    // An account is a member of itself, and nobody is asked.
    assert!(forge.is_org_member("author", "author").await.unwrap());
    scene
        .world
        .sandbox()
        .change(|forge| forge.remove_member(ORG, BOT))
        .unwrap();
    let error = forge.is_org_member(ORG, "author").await.unwrap_err();
    assert!(matches!(error, ForgeError::Forbidden { .. }), "{error}");
    insta::assert_snapshot!(
        error,
        @"GET /orgs/acme/members/author: forbidden: we are no member of acme, which hides its members from us"
    );
    scene.done();
}
