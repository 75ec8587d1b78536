//! Runs of GitHub Actions.

use trireme_forge::ForgeError;

use crate::scene::Scene;

/// PLG-TRIGGER-023
#[tokio::test]
async fn failed_jobs_are_run_again_and_waiting_runs_approved() {
    let scene = Scene::new().await;
    let (pr, _) = scene.pr().await;
    let (forge, repo, sha) = (&scene.forge, &scene.repo, scene.world.head(&pr));
    let failed = scene.world.workflow_run(&pr, "ci", Some("failure"));
    let waiting = scene
        .world
        .workflow_run(&pr, "fork", Some("action_required"));
    scene.world.workflow_run(&pr, "lint", Some("success"));
    scene.world.workflow_run(&pr, "slow", None);

    let runs = forge.workflow_runs(repo, "fix", &sha).await.unwrap();
    assert_eq!(runs.len(), 4);
    let ids = |wanted: fn(&trireme_forge::WorkflowRun) -> bool| {
        let runs = runs.iter().filter(|run| wanted(run));
        runs.map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(trireme_forge::WorkflowRun::failed), [waiting, failed]);
    assert_eq!(ids(trireme_forge::WorkflowRun::awaits_approval), [waiting]);
    assert!(
        forge
            .workflow_runs(repo, "other", &sha)
            .await
            .unwrap()
            .is_empty()
    );

    forge.rerun_failed_jobs(repo, failed).await.unwrap();
    let seen = |id| scene.world.workflow_run_seen(id);
    assert_eq!(seen(failed), ("queued".into(), None, 1));
    let error = forge.rerun_failed_jobs(repo, failed).await.unwrap_err();
    assert!(matches!(error, ForgeError::Forbidden { .. }), "{error}");

    forge.approve_workflow_run(repo, waiting).await.unwrap();
    assert_eq!(seen(waiting), ("queued".into(), None, 0));
    let error = forge.approve_workflow_run(repo, waiting).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    scene.done();
}
