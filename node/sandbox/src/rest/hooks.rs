//! Hooks, their deliveries, redelivery. For repositories and organizations alike, seen by their admins.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Answer, Asked, At, Desk, Given, created, empty, json_bytes, ok};
use crate::engine::Engine;
use crate::forge::{
    Delivery, HookChange, HookConfig, HookPolicy, HookScope, Id, Permission, Refusal, RepoName,
};

/// Deliveries per page when none is asked for, and at most, as GitHub's.
const DEFAULT_DELIVERIES: usize = 30;
const MAX_DELIVERIES_PER_PAGE: usize = 100;

pub(super) fn router() -> Router<Arc<Engine>> {
    let repo = "/repos/{owner}/{name}/hooks";
    let org = "/orgs/{org}/hooks";
    Router::new()
        .route(repo, get(repo_hooks).post(create_repo_hook))
        .route(
            &format!("{repo}/{{hook}}"),
            get(repo_hook)
                .patch(edit_repo_hook)
                .delete(delete_repo_hook),
        )
        .route(&format!("{repo}/{{hook}}/deliveries"), get(repo_deliveries))
        .route(
            &format!("{repo}/{{hook}}/deliveries/{{id}}"),
            get(repo_delivery),
        )
        .route(
            &format!("{repo}/{{hook}}/deliveries/{{id}}/attempts"),
            post(repo_redeliver),
        )
        .route(org, get(org_hooks).post(create_org_hook))
        .route(
            &format!("{org}/{{hook}}"),
            get(org_hook).patch(edit_org_hook).delete(delete_org_hook),
        )
        .route(&format!("{org}/{{hook}}/deliveries"), get(org_deliveries))
        .route(
            &format!("{org}/{{hook}}/deliveries/{{id}}"),
            get(org_delivery),
        )
        .route(
            &format!("{org}/{{hook}}/deliveries/{{id}}/attempts"),
            post(org_redeliver),
        )
}

fn repo_scope(desk: &Desk, owner: String, name: String) -> Result<HookScope, Refusal> {
    let repo = RepoName::new(owner, name);
    let actor = desk.actor()?;
    let has = desk
        .engine
        .read(|forge| forge.permission(&repo, Some(&actor.login)))?;
    if has < Permission::Admin {
        return Err(Refusal::not_found());
    }
    Ok(HookScope::Repo(repo))
}

fn org_scope(desk: &Desk, org: String) -> Result<HookScope, Refusal> {
    let actor = desk.actor()?;
    let owner = desk.engine.read(|forge| {
        let members = &forge.org(&org)?.members;
        Ok::<_, Refusal>(members.get(&actor.login.to_lowercase()) == Some(&true))
    })?;
    if !owner {
        return Err(Refusal::not_found());
    }
    Ok(HookScope::Org(org))
}

/// The hook must be of that scope.
fn require(desk: &Desk, scope: &HookScope, hook: Id) -> Result<(), Refusal> {
    desk.engine.read(|forge| {
        let mut hooks = forge.hooks_of(scope);
        hooks
            .any(|h| h.id == hook)
            .then_some(())
            .ok_or_else(Refusal::not_found)
    })
}

fn hooks(desk: &Desk, scope: &HookScope) -> Answer {
    let shown = desk.engine.show(|render| {
        let hooks = render.forge.hooks_of(scope);
        hooks.map(|hook| render.hook(hook)).collect()
    });
    desk.page(shown)
}

fn hook(desk: &Desk, scope: &HookScope, hook: Id) -> Answer {
    require(desk, scope, hook)?;
    let shown = desk
        .engine
        .show(|render| render.forge.hook(hook).map(|hook| render.hook(hook)))?;
    ok(&shown)
}

#[derive(Deserialize)]
struct ConfigBody {
    url: String,
    secret: Option<String>,
}

#[derive(Deserialize)]
struct HookBody {
    config: Option<ConfigBody>,
    events: Option<Vec<String>>,
    active: Option<bool>,
}

impl ConfigBody {
    fn parse(self) -> Result<(Url, Option<String>), Refusal> {
        let url = self.url.parse().ok();
        let url = url.filter(|url: &Url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            Refusal::validation_custom("Hook", "config.url must be a valid HTTP or HTTPS URL")
        })?;
        Ok((url, self.secret.filter(|secret| !secret.is_empty())))
    }
}

fn create(desk: &Desk, scope: HookScope, body: HookBody) -> Answer {
    let actor = desk.actor()?;
    let config = body
        .config
        .ok_or_else(|| Refusal::validation("Hook", "config", "missing_field"))?;
    let (url, secret) = config.parse()?;
    let config = HookConfig {
        scope,
        targets: vec![url],
        policy: HookPolicy::default(),
        secret,
        events: body.events.unwrap_or_else(|| vec!["push".into()]),
    };
    let id = desk.engine.act(|forge, now| {
        let id = forge.create_hook(now, config)?;
        forge.hook_mut(id)?.active = body.active.unwrap_or(true);
        Ok::<_, Refusal>(id)
    })?;
    desk.engine.ping(id, &actor.login)?;
    let shown = desk
        .engine
        .show(|render| render.forge.hook(id).map(|hook| render.hook(hook)))?;
    created(&shown)
}

fn edit(desk: &Desk, scope: &HookScope, id: Id, body: HookBody) -> Answer {
    require(desk, scope, id)?;
    let change = HookChange {
        config: body.config.map(ConfigBody::parse).transpose()?,
        events: body.events,
        active: body.active,
    };
    desk.engine
        .act(|forge, now| forge.edit_hook(now, id, change))?;
    hook(desk, scope, id)
}

fn delete(desk: &Desk, scope: &HookScope, id: Id) -> Answer {
    require(desk, scope, id)?;
    desk.engine.act(|forge, _| forge.delete_hook(id))?;
    empty(StatusCode::NO_CONTENT)
}

async fn create_repo_hook(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Given(body): Given<HookBody>,
) -> Answer {
    let scope = repo_scope(&desk, owner, name)?;
    create(&desk, scope, body)
}

async fn edit_repo_hook(
    desk: Desk,
    At((owner, name, id)): At<(String, String, Id)>,
    Given(body): Given<HookBody>,
) -> Answer {
    edit(&desk, &repo_scope(&desk, owner, name)?, id, body)
}

async fn delete_repo_hook(desk: Desk, At((owner, name, id)): At<(String, String, Id)>) -> Answer {
    delete(&desk, &repo_scope(&desk, owner, name)?, id)
}

async fn create_org_hook(desk: Desk, At(org): At<String>, Given(body): Given<HookBody>) -> Answer {
    let scope = org_scope(&desk, org)?;
    create(&desk, scope, body)
}

async fn edit_org_hook(
    desk: Desk,
    At((org, id)): At<(String, Id)>,
    Given(body): Given<HookBody>,
) -> Answer {
    edit(&desk, &org_scope(&desk, org)?, id, body)
}

async fn delete_org_hook(desk: Desk, At((org, id)): At<(String, Id)>) -> Answer {
    delete(&desk, &org_scope(&desk, org)?, id)
}

#[derive(Deserialize)]
struct DeliveriesQuery {
    per_page: Option<usize>,
    cursor: Option<String>,
    status: Option<String>,
}

/// Newest first. The cursor names the delivery to start with.
fn deliveries(desk: &Desk, scope: &HookScope, hook: Id, asked: &DeliveriesQuery) -> Answer {
    require(desk, scope, hook)?;
    let size = asked
        .per_page
        .unwrap_or(DEFAULT_DELIVERIES)
        .clamp(1, MAX_DELIVERIES_PER_PAGE);
    let from: Option<Id> = match &asked.cursor {
        None => None,
        Some(cursor) => {
            let parsed = cursor.strip_prefix("v1_").and_then(|id| id.parse().ok());
            Some(parsed.ok_or_else(|| Refusal::bad_request("Invalid cursor"))?)
        }
    };
    let wanted = |delivery: &Delivery| {
        let succeeded = delivery
            .answer
            .as_ref()
            .is_some_and(|a| (200..400).contains(&a.status_code));
        match asked.status.as_deref() {
            Some("success") => succeeded,
            Some("failure") => delivery.answer.is_some() && !succeeded,
            _ => true,
        }
    };
    let (shown, next) = desk.engine.show(|render| {
        let all = render.forge.hook(hook)?.deliveries.iter().rev();
        let mut found = all.filter(|d| from.is_none_or(|from| d.id <= from) && wanted(d));
        let shown: Vec<Value> = found
            .by_ref()
            .take(size)
            .map(|delivery| render.delivery_item(delivery))
            .collect();
        Ok::<_, Refusal>((shown, found.next().map(|d| d.id)))
    })?;
    let mut response = json_bytes(StatusCode::OK, Value::Array(shown).to_string());
    if let Some(next) = next {
        let url = format!("{}{}", desk.engine.base, desk.uri.path());
        let link = format!("<{url}?per_page={size}&cursor=v1_{next}>; rel=\"next\"");
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

fn delivery(desk: &Desk, scope: &HookScope, hook: Id, id: Id) -> Answer {
    require(desk, scope, hook)?;
    let shown = desk.engine.show(|render| {
        let delivery = render.forge.delivery(hook, id)?;
        Ok::<_, Refusal>(render.delivery(delivery))
    })?;
    ok(&shown)
}

fn redeliver(desk: &Desk, scope: &HookScope, hook: Id, id: Id) -> Answer {
    require(desk, scope, hook)?;
    desk.engine.redeliver(hook, id)?;
    Ok(json_bytes(StatusCode::ACCEPTED, json!({}).to_string()))
}

async fn repo_hooks(desk: Desk, At((owner, name)): At<(String, String)>) -> Answer {
    hooks(&desk, &repo_scope(&desk, owner, name)?)
}

async fn repo_hook(desk: Desk, At((owner, name, id)): At<(String, String, Id)>) -> Answer {
    hook(&desk, &repo_scope(&desk, owner, name)?, id)
}

async fn repo_deliveries(
    desk: Desk,
    At((owner, name, hook)): At<(String, String, Id)>,
    Asked(asked): Asked<DeliveriesQuery>,
) -> Answer {
    deliveries(&desk, &repo_scope(&desk, owner, name)?, hook, &asked)
}

async fn repo_delivery(
    desk: Desk,
    At((owner, name, hook, id)): At<(String, String, Id, Id)>,
) -> Answer {
    delivery(&desk, &repo_scope(&desk, owner, name)?, hook, id)
}

async fn repo_redeliver(
    desk: Desk,
    At((owner, name, hook, id)): At<(String, String, Id, Id)>,
) -> Answer {
    redeliver(&desk, &repo_scope(&desk, owner, name)?, hook, id)
}

async fn org_hooks(desk: Desk, At(org): At<String>) -> Answer {
    hooks(&desk, &org_scope(&desk, org)?)
}

async fn org_hook(desk: Desk, At((org, id)): At<(String, Id)>) -> Answer {
    hook(&desk, &org_scope(&desk, org)?, id)
}

async fn org_deliveries(
    desk: Desk,
    At((org, hook)): At<(String, Id)>,
    Asked(asked): Asked<DeliveriesQuery>,
) -> Answer {
    deliveries(&desk, &org_scope(&desk, org)?, hook, &asked)
}

async fn org_delivery(desk: Desk, At((org, hook, id)): At<(String, Id, Id)>) -> Answer {
    delivery(&desk, &org_scope(&desk, org)?, hook, id)
}

async fn org_redeliver(desk: Desk, At((org, hook, id)): At<(String, Id, Id)>) -> Answer {
    redeliver(&desk, &org_scope(&desk, org)?, hook, id)
}
