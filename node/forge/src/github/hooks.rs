//! Setting webhooks up (HOOK-041).

use async_trait::async_trait;
use http::Method;
use serde_json::json;

use super::client::{Call, Effect};
use super::credentials::Behalf;
use super::deliveries::WireHook;
use super::{GitHub, at, segment};
use crate::delivery::{Hook, HookOwner};
use crate::drafts::HookSpec;
use crate::error::Result;
use crate::forge::Hooks;

fn place(owner: &HookOwner) -> (String, Behalf<'_>) {
    match owner {
        HookOwner::Repo(repo) => (at(repo, "/hooks"), Behalf::Org(&repo.org)),
        HookOwner::Org(org) => (format!("/orgs/{}/hooks", segment(org)), Behalf::Org(org)),
    }
}

fn body(spec: &HookSpec) -> serde_json::Value {
    let mut config = json!({ "url": spec.url, "content_type": "json", "insecure_ssl": "0" });
    if let Some(secret) = &spec.secret {
        config["secret"] = json!(secret);
    }
    json!({ "config": config, "events": spec.events, "active": spec.active })
}

#[async_trait]
impl Hooks for GitHub {
    async fn create_hook(&self, owner: &HookOwner, spec: &HookSpec) -> Result<Hook> {
        let (path, behalf) = place(owner);
        let mut body = body(spec);
        body["name"] = json!("web");
        let call = Call::change(Method::POST, path, behalf, Effect::Once, Some(&body));
        let wire: WireHook = self.client.json(&call).await?;
        Ok(wire.into())
    }

    async fn edit_hook(&self, owner: &HookOwner, id: u64, spec: &HookSpec) -> Result<Hook> {
        let (path, behalf) = place(owner);
        let call = Call::change(
            Method::PATCH,
            format!("{path}/{id}"),
            behalf,
            Effect::Idempotent,
            Some(&body(spec)),
        );
        let wire: WireHook = self.client.json(&call).await?;
        Ok(wire.into())
    }

    async fn delete_hook(&self, owner: &HookOwner, id: u64) -> Result<()> {
        let (path, behalf) = place(owner);
        let call = Call::change(
            Method::DELETE,
            format!("{path}/{id}"),
            behalf,
            Effect::Idempotent,
            None,
        );
        match self.client.call(&call).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
