//! Users, organizations, teams, and the caller's own budget.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, At, Desk, empty, ok};
use crate::engine::{Engine, Rate};
use crate::forge::{Id, Refusal};

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/user", get(me))
        .route("/users/{login}", get(user))
        .route("/rate_limit", get(rate_limit))
        .route("/orgs/{org}", get(org))
        .route("/orgs/{org}/members", get(members))
        .route("/orgs/{org}/members/{login}", get(is_member))
        .route("/orgs/{org}/teams", get(teams))
        .route("/orgs/{org}/teams/{slug}", get(team))
        .route("/orgs/{org}/teams/{slug}/members", get(team_members))
        .route("/teams/{id}/members", get(members_of_team))
        .route(
            "/orgs/{org}/teams/{slug}/memberships/{login}",
            get(membership),
        )
}

async fn me(desk: Desk) -> Answer {
    let actor = desk.actor()?;
    let user = desk.engine.show(|render| {
        let account = render.forge.account(&actor.login)?;
        Ok::<_, Refusal>(render.full_account(account))
    })?;
    ok(&user)
}

async fn user(desk: Desk, At(login): At<String>) -> Answer {
    let user = desk.engine.show(|render| {
        let account = render.forge.account(&login)?;
        Ok::<_, Refusal>(render.full_account(account))
    })?;
    ok(&user)
}

async fn rate_limit(desk: Desk) -> Answer {
    let show = |rate: Rate| {
        json!({
            "limit": rate.limit, "remaining": rate.remaining(), "reset": rate.reset.as_second(), "used": rate.used,
        })
    };
    let login = desk.caller.as_deref();
    let core = show(desk.engine.spend(login, "core", 0).0);
    let graphql = show(desk.engine.spend(login, "graphql", 0).0);
    let search = show(desk.engine.spend(login, "search", 0).0);
    ok(&json!({
        "resources": {"core": core, "search": search, "graphql": graphql},
        "rate": core,
    }))
}

async fn org(desk: Desk, At(org): At<String>) -> Answer {
    let org = desk.engine.show(|render| {
        let account = render.forge.account(&org)?;
        let simple = render.organization(&org).ok_or_else(Refusal::not_found)?;
        Ok::<_, Refusal>(render.full_organization(account, simple))
    })?;
    ok(&org)
}

#[derive(Deserialize)]
struct MembersQuery {
    /// `all`, `admin` or `member`.
    role: Option<String>,
}

async fn members(desk: Desk, At(org): At<String>, Asked(asked): Asked<MembersQuery>) -> Answer {
    let wanted = |owner: bool| match asked.role.as_deref() {
        Some("admin") => owner,
        Some("member") => !owner,
        _ => true,
    };
    let members = desk.engine.show(|render| {
        let members = render.forge.org(&org)?.members.iter();
        let members = members.filter(|(_, owner)| wanted(**owner));
        Ok::<Vec<Value>, Refusal>(members.map(|(login, _)| render.user(login)).collect())
    })?;
    desk.page(members)
}

/// 204 for a member, 404 for who is none; who is no member themselves is sent to the public list.
async fn is_member(desk: Desk, At((org, login)): At<(String, String)>) -> Answer {
    let (insider, member) = desk.engine.read(|forge| {
        forge.org(&org)?;
        let insider = desk
            .caller
            .as_ref()
            .is_some_and(|me| forge.is_member(&org, me));
        Ok::<_, Refusal>((insider, forge.is_member(&org, &login)))
    })?;
    if !insider {
        let mut response = empty(StatusCode::FOUND)?;
        let target = format!("{}/orgs/{org}/public_members/{login}", desk.engine.base);
        if let Ok(target) = HeaderValue::from_str(&target) {
            response.headers_mut().insert(header::LOCATION, target);
        }
        return Ok(response);
    }
    if member {
        empty(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::not_found())
    }
}

/// Teams are seen by members only.
fn require_member(desk: &Desk, org: &str) -> Result<(), Refusal> {
    let me = desk.actor()?;
    let insider = desk.engine.read(|forge| forge.is_member(org, &me.login));
    if insider {
        Ok(())
    } else {
        Err(Refusal::not_found())
    }
}

async fn teams(desk: Desk, At(org): At<String>) -> Answer {
    require_member(&desk, &org)?;
    let teams = desk.engine.show(|render| {
        let account = render.forge.account(&org)?;
        let teams = render.forge.org(&org)?.teams.values();
        Ok::<Vec<Value>, Refusal>(teams.map(|team| render.team(account, team)).collect())
    })?;
    desk.page(teams)
}

async fn team(desk: Desk, At((org, slug)): At<(String, String)>) -> Answer {
    require_member(&desk, &org)?;
    let team = desk.engine.show(|render| {
        let account = render.forge.account(&org)?;
        let team = render.forge.org(&org)?.teams.get(&slug);
        let team = team.ok_or_else(Refusal::not_found)?;
        Ok::<_, Refusal>(render.full_team(account, team))
    })?;
    ok(&team)
}

async fn team_members(desk: Desk, At((org, slug)): At<(String, String)>) -> Answer {
    require_member(&desk, &org)?;
    let members = desk.engine.show(|render| {
        let team = render.forge.org(&org)?.teams.get(&slug);
        let members = &team.ok_or_else(Refusal::not_found)?.members;
        Ok::<Vec<Value>, Refusal>(members.iter().map(|login| render.user(login)).collect())
    })?;
    desk.page(members)
}

/// The older address, by the team's number.
async fn members_of_team(desk: Desk, At(id): At<Id>) -> Answer {
    let (org, slug) = desk.engine.read(|forge| {
        let (org, team) = forge.team_by_id(id)?;
        Ok::<_, Refusal>((org.to_owned(), team.slug.clone()))
    })?;
    team_members(desk, At((org, slug))).await
}

async fn membership(desk: Desk, At((org, slug, login)): At<(String, String, String)>) -> Answer {
    require_member(&desk, &org)?;
    let found = desk.engine.read(|forge| {
        let team = forge.org(&org)?.teams.get(&slug);
        let team = team.ok_or_else(Refusal::not_found)?;
        Ok::<_, Refusal>(team.members.contains(&login.to_lowercase()))
    })?;
    if !found {
        return Err(Refusal::not_found());
    }
    let url = format!(
        "{}/orgs/{org}/teams/{slug}/memberships/{login}",
        desk.engine.base
    );
    ok(&json!({"url": url, "role": "member", "state": "active"}))
}
