//! A GitHub App: one, installed in every organization. Whoever holds a token that looks like an App's proof is the App;
//! signatures are not looked at, since nobody but a test speaks with a sandbox.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, At, Desk, created, ok};
use crate::engine::Engine;
use crate::forge::{APP, AccountKind, Id, Refusal, RepoName};
use crate::render::time;

/// How long an installation's token is good for, as it is told; it never ends here.
const TOKEN_HOURS: i64 = 1;

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/app", get(app))
        .route("/app/installations", get(installations))
        .route("/app/installations/{id}/access_tokens", post(token))
        .route("/repos/{owner}/{name}/installation", get(of_repo))
}

impl Desk {
    /// 401 for all but the App itself.
    fn app(&self) -> Result<(), Refusal> {
        if self.caller.as_deref() == Some(APP) {
            return Ok(());
        }
        Err(Refusal {
            status: StatusCode::UNAUTHORIZED.as_u16(),
            message: "A JSON web token could not be decoded".into(),
            errors: Vec::new(),
        })
    }

    /// The installation in an account that is an organization.
    fn installation(&self, org: &str) -> Result<Value, Refusal> {
        self.engine.show(|render| {
            let account = render.forge.account(org)?;
            let (id, login, made) = (account.id, &account.login, time(account.created_at));
            let base = render.base;
            Ok(json!({
                "id": id, "app_id": 1, "app_slug": APP, "target_id": id, "target_type": "Organization",
                "account": render.account(account), "repository_selection": "all",
                "access_tokens_url": format!("{base}/app/installations/{id}/access_tokens"),
                "repositories_url": format!("{base}/installation/repositories"),
                "html_url": format!("{base}/organizations/{login}/settings/installations/{id}"),
                "permissions": permissions(), "events": events(), "created_at": made, "updated_at": made,
                "single_file_name": null, "suspended_by": null, "suspended_at": null,
            }))
        })
    }

    fn orgs(&self) -> Vec<String> {
        self.engine
            .read(|forge| forge.orgs().map(|(login, _)| login.to_owned()).collect())
    }
}

/// What Prow's documentation asks for, with write access where Tide needs it.
fn permissions() -> Value {
    json!({
        "actions": "write", "administration": "read", "checks": "read", "contents": "write", "issues": "write",
        "members": "read", "metadata": "read", "pull_requests": "write", "statuses": "write", "workflows": "write",
    })
}

fn events() -> Value {
    json!([
        "check_run",
        "check_suite",
        "commit_comment",
        "create",
        "delete",
        "fork",
        "issue_comment",
        "issues",
        "label",
        "milestone",
        "organization",
        "pull_request",
        "pull_request_review",
        "pull_request_review_comment",
        "push",
        "release",
        "repository",
        "status",
        "team",
        "workflow_run",
    ])
}

async fn app(desk: Desk) -> Answer {
    desk.app()?;
    let made = time(desk.engine.clock.now());
    let owner = desk.engine.show(|render| render.user(APP));
    ok(&json!({
        "id": 1, "slug": APP, "node_id": "A_1", "client_id": "Iv1.sandbox", "owner": owner, "name": APP, "description": null,
        "external_url": "https://example.com", "html_url": format!("https://github.com/apps/{APP}"),
        "created_at": made, "updated_at": made, "permissions": permissions(), "events": events(),
    }))
}

async fn installations(desk: Desk) -> Answer {
    desk.app()?;
    let all: Result<Vec<Value>, Refusal> = desk
        .orgs()
        .iter()
        .map(|org| desk.installation(org))
        .collect();
    desk.page(all?)
}

async fn token(desk: Desk, At(id): At<Id>) -> Answer {
    desk.app()?;
    let installed = desk.engine.read(|forge| {
        let is_org = |account: &&crate::forge::Account| account.kind == AccountKind::Organization;
        forge
            .accounts()
            .filter(is_org)
            .any(|account| account.id == id)
    });
    if !installed {
        return Err(Refusal::not_found());
    }
    let hours = jiff::SignedDuration::from_hours(TOKEN_HOURS);
    let now = desk.engine.clock.now();
    let expires = now.saturating_add(hours).unwrap_or(now);
    created(&json!({
        "token": desk.engine.app_token(), "expires_at": time(expires), "permissions": permissions(),
        "repository_selection": "all",
    }))
}

async fn of_repo(desk: Desk, At((owner, name)): At<(String, String)>) -> Answer {
    desk.app()?;
    let repo = RepoName::new(owner, name);
    desk.engine.read(|forge| forge.repo(&repo).map(drop))?;
    desk.engine.read(|forge| forge.org(&repo.owner).map(drop))?;
    ok(&desk.installation(&repo.owner)?)
}
