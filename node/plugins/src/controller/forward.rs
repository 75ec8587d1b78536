//! Plugins elsewhere: the delivery as it came is sent on to them (HOOK-030 … 034).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use sha2::{Digest as _, Sha256};
use trireme_config::PluginConfig;
use trireme_config::plugins::ExternalPlugin;
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
/// Bytes of the SHA-256 of an endpoint that tell plugins of one name apart.
const ENDPOINT_DIGEST: usize = 6;

/// The plans of the plugins elsewhere that want this delivery, in the order of the configuration. `is_built_in` names
/// those that this process runs itself.
pub(super) fn plans(
    config: &PluginConfig,
    delivery: &Delivery,
    is_built_in: impl Fn(&str) -> bool,
) -> Vec<PlanBody> {
    let (org, repo) = (&delivery.org, &delivery.repo);
    let wanting = config.external_plugins(org, repo, &delivery.event);
    let elsewhere = wanting.filter(|plugin| !is_built_in(&plugin.name));
    let plan = |plugin: &ExternalPlugin| PlanBody {
        plugin: lane_name(config.external_plugins_of(org, repo), plugin),
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

/// The lane of a plugin elsewhere, whatever the event: of its name, and where the repository has that name with another
/// endpoint too, of both. The same endpoint twice is the same plugin, which gets each delivery once.
fn lane_name<'c>(
    mut all: impl Iterator<Item = &'c ExternalPlugin>,
    plugin: &ExternalPlugin,
) -> String {
    let ExternalPlugin { name, endpoint, .. } = plugin;
    if all.all(|other| other.name != *name || other.endpoint == *endpoint) {
        return format!("{PREFIX}{name}");
    }
    // An endpoint may be longer than a name may be, and may hold a password.
    let digest = hex::encode(&Sha256::digest(endpoint)[..ENDPOINT_DIGEST]);
    format!("{PREFIX}{name}@{digest}")
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

    /// HOOK-030: every entry gets the event, those of one name too; a lane is found again by what is configured.
    #[test]
    fn hook_030_plugins_of_one_name_with_two_endpoints_both_get_it() {
        let sent = |lists: &str, event: &str| -> String {
            let config = plugins_yaml(&format!("external_plugins: {lists}")).unwrap();
            let delivery = Delivery {
                org: "org".to_owned(),
                repo: "repo".to_owned(),
                event: event.to_owned(),
                ..Delivery::default()
            };
            let plans = plans(&config, &delivery, |_| false);
            let told = plans.iter().map(|plan| match &plan.effects[0].action {
                Some(Action::Forward(to)) => format!("{} {} {}", plan.plugin, to.name, to.endpoint),
                other => panic!("{other:?}"),
            });
            told.collect::<Vec<_>>().join("\n")
        };
        let both = "{org/repo: [{name: x, endpoint: 'http://a', events: [push]}, {name: z}, {name: x, endpoint: 'http://b'}]}";
        insta::assert_snapshot!(sent(both, "push"), @r"
        external:x@54df484bb282 x http://a
        external:z z http://z
        external:x@513ede8032c1 x http://b
        ");
        // As for the other events.
        insta::assert_snapshot!(sent(both, "issues"), @r"
        external:z z http://z
        external:x@513ede8032c1 x http://b
        ");
        let once = "{org/repo: [{name: x, endpoint: 'http://b'}], else: [{name: x}]}";
        assert_eq!(sent(once, "push"), "external:x x http://b");
        let same = "{org/repo: [{name: x, events: [push]}, {name: x, events: [issues]}]}";
        assert_eq!(sent(same, "push"), "external:x x http://x");
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
