//! One delivery whole: what each plugin did about it and why not, and its payload.

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use trireme_api::inbox::{self, Said, Words};
use trireme_proto::state::{Delivery, DeliveryState, Effect, EffectState, Plan};

use super::{brief_json, get};
use crate::{
    cli::Target,
    commands::{connect, now_ms},
    exit::{NOT_FOUND, coded},
    output::{Format, age, print, print_json},
};

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// X-GitHub-Delivery, as `trireme get deliveries` shows it.
    pub guid: String,
    /// Print the payload alone, as the forge sent it.
    #[arg(long)]
    pub payload: bool,
    #[command(flatten)]
    pub target: Target,
}
/// # Errors
/// When no node answers or there is no such delivery.
pub async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let (delivery, told) = get(&client, &args.guid).await?;
    if args.payload {
        if told.payload_gone {
            return Err(coded(
                NOT_FOUND,
                format!("delivery {}: its payload was not kept", args.guid),
            ));
        }
        return Ok(print(&format!("{}\n", pretty(&told.payload)))?);
    }
    let plans: Vec<Arc<Plan>> = told.plans.into_iter().map(Arc::new).collect();
    let payload = (!told.payload_gone).then_some(told.payload);
    match args.target.output {
        Format::Json => print_json(&whole_json(
            &delivery,
            &plans,
            payload.as_deref(),
            told.archived,
        )),
        Format::Text => Ok(print(&whole_text(
            &delivery,
            &plans,
            payload.as_deref(),
            told.archived,
            now_ms(),
        ))?),
    }
}

/// JSON with line breaks; anything else as it is.
fn pretty(payload: &[u8]) -> String {
    let parsed: Result<Value, _> = serde_json::from_slice(payload);
    parsed
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| String::from_utf8_lossy(payload).into_owned())
}

fn instant(ms: i64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(ms).ok()?;
    (ms > 0).then(|| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn whole_json(
    delivery: &Delivery,
    plans: &[Arc<Plan>],
    payload: Option<&[u8]>,
    archived: bool,
) -> Value {
    let mut told = brief_json(delivery);
    let headers = delivery.headers.iter().map(
        |header| json!({ "name": header.name, "value": String::from_utf8_lossy(&header.value) }),
    );
    told["headers"] = headers.collect();
    told["archived"] = archived.into();
    told["plugins"] = inbox::said(delivery, plans)
        .into_iter()
        .map(|(plugin, said)| said_json(&plugin, &said))
        .collect();
    told["payload"] = match payload {
        None => Value::Null,
        Some(payload) => serde_json::from_slice(payload)
            .unwrap_or_else(|_| String::from_utf8_lossy(payload).into()),
    };
    told
}

fn said_json(plugin: &str, said: &Said) -> Value {
    match said {
        Said::Nothing => json!({ "plugin": plugin, "said": "nothing to do" }),
        Said::Waits { failures, error } => {
            json!({ "plugin": plugin, "said": "waits", "failures": failures, "error": error })
        }
        Said::GivenUp { failures, error } => {
            json!({ "plugin": plugin, "said": "given up", "failures": failures, "error": error })
        }
        Said::Planned(plan) => json!({
            "plugin": plugin, "said": "planned", "planned_ms": plan.planned_ms,
            "config_version": plan.config_version, "failures": plan.failures, "head_sha": plan.head_sha,
            "jobs": plan.jobs, "aborted": plan.aborted,
            "effects": (0_u32..).zip(&plan.effects).map(|(n, effect)| effect_json(n, effect)).collect::<Vec<_>>(),
        }),
    }
}

fn effect_json(ordinal: u32, effect: &Effect) -> Value {
    let Words { what, text } = inbox::words(effect);
    json!({
        "effect": ordinal, "what": what, "text": text, "state": inbox::effect_word(effect.state()),
        "attempts": effect.attempts, "started_ms": effect.started_ms, "error": effect.error,
        "outcome": inbox::outcome_words(effect.outcome()), "result": effect.result,
        "condition": effect.condition.as_ref().map(|condition| json!({
            "effect": condition.ordinal,
            "outcomes": condition.outcomes().map(outcome_condition).collect::<Vec<_>>(),
        })),
    })
}

fn outcome_condition(outcome: trireme_proto::state::EffectOutcome) -> &'static str {
    match inbox::outcome_words(outcome) {
        "" => "done",
        word => word,
    }
}

fn whole_text(
    delivery: &Delivery,
    plans: &[Arc<Plan>],
    payload: Option<&[u8]>,
    archived: bool,
    now: i64,
) -> String {
    let mut state = inbox::delivery_word(delivery.state()).to_owned();
    if let Some(handled) = instant(delivery.handled_ms) {
        state.push_str(&format!(" at {handled}"));
    }
    if archived {
        state.push_str(", archived");
    }
    let mut text = String::new();
    for (what, told) in [
        ("guid", delivery.guid.clone()),
        ("event", inbox::event(delivery)),
        ("about", inbox::about(delivery)),
        ("sender", delivery.sender.clone()),
        (
            "received",
            format!(
                "{} ago, by node {}",
                age(now, delivery.received_ms),
                delivery.node_id
            ),
        ),
        ("state", state),
    ] {
        text.push_str(format!("{what:<9} {told}").trim_end());
        text.push('\n');
    }
    text.push('\n');
    let said = inbox::said(delivery, plans);
    if said.is_empty() {
        text.push_str(match delivery.state() {
            DeliveryState::Received => "Its plugins are not looked up yet.\n",
            _ => "No plugin is enabled for it.\n",
        });
    }
    for (plugin, said) in &said {
        text.push_str(&said_text(&delivery.guid, plugin, said, archived));
    }
    text.push_str("\nheaders\n");
    for header in &delivery.headers {
        let value = String::from_utf8_lossy(&header.value);
        text.push_str(&format!("  {}: {value}\n", header.name));
    }
    if delivery.headers.is_empty() {
        text.push_str("  none were kept\n");
    }
    text.push_str("\npayload\n");
    match payload {
        None => text.push_str("  was not kept\n"),
        Some(payload) => {
            for line in pretty(payload).lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
    }
    text
}

fn said_text(guid: &str, plugin: &str, said: &Said, archived: bool) -> String {
    let again = |more: &str| match archived {
        true => String::new(),
        false => {
            format!("    try again: trireme deliveries redrive {guid} --plugin {plugin}{more}\n")
        }
    };
    match said {
        Said::Nothing => format!("{plugin}: nothing to do\n"),
        Said::Waits { failures: 0, .. } => format!("{plugin}: has not decided yet\n"),
        Said::Waits { failures, error } => {
            format!("{plugin}: failed to decide {failures} times and tries again: {error}\n")
        }
        Said::GivenUp { failures, error } => format!(
            "{plugin}: GIVEN UP after {failures} failures to decide: {error}\n{}",
            again("")
        ),
        Said::Planned(plan) => {
            let mut text = format!(
                "{plugin}: decided with configuration {}",
                plan.config_version
            );
            if let Some(at) = instant(plan.planned_ms) {
                text.push_str(&format!(" at {at}"));
            }
            text.push('\n');
            for (n, effect) in (0_u32..).zip(&plan.effects) {
                text.push_str(&effect_text(n, effect));
                if effect.state() == EffectState::Dead {
                    text.push_str(&again(&format!(" --effect {n}")));
                }
            }
            for job in &plan.jobs {
                text.push_str(&format!("  run    {job}\n"));
            }
            for job in &plan.aborted {
                text.push_str(&format!("  abort  {job}\n"));
            }
            text
        }
    }
}

fn effect_text(n: u32, effect: &Effect) -> String {
    let Words { what, text: body } = inbox::words(effect);
    let mut state = inbox::effect_word(effect.state()).to_owned();
    let outcome = inbox::outcome_words(effect.outcome());
    if !outcome.is_empty() {
        state = format!("{state}, {outcome}");
    }
    if effect.attempts > 1 {
        state.push_str(&format!(" after {} tries", effect.attempts));
    }
    let mut text = format!("  {n:>2}  {state}: {what}\n");
    if let Some(condition) = &effect.condition {
        let of: Vec<&str> = condition.outcomes().map(outcome_condition).collect();
        let (other, of) = (condition.ordinal, of.join(" or "));
        text.push_str(&format!("      only if effect {other} is {of}\n"));
    }
    for (name, told) in [("error", &effect.error), ("result", &effect.result)] {
        if !told.is_empty() {
            text.push_str(&format!("      {name}: {told}\n"));
        }
    }
    for line in body.lines() {
        text.push_str(format!("      > {line}").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{delivery, plans},
        *,
    };

    #[test]
    fn a_delivery_shows_what_each_plugin_did_and_why_not() {
        let told = whole_text(
            &delivery(),
            &plans(),
            Some(br#"{"action":"created"}"#),
            false,
            1_767_225_660_000,
        );
        insta::assert_snapshot!(told, @r#"
        guid      72d3162e
        event     issue_comment.created
        about     acme/widget#7
        sender    ann
        received  60s ago, by node 2
        state     handled at 2026-01-01T00:00:03Z

        wip: nothing to do
        lgtm: decided with configuration 3 at 2026-01-01T00:00:01Z
           0  dead after 5 tries: add label lgtm to acme/widget#7
              error: 422: no
            try again: trireme deliveries redrive 72d3162e --plugin lgtm --effect 0
           1  skipped: comment on acme/widget#7
              only if effect 0 is done
              error: effect 0 was refused
              > LGTM
              >
              > it is
          run    0f1e
        hold: nothing to do
        approve: GIVEN UP after 5 failures to decide: 404 no such file
            try again: trireme deliveries redrive 72d3162e --plugin approve

        headers
          x-github-event: issue_comment

        payload
          {
            "action": "created"
          }
        "#);
        let archived = whole_text(&delivery(), &plans(), None, true, 1_767_225_660_000);
        assert!(archived.contains("handled at 2026-01-01T00:00:03Z, archived"));
        assert!(archived.contains("was not kept") && !archived.contains("try again"));
    }

    #[test]
    fn json_has_all_of_it() {
        let told = whole_json(&delivery(), &plans(), Some(b"no json"), false);
        assert_eq!(told["payload"], "no json");
        assert_eq!(
            told["plugins"][1]["effects"][1]["condition"]["outcomes"][0],
            "done"
        );
        assert_eq!(told["plugins"][3]["said"], "given up");
        assert_eq!(told["headers"][0]["name"], "x-github-event");
    }
}
