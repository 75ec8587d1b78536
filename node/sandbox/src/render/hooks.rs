//! Hooks and their deliveries.

use serde_json::{Map, Value, json};

use super::{Render, time};
use crate::forge::{Delivery, Hook, HookScope, Id, Refusal};

impl Render<'_> {
    pub(crate) fn hook(&self, hook: &Hook) -> Value {
        let (prefix, kind) = match &hook.config.scope {
            HookScope::Repo(repo) => (self.repo_url(repo), "Repository"),
            HookScope::Org(org) => (format!("{}/orgs/{org}", self.base), "Organization"),
        };
        let url = format!("{prefix}/hooks/{}", hook.id);
        let last = hook.deliveries.iter().rev().find_map(|d| d.answer.as_ref());
        let last_response = match last {
            None => json!({"code": null, "status": "unused", "message": null}),
            Some(answer) => json!({
                "code": answer.status_code,
                "status": if (200..300).contains(&answer.status_code) { "active" } else { "failed" },
                "message": answer.status,
            }),
        };
        let mut config = json!({
            "content_type": "json",
            "insecure_ssl": "0",
            "url": hook.config.targets.first().map_or("", |target| target.as_str()),
        });
        if hook.config.secret.is_some() {
            config["secret"] = json!("********");
        }
        let mut value = json!({
            "type": kind,
            "id": hook.id,
            "name": "web",
            "active": hook.active,
            "events": hook.config.events,
            "config": config,
            "updated_at": time(hook.updated_at),
            "created_at": time(hook.created_at),
            "url": url,
            "test_url": format!("{url}/test"),
            "ping_url": format!("{url}/pings"),
            "deliveries_url": format!("{url}/deliveries"),
            "last_response": last_response,
        });
        if kind == "Organization"
            && let Value::Object(fields) = &mut value
        {
            fields.remove("test_url");
            fields.remove("last_response");
        }
        value
    }

    /// The body of a `ping`.
    pub(crate) fn ping(&self, id: Id, actor: &str) -> Result<Value, Refusal> {
        let hook = self.forge.hook(id)?;
        let mut body = json!({
            "zen": "Keep it logically awesome.",
            "hook_id": id,
            "hook": self.hook(hook),
            "sender": self.user(actor),
        });
        let owner = match &hook.config.scope {
            HookScope::Repo(repo) => {
                body["repository"] = self.repo(self.forge.repo(repo)?);
                &repo.owner
            }
            HookScope::Org(org) => org,
        };
        if let Some(organization) = self.organization(owner) {
            body["organization"] = organization;
        }
        Ok(body)
    }

    pub(crate) fn delivery_item(&self, delivery: &Delivery) -> Value {
        let repository = delivery
            .repo
            .as_ref()
            .and_then(|name| self.forge.repo(name).ok())
            .map(|repo| repo.id);
        let answer = delivery.answer.as_ref();
        json!({
            "id": delivery.id,
            "guid": delivery.guid,
            "delivered_at": time(delivery.delivered_at),
            "redelivery": delivery.redelivery,
            "duration": answer.map_or(0.0, |a| (a.duration.as_secs_f64() * 100.0).round() / 100.0),
            "status": answer.map_or("pending", |a| a.status.as_str()),
            "status_code": answer.map_or(0, |a| a.status_code),
            "event": delivery.event,
            "action": delivery.action,
            "installation_id": null,
            "repository_id": repository,
            "throttled_at": null,
        })
    }

    pub(crate) fn delivery(&self, delivery: &Delivery) -> Value {
        let headers = |pairs: &[(String, String)]| {
            let pairs = pairs.iter().map(|(k, v)| (k.clone(), json!(v)));
            pairs.collect::<Map<_, _>>()
        };
        let mut value = self.delivery_item(delivery);
        let answer = delivery.answer.as_ref();
        value["url"] = json!(answer.map_or("", |a| a.url.as_str()));
        value["request"] = json!({
            "headers": headers(&delivery.request_headers),
            "payload": serde_json::from_slice::<Value>(&delivery.payload).unwrap_or(Value::Null),
        });
        value["response"] = json!({
            "headers": answer.map(|a| headers(&a.headers)).unwrap_or_default(),
            "payload": answer.map_or("", |a| a.body.as_str()),
        });
        value
    }
}
