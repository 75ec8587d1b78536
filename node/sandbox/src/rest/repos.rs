//! Repositories: themselves, their branches, files, labels and collaborators.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Asked, At, Desk, Given, created, empty, json_bytes, ok};
use crate::engine::Engine;
use crate::forge::{Permission, Refusal, RepoName};
use crate::git::Entry;

/// Bytes of a file that the contents API shows, as GitHub's.
const MAX_CONTENT: u64 = 1 << 20;

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/repos/{owner}/{name}", get(repo))
        .route("/orgs/{owner}/repos", get(org_repos))
        .route("/users/{owner}/repos", get(user_repos))
        .route("/repos/{owner}/{name}/forks", post(fork))
        .route(
            "/repos/{owner}/{name}/git/refs/{*reference}",
            get(old_git_ref).patch(move_ref).delete(delete_ref),
        )
        .route("/repos/{owner}/{name}/git/refs", post(create_ref))
        .route("/repos/{owner}/{name}/milestones", get(milestones))
        .route("/repos/{owner}/{name}/branches", get(branches))
        .route("/repos/{owner}/{name}/branches/{*branch}", get(branch))
        .route(
            "/repos/{owner}/{name}/git/ref/heads/{*branch}",
            get(git_ref),
        )
        .route("/repos/{owner}/{name}/contents", get(root_contents))
        .route("/repos/{owner}/{name}/contents/{*path}", get(contents))
        .route(
            "/repos/{owner}/{name}/labels",
            get(labels).post(create_label),
        )
        .route("/repos/{owner}/{name}/labels/{label}", get(label))
        .route("/repos/{owner}/{name}/collaborators", get(collaborators))
        .route(
            "/repos/{owner}/{name}/collaborators/{login}",
            get(is_collaborator),
        )
        .route(
            "/repos/{owner}/{name}/collaborators/{login}/permission",
            get(permission),
        )
}

async fn repo(desk: Desk, At((owner, name)): At<(String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let repo = desk.engine.show(|render| {
        let has = render.forge.permission(&name, desk.caller.as_deref())?;
        Ok::<_, Refusal>(render.full_repo(render.forge.repo(&name)?, has))
    })?;
    ok(&repo)
}

/// What the caller sees of somebody's repositories.
fn owned(desk: &Desk, owner: &str) -> Answer {
    let repos = desk.engine.show(|render| {
        let owned = render.forge.repos().filter(|repo| {
            let seen = render
                .forge
                .require(&repo.name, desk.caller.as_deref(), Permission::Read);
            repo.name.owner.eq_ignore_ascii_case(owner) && seen.is_ok()
        });
        owned.map(|repo| render.repo(repo)).collect()
    });
    desk.page(repos)
}

async fn org_repos(desk: Desk, At(org): At<String>) -> Answer {
    desk.engine.read(|forge| forge.org(&org).map(|_| ()))?;
    owned(&desk, &org)
}

async fn user_repos(desk: Desk, At(user): At<String>) -> Answer {
    desk.engine.read(|forge| forge.account(&user).map(|_| ()))?;
    owned(&desk, &user)
}

#[derive(Deserialize)]
struct NewRef {
    r#ref: String,
    sha: String,
}

async fn create_ref(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Given(body): Given<NewRef>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let branch = body.r#ref.strip_prefix("refs/heads/");
    let branch = branch.ok_or_else(|| Refusal::invalid("Reference name is not supported"))?;
    if tip(&desk, &name, branch)?.is_some() {
        return Err(Refusal::invalid("Reference already exists"));
    }
    let writer = desk.writer(&name)?;
    writer.set_branch(&name, branch, &body.sha).await?;
    let shown = desk
        .engine
        .show(|render| render.git_ref(&name, branch, &body.sha));
    created(&shown)
}

#[derive(Deserialize)]
struct MovedRef {
    sha: String,
}

/// Whether it goes forward is not looked at: nobody here moves a branch without force.
async fn move_ref(
    desk: Desk,
    At((owner, name, reference)): At<(String, String, String)>,
    Given(body): Given<MovedRef>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let branch = reference.strip_prefix("heads/").unwrap_or_default();
    if tip(&desk, &name, branch)?.is_none() {
        return Err(Refusal::invalid("Reference does not exist"));
    }
    let writer = desk.writer(&name)?;
    writer.set_branch(&name, branch, &body.sha).await?;
    let shown = desk
        .engine
        .show(|render| render.git_ref(&name, branch, &body.sha));
    ok(&shown)
}

async fn delete_ref(
    desk: Desk,
    At((owner, name, reference)): At<(String, String, String)>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    if let Some(branch) = reference.strip_prefix("heads/") {
        actor.delete_branch(&name, branch).await?;
    } else if let Some(tag) = reference.strip_prefix("tags/") {
        actor.push_tag(&name, tag, None).await?;
    } else {
        return Err(Refusal::invalid("Reference does not exist"));
    }
    empty(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct MilestonesQuery {
    state: Option<String>,
}

async fn milestones(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Asked(asked): Asked<MilestonesQuery>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let state = asked.state.as_deref().unwrap_or("open");
    let shown = desk.engine.show(|render| {
        let repo = render.forge.repo(&name)?;
        let found = repo.milestones.values();
        let found = found.filter(|m| state == "all" || m.state.as_str() == state);
        let shown = found.map(|milestone| render.milestone(repo, milestone));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

/// What protects a branch, shown to admins alone.
fn protection(desk: &Desk, name: &RepoName, branch: &str) -> Answer {
    let refuse = |message: &str| Refusal {
        message: message.into(),
        ..Refusal::not_found()
    };
    let has = |forge: &crate::forge::Forge| forge.permission(name, desk.caller.as_deref());
    if desk.engine.read(has)? < Permission::Admin {
        return Err(Refusal::not_found());
    }
    if tip(desk, name, branch)?.is_none() {
        return Err(refuse("Branch not found"));
    }
    let shown = desk.engine.show(|render| {
        let repo = render.forge.repo(name)?;
        let contexts = repo.required_contexts.get(branch);
        let contexts = contexts.ok_or_else(|| refuse("Branch not protected"))?;
        let contexts: Vec<String> = contexts.iter().cloned().collect();
        Ok::<_, Refusal>(render.protection(repo, branch, &contexts))
    })?;
    ok(&shown)
}

async fn fork(desk: Desk, At((owner, name)): At<(String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let fork = desk.actor()?.fork(&name).await?;
    let repo = desk.engine.show(|render| {
        Ok::<_, Refusal>(render.full_repo(render.forge.repo(&fork)?, Permission::Admin))
    })?;
    Ok(json_bytes(StatusCode::ACCEPTED, repo.to_string()))
}

async fn branches(desk: Desk, At((owner, name)): At<(String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let branches = desk.engine.show(|render| {
        let repo = render.forge.repo(&name)?;
        let branches = repo.branches.iter();
        Ok::<Vec<Value>, Refusal>(
            branches
                .map(|(branch, sha)| render.short_branch(repo, branch, sha))
                .collect(),
        )
    })?;
    desk.page(branches)
}

fn tip(desk: &Desk, repo: &RepoName, branch: &str) -> Result<Option<String>, Refusal> {
    desk.may_read(repo)?;
    let tip = |forge: &crate::forge::Forge| Ok(forge.repo(repo)?.branches.get(branch).cloned());
    desk.engine.read(tip)
}

async fn branch(desk: Desk, At((owner, name, branch)): At<(String, String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    if let Some(branch) = branch.strip_suffix("/protection") {
        return protection(&desk, &name, branch);
    }
    let Some(sha) = tip(&desk, &name, &branch)? else {
        return Err(Refusal {
            message: "Branch not found".into(),
            ..Refusal::not_found()
        });
    };
    let git = desk.engine.git.repo(&name.owner, &name.name);
    let commit = git.commit(&sha).await?;
    let shown = desk.engine.show(|render| {
        Ok::<_, Refusal>(render.branch(render.forge.repo(&name)?, &branch, &commit))
    })?;
    ok(&shown)
}

/// Where GitHub had it before; Prow asks there still.
async fn old_git_ref(
    desk: Desk,
    At((owner, name, reference)): At<(String, String, String)>,
) -> Answer {
    let branch = reference
        .strip_prefix("heads/")
        .ok_or_else(Refusal::not_found)?;
    git_ref(desk, At((owner, name, branch.to_owned()))).await
}

async fn git_ref(desk: Desk, At((owner, name, branch)): At<(String, String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    let sha = tip(&desk, &name, &branch)?.ok_or_else(Refusal::not_found)?;
    let shown = desk
        .engine
        .show(|render| render.git_ref(&name, &branch, &sha));
    ok(&shown)
}

#[derive(Deserialize)]
struct AtRef {
    r#ref: Option<String>,
}

async fn root_contents(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Asked(asked): Asked<AtRef>,
) -> Answer {
    show_contents(&desk, RepoName::new(owner, name), "", asked.r#ref).await
}

async fn contents(
    desk: Desk,
    At((owner, name, path)): At<(String, String, String)>,
    Asked(asked): Asked<AtRef>,
) -> Answer {
    show_contents(&desk, RepoName::new(owner, name), &path, asked.r#ref).await
}

async fn show_contents(
    desk: &Desk,
    name: RepoName,
    path: &str,
    reference: Option<String>,
) -> Answer {
    desk.may_read(&name)?;
    let default = desk
        .engine
        .read(|forge| Ok::<_, Refusal>(forge.repo(&name)?.default_branch.clone()))?;
    let reference = reference.filter(|r| !r.is_empty()).unwrap_or(default);
    let git = desk.engine.git.repo(&name.owner, &name.name);
    let short = reference.trim_start_matches("refs/heads/");
    let Some(commit) = git.resolve(short).await? else {
        return Err(Refusal {
            message: format!("No commit found for the ref {reference}"),
            ..Refusal::not_found()
        });
    };
    let (entries, is_dir) = git
        .entries(&commit, path)
        .await?
        .ok_or_else(Refusal::not_found)?;
    if is_dir {
        let show = |entry: &Entry| desk.engine.show(|r| r.content(&name, short, entry, None));
        return ok(&Value::Array(entries.iter().map(show).collect()));
    }
    let entry = entries.first().ok_or_else(Refusal::not_found)?;
    if entry.size > MAX_CONTENT {
        let mut shown = desk
            .engine
            .show(|r| r.content(&name, short, entry, Some(b"")));
        shown["encoding"] = "none".into();
        return ok(&shown);
    }
    let bytes = git.blob(&entry.sha).await?;
    let shown = desk
        .engine
        .show(|r| r.content(&name, short, entry, Some(&bytes)));
    ok(&shown)
}

async fn labels(desk: Desk, At((owner, name)): At<(String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let labels = desk.engine.show(|render| {
        let labels = render.forge.repo(&name)?.labels.values();
        Ok::<Vec<Value>, Refusal>(labels.map(|label| render.label(&name, label)).collect())
    })?;
    desk.page(labels)
}

#[derive(Deserialize)]
struct NewLabel {
    name: String,
    color: Option<String>,
    description: Option<String>,
}

async fn create_label(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Given(new): Given<NewLabel>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let color = new.color.unwrap_or_else(|| "ededed".into());
    let label = desk.engine.act(|forge, _| {
        forge.create_label(&actor.login, &name, &new.name, &color, new.description)
    })?;
    let shown = desk.engine.show(|render| render.label(&name, &label));
    created(&shown)
}

async fn label(desk: Desk, At((owner, name, label)): At<(String, String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let label = render.forge.repo(&name)?.label(&label);
        Ok::<_, Refusal>(render.label(&name, label.ok_or_else(Refusal::not_found)?))
    })?;
    ok(&shown)
}

/// Collaborators are seen by those who may push.
fn may_push(desk: &Desk, repo: &RepoName) -> Result<(), Refusal> {
    let actor = desk.actor()?;
    let has = |forge: &crate::forge::Forge| forge.permission(repo, Some(&actor.login));
    if desk.engine.read(has)? >= Permission::Write {
        Ok(())
    } else {
        Err(Refusal::forbidden(
            "Must have push access to view repository collaborators.",
        ))
    }
}

async fn collaborators(desk: Desk, At((owner, name)): At<(String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    may_push(&desk, &name)?;
    let shown = desk.engine.show(|render| {
        let mut shown = Vec::new();
        for account in render.forge.accounts() {
            let login = &account.login;
            if render.forge.is_collaborator(&name, login)? {
                let has = render.forge.permission(&name, Some(login))?;
                shown.push(render.collaborator(login, has));
            }
        }
        Ok::<_, Refusal>(shown)
    })?;
    desk.page(shown)
}

async fn is_collaborator(
    desk: Desk,
    At((owner, name, login)): At<(String, String, String)>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    may_push(&desk, &name)?;
    if desk
        .engine
        .read(|forge| forge.is_collaborator(&name, &login))?
    {
        empty(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::not_found())
    }
}

async fn permission(desk: Desk, At((owner, name, login)): At<(String, String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    may_push(&desk, &name)?;
    let shown = desk.engine.show(|render| {
        render.forge.account(&login)?;
        let has = render.forge.permission(&name, Some(&login))?;
        Ok::<_, Refusal>(render.collaborator_permission(&login, has))
    })?;
    ok(&shown)
}
