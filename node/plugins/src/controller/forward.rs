//! Plugins elsewhere: the delivery as it came is sent on to them (HOOK-030 … 034).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use trireme_config::PluginConfig;
use trireme_outside::OutsideError;
use trireme_proto::state::effect::Action;
use trireme_proto::state::{Delivery, Effect, ForwardEffect, PlanBody};

use super::Session;
use super::write::{Answer, Failure};
use crate::payload::payload;

/// What a plugin elsewhere may take to answer; Prow waits without end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a plugin elsewhere may be away before a delivery to it is given up, to be redriven by a person.
pub(super) const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// Bytes of an answer that are told.
const MAX_ANSWER: usize = 1000;
/// What Prow's hook calls itself towards them.
const USER_AGENT: &str = "ProwHook";
/// Of the lanes of plugins elsewhere; no plugin of Prow's has a name with a colon.
pub(super) const PREFIX: &str = "external:";

/// The plans of the plugins elsewhere that want this delivery, in the order of the configuration. `is_built_in` names
/// those that this process runs itself.
pub(super) fn plans(
    config: &PluginConfig,
    delivery: &Delivery,
    is_built_in: impl Fn(&str) -> bool,
) -> Vec<PlanBody> {
    let wanting = config.external_plugins(&delivery.org, &delivery.repo, &delivery.event);
    let elsewhere = wanting.filter(|plugin| !is_built_in(&plugin.name));
    let plan = |plugin: &trireme_config::plugins::ExternalPlugin| PlanBody {
        plugin: format!("{PREFIX}{}", plugin.name),
        effects: vec![Effect {
            action: Some(Action::Forward(ForwardEffect {
                name: plugin.name.clone(),
                endpoint: plugin.endpoint.clone(),
            })),
            ..Effect::default()
        }],
        ..PlanBody::default()
    };
    elsewhere.map(plan).collect()
}

/// The headers that came, but for those that belong to the one connection.
fn headers(delivery: &Delivery) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for kept in &delivery.headers {
        let name = HeaderName::from_bytes(kept.name.as_bytes());
        let value = HeaderValue::from_bytes(&kept.value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    for of_connection in [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::ACCEPT_ENCODING,
        header::EXPECT,
    ] {
        headers.remove(of_connection);
    }
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers
}

impl Session {
    pub(super) async fn forward(
        &self,
        effect: &ForwardEffect,
        delivery: &Delivery,
    ) -> Result<Answer, Failure> {
        if self.tools.options.dry_run {
            // Whoever shadows a hook of Prow's would have its plugins act twice.
            tracing::info!(
                plugin = effect.name,
                guid = delivery.guid,
                "dry run: not forwarded"
            );
            return Ok(Answer::default());
        }
        let body = payload(&self.office.view(), delivery)
            .map_err(|why| Failure::Refused(why.to_string()))?;
        let headers = headers(delivery);
        let sent = self
            .tools
            .outside
            .send(Method::POST, &effect.endpoint, headers, body, TIMEOUT)
            .await;
        let metrics = &self.tools.metrics;
        let waited_ms = self.office.now_ms().saturating_sub(delivery.received_ms);
        let patient = waited_ms < i64::try_from(PATIENCE.as_millis()).unwrap_or(i64::MAX);
        let answer = match sent {
            Err(OutsideError::Impossible(why)) => {
                metrics.forwarded(&effect.name, "impossible");
                return Err(Failure::Refused(why));
            }
            // The plugin knows the delivery by its id if it comes twice.
            Err(OutsideError::Unreachable(why)) => {
                metrics.forwarded(&effect.name, "unreachable");
                return Err(match patient {
                    true => Failure::Outage(why, None),
                    false => Failure::Refused(why),
                });
            }
            Ok(answer) => answer,
        };
        let status = answer.status;
        if status.is_success() {
            metrics.forwarded(&effect.name, "taken");
            return Ok(Answer::default());
        }
        metrics.forwarded(&effect.name, "refused");
        let told = String::from_utf8_lossy(&answer.body);
        let end = told.floor_char_boundary(MAX_ANSWER);
        let why = format!("{}: {status}: {}", effect.endpoint, &told[..end]);
        Err(match status.is_server_error() && patient {
            true => Failure::Outage(why, None),
            false => Failure::Refused(why),
        })
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::Header;

    use super::*;
    use crate::testing::plugins_yaml;

    /// HOOK-034, HOOK-030: what is about an org goes to the org's entries.
    #[test]
    fn hook_034_events_of_an_org_go_to_its_plugins() {
        let config = plugins_yaml(
            "external_plugins: {org: [{name: all}, {name: some, events: [organization]}, {name: needs-rebase}], \
             org/repo: [{name: one}], other: [{name: not}]}",
        )
        .unwrap();
        let to = |org: &str, repo: &str, event: &str| -> Vec<String> {
            let delivery = Delivery {
                org: org.to_owned(),
                repo: repo.to_owned(),
                event: event.to_owned(),
                ..Delivery::default()
            };
            let plans = plans(&config, &delivery, |name| name == "needs-rebase");
            plans.into_iter().map(|plan| plan.plugin).collect()
        };
        assert_eq!(
            to("org", "", "organization"),
            ["external:all", "external:some"]
        );
        assert_eq!(to("org", "", "membership"), ["external:all"]);
        assert_eq!(to("org", "repo", "push"), ["external:all", "external:one"]);
        assert_eq!(to("", "", "ping"), [""; 0]);
    }

    #[test]
    fn hook_031_all_headers_go_along_but_those_of_the_connection() {
        let header = |name: &str, value: &'static str| Header {
            name: name.to_owned(),
            value: value.into(),
        };
        let delivery = Delivery {
            headers: vec![
                header("x-hub-signature-256", "sha256=00"),
                header("x-github-event", "push"),
                header("content-type", "application/json"),
                header("user-agent", "GitHub-Hookshot/1"),
                header("host", "hook.example"),
                header("content-length", "7"),
                header("bad name", "x"),
            ],
            ..Delivery::default()
        };
        let mut sent: Vec<String> = headers(&delivery)
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        sent.sort();
        assert_eq!(
            sent,
            [
                "content-type: application/json",
                "user-agent: ProwHook",
                "x-github-event: push",
                "x-hub-signature-256: sha256=00"
            ]
        );
    }
}
