//! Webhooks and the record of their deliveries.

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{decode, next_page};
use super::client::{Call, Client, Effect};
use super::credentials::Behalf;
use super::wire::nullable;
use super::{GitHub, at, segment};
use crate::delivery::{DeliveredRequest, DeliveryPage, Hook, HookDelivery, HookScope};
use crate::error::{ForgeError, Result};
use crate::forge::Deliveries;
use crate::types::RepoId;

#[derive(Deserialize)]
pub(super) struct WireHook {
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    active: bool,
    #[serde(default, deserialize_with = "nullable")]
    events: Vec<String>,
    config: WireHookConfig,
}

#[derive(Deserialize)]
struct WireHookConfig {
    #[serde(default, deserialize_with = "nullable")]
    url: String,
}

impl From<WireHook> for Hook {
    fn from(wire: WireHook) -> Self {
        Self {
            id: wire.id,
            url: wire.config.url,
            active: wire.active,
            events: wire.events,
        }
    }
}

#[derive(Deserialize)]
struct WireDelivery {
    id: u64,
    guid: String,
    delivered_at: Timestamp,
    #[serde(default, deserialize_with = "nullable")]
    redelivery: bool,
    #[serde(default, deserialize_with = "nullable")]
    status_code: u16,
    #[serde(default, deserialize_with = "nullable")]
    event: String,
    #[serde(default)]
    action: Option<String>,
}

impl From<WireDelivery> for HookDelivery {
    fn from(wire: WireDelivery) -> Self {
        Self {
            id: wire.id,
            guid: wire.guid,
            delivered_at: wire.delivered_at,
            redelivery: wire.redelivery,
            status_code: wire.status_code,
            event: wire.event,
            action: wire.action,
        }
    }
}

#[derive(Deserialize)]
struct WireDelivered {
    request: WireRequest,
}

#[derive(Deserialize)]
struct WireRequest {
    #[serde(default, deserialize_with = "nullable")]
    headers: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
}

impl GitHub {
    /// Where a webhook's deliveries are, as whom to ask for them, and whom to ask.
    fn place<'a>(&self, scope: &'a HookScope) -> Result<(String, Behalf<'a>, Client)> {
        let (path, behalf, host) = match scope {
            HookScope::Repo { repo, hook } => (
                at(repo, &format!("/hooks/{hook}/deliveries")),
                Behalf::Org(&repo.org),
                None,
            ),
            HookScope::Org { org, hook } => (
                format!("/orgs/{}/hooks/{hook}/deliveries", segment(org)),
                Behalf::Org(org),
                None,
            ),
            HookScope::App { host } => (
                "/app/hook/deliveries".to_owned(),
                Behalf::Ourselves,
                Some(host),
            ),
        };
        let Some(host) = host else {
            return Ok((path, behalf, self.client.clone()));
        };
        let mut servers = self.client.servers().iter();
        let server = servers.find(|server| server.host == *host && server.is_app());
        match server {
            Some(server) => Ok((path, behalf, self.client.at(server.index))),
            None => Err(ForgeError::NotFound {
                request: format!("GET {path}"),
                message: format!("no GitHub App of ours is configured for {host}"),
            }),
        }
    }
}

#[async_trait]
impl Deliveries for GitHub {
    async fn repo_hooks(&self, repo: &RepoId) -> Result<Vec<Hook>> {
        let call = Call::read(at(repo, "/hooks"), Behalf::Org(&repo.org));
        let wire: Vec<WireHook> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn org_hooks(&self, org: &str) -> Result<Vec<Hook>> {
        let call = Call::read(format!("/orgs/{}/hooks", segment(org)), Behalf::Org(org));
        let wire: Vec<WireHook> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn hook_deliveries(
        &self,
        scope: &HookScope,
        cursor: Option<&str>,
    ) -> Result<DeliveryPage> {
        let (path, behalf, client) = self.place(scope)?;
        let path = match cursor {
            Some(cursor) => format!("{path}?per_page=100&cursor={}", segment(cursor)),
            None => format!("{path}?per_page=100"),
        };
        let call = Call::read(path, behalf);
        let answer = client.call(&call).await?;
        let wire: Vec<WireDelivery> = decode(&call, &answer)?;
        let next = next_page(&answer.headers).and_then(|link| {
            let (_, query) = link.split_once('?')?;
            url::form_urlencoded::parse(query.as_bytes())
                .find_map(|(key, value)| (key == "cursor").then(|| value.into_owned()))
        });
        Ok(DeliveryPage {
            deliveries: wire.into_iter().map(Into::into).collect(),
            next,
        })
    }

    async fn delivered_request(&self, scope: &HookScope, id: u64) -> Result<DeliveredRequest> {
        let (path, behalf, client) = self.place(scope)?;
        let call = Call::read(format!("{path}/{id}"), behalf);
        let wire: WireDelivered = client.json(&call).await?;
        let headers = wire.request.headers.into_iter();
        Ok(DeliveredRequest {
            headers: headers
                .map(|(name, value)| {
                    let text = value.as_str().map(str::to_owned);
                    (name, text.unwrap_or_else(|| value.to_string()))
                })
                .collect(),
            payload: wire.request.payload.map_or_else(Bytes::new, |payload| {
                Bytes::from(Box::<str>::from(payload).into_string())
            }),
        })
    }

    async fn redeliver(&self, scope: &HookScope, id: u64) -> Result<()> {
        let (path, behalf, client) = self.place(scope)?;
        // Sent twice it arrives twice under one GUID, which the inbox takes once.
        let call = Call::change(
            Method::POST,
            format!("{path}/{id}/attempts"),
            behalf,
            Effect::Idempotent,
            None,
        );
        client.call(&call).await.map(|_| ())
    }
}
