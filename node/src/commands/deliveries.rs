//! `get deliveries`, `get delivery`, `deliveries redrive`: the inbox, and another try for what was given up.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use trireme_api::{
    client::Client,
    inbox::{self, Said, Words},
};
use trireme_proto::{
    api::{GetDeliveryRequest, GetDeliveryResponse, ListDeliveriesRequest, RedriveRequest},
    state::{Delivery, DeliveryState, Effect, EffectState, Plan},
};
use trireme_state::{is_dead, redrivable};

use super::{connect, now_ms, request_id};
use crate::{
    cli::Target,
    exit::{NOT_FOUND, USAGE, coded},
    output::{Format, Progress, age, print, print_json, table},
};

/// Deliveries on a page that the node is asked for.
const PAGE: u32 = 500;
/// Dead letters that are revived by one command; it says when there are more.
const MAX_REDRIVEN: usize = 10_000;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those not fully handled.
    #[arg(long, conflicts_with = "archived")]
    pub unhandled: bool,
    /// Only those of which something was given up: `trireme deliveries redrive` has it tried again.
    #[arg(long)]
    pub dead: bool,
    /// Only of this org or repository.
    #[arg(long, value_name = "ORG[/REPO]")]
    pub repo: Option<String>,
    /// Only of this issue or pull request.
    #[arg(long, value_name = "NUMBER", requires = "repo")]
    pub pr: Option<u64>,
    /// Only those that this plugin saw.
    #[arg(long, value_name = "NAME")]
    pub plugin: Option<String>,
    /// Also those that were handled more than a day ago.
    #[arg(long)]
    pub archived: bool,
    /// At most this many.
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// Go on where a list before ended, as its last line says.
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "",
        hide_default_value = true
    )]
    pub after: String,
    #[command(flatten)]
    pub target: Target,
}

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

#[derive(Debug, Subcommand)]
pub enum DeliveriesCommand {
    /// Have tried again what was given up.
    ///
    /// A plugin that failed to decide decides anew; an effect that was refused is sent again as
    /// it was decided. What was left out on purpose (skipped) stays so, and nothing that was done
    /// is done again.
    ///
    ///   trireme deliveries redrive GUID                          all that is dead of one delivery
    ///   trireme deliveries redrive GUID --plugin lgtm --effect 2
    ///   trireme deliveries redrive --all-dead --dry-run          what would be, of all
    #[command(verbatim_doc_comment)]
    Redrive(RedriveArgs),
}

#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// X-GitHub-Delivery, as `trireme get deliveries --dead` shows it.
    #[arg(required_unless_present = "all_dead", conflicts_with = "all_dead")]
    pub guid: Option<String>,
    /// Only of this plugin.
    #[arg(long, value_name = "NAME")]
    pub plugin: Option<String>,
    /// Only this effect, by its number in `trireme get delivery`.
    #[arg(
        long,
        value_name = "N",
        requires = "plugin",
        conflicts_with = "all_dead"
    )]
    pub effect: Option<u32>,
    /// Everything that is dead and not archived.
    #[arg(long)]
    pub all_dead: bool,
    /// Of all, only what is of this org or repository.
    #[arg(long, value_name = "ORG[/REPO]", requires = "all_dead")]
    pub repo: Option<String>,
    /// Say what would be tried again, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub target: Target,
}

fn org_repo(text: Option<&str>) -> anyhow::Result<(String, String)> {
    let text = text.unwrap_or_default();
    let (org, repo) = text.split_once('/').unwrap_or((text, ""));
    if text.contains('/') && (org.is_empty() || repo.is_empty() || repo.contains('/')) {
        return Err(coded(
            USAGE,
            format!("--repo {text}: write it as ORG or ORG/REPO"),
        ));
    }
    Ok((org.to_owned(), repo.to_owned()))
}

/// A page or several, with where the next one begins.
struct Found {
    deliveries: Vec<Delivery>,
    plans: Vec<Arc<Plan>>,
    next: String,
}

/// Reads on until there are so many, or no more.
async fn read(
    client: &Client,
    mut request: ListDeliveriesRequest,
    limit: usize,
) -> anyhow::Result<Found> {
    let mut found = Found {
        deliveries: Vec::new(),
        plans: Vec::new(),
        next: String::new(),
    };
    loop {
        let left = limit - found.deliveries.len();
        request.page_size = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let page = client.deliveries().list_deliveries(request.clone()).await?;
        let page = page.into_inner();
        found.deliveries.extend(page.deliveries);
        found.plans.extend(page.plans.into_iter().map(Arc::new));
        found.next.clone_from(&page.next_page_token);
        if page.next_page_token.is_empty() || found.deliveries.len() >= limit {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// # Errors
/// When no node answers, or the command line is wrong.
pub async fn list(args: ListArgs) -> anyhow::Result<()> {
    let (org, repo) = org_repo(args.repo.as_deref())?;
    if args.limit == 0 {
        return Err(coded(USAGE, "--limit 0: at least 1"));
    }
    if args.pr.is_some() && repo.is_empty() {
        return Err(coded(USAGE, "--pr needs --repo ORG/REPO"));
    }
    let request = ListDeliveriesRequest {
        only_unhandled: args.unhandled,
        only_dead: args.dead,
        org,
        repo,
        number: args.pr.unwrap_or_default(),
        plugin: args.plugin.unwrap_or_default(),
        archived: args.archived,
        page_token: args.after,
        ..ListDeliveriesRequest::default()
    };
    let client = connect(&args.target).await?;
    let found = read(&client, request, args.limit).await?;
    if args.target.output == Format::Json {
        let items: Vec<Value> = found
            .deliveries
            .iter()
            .map(|delivery| {
                let mut told = brief_json(delivery);
                let of = found.plans.iter().filter(|plan| plan.guid == delivery.guid);
                told["plans"] = of.map(|plan| brief_plan_json(plan)).collect();
                told
            })
            .collect();
        return print_json(&json!({ "items": items, "next": found.next }));
    }
    Ok(print(&list_text(&found, now_ms()))?)
}

fn list_text(found: &Found, now: i64) -> String {
    let rows: Vec<Vec<String>> = found
        .deliveries
        .iter()
        .map(|delivery| {
            let plans = found.plans.iter().filter(|plan| plan.guid == delivery.guid);
            let (mut did, mut dead) = (Vec::new(), Vec::new());
            for plan in plans {
                let list = if is_dead(plan) { &mut dead } else { &mut did };
                list.push(plan.plugin.as_str());
            }
            vec![
                delivery.guid.clone(),
                inbox::event(delivery),
                inbox::about(delivery),
                inbox::delivery_word(delivery.state()).to_owned(),
                or_dash(&did.join(",")),
                or_dash(&dead.join(",")),
                age(now, delivery.received_ms),
            ]
        })
        .collect();
    let mut text = table(
        &[
            "GUID",
            "EVENT",
            "ABOUT",
            "STATE",
            "PLANNED BY",
            "DEAD",
            "AGE",
        ],
        &rows,
    );
    if !found.next.is_empty() {
        text.push_str(&format!("older ones: --after {}\n", found.next));
    }
    text
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

fn brief_json(delivery: &Delivery) -> Value {
    json!({
        "guid": delivery.guid, "event": delivery.event, "action": delivery.action,
        "org": delivery.org, "repo": delivery.repo, "number": delivery.number, "ref": delivery.r#ref,
        "sender": delivery.sender, "state": inbox::delivery_word(delivery.state()),
        "received_ms": delivery.received_ms, "handled_ms": delivery.handled_ms, "node": delivery.node_id,
        "plugins": delivery.plugins,
    })
}

fn brief_plan_json(plan: &Plan) -> Value {
    json!({
        "plugin": plan.plugin, "effects": plan.effects.len(), "jobs": plan.jobs, "dead": is_dead(plan),
        "error": plan.error,
    })
}

async fn get(client: &Client, guid: &str) -> anyhow::Result<(Delivery, GetDeliveryResponse)> {
    let request = GetDeliveryRequest {
        guid: guid.to_owned(),
        read: None,
    };
    let mut told = client
        .deliveries()
        .get_delivery(request)
        .await?
        .into_inner();
    let Some(delivery) = told.delivery.take() else {
        anyhow::bail!("the node answered without the delivery");
    };
    Ok((delivery, told))
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

/// One thing to revive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dead {
    guid: String,
    plugin: String,
    ordinal: u32,
    /// For people.
    what: String,
    error: String,
}

fn dead_of(plan: &Plan) -> Vec<Dead> {
    let ordinals = redrivable(plan).into_iter();
    let dead = ordinals.map(|ordinal| {
        let (what, error) = match plan.effects.get(ordinal as usize) {
            Some(effect) if !plan.dead => (inbox::words(effect).what, effect.error.clone()),
            _ => ("decide".to_owned(), plan.error.clone()),
        };
        Dead {
            guid: plan.guid.clone(),
            plugin: plan.plugin.clone(),
            ordinal,
            what,
            error,
        }
    });
    dead.collect()
}

/// # Errors
/// When no node answers, the asker is no operator, or nothing is dead that was named.
pub async fn run(command: DeliveriesCommand) -> anyhow::Result<()> {
    let DeliveriesCommand::Redrive(args) = command;
    redrive(args).await
}

async fn redrive(args: RedriveArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let (dead, more) = match &args.guid {
        Some(guid) => (of_one(&client, &args, guid).await?, false),
        None => of_all(&client, &args).await?,
    };
    let mut progress = Progress::new();
    let mut done = Vec::new();
    if !args.dry_run {
        for (at, one) in dead.iter().enumerate() {
            progress.tell(|| format!("{at} of {}", dead.len()));
            let request = RedriveRequest {
                guid: one.guid.clone(),
                plugin: one.plugin.clone(),
                ordinal: one.ordinal,
                request_id: request_id(),
                ..RedriveRequest::default()
            };
            match client.deliveries().redrive(request).await {
                Ok(_) => done.push(one),
                // Of many, somebody else may have been faster with one.
                Err(why) if args.all_dead && is_gone(&why) => {}
                Err(why) => {
                    let told = format!(
                        "{} of {} were redriven, then delivery {} {}: {}",
                        done.len(),
                        dead.len(),
                        one.guid,
                        one.plugin,
                        why.message()
                    );
                    return Err(anyhow::Error::from(why).context(told));
                }
            }
        }
    } else {
        done.extend(&dead);
    }
    report(&args, &done, more)
}

fn is_gone(why: &tonic::Status) -> bool {
    matches!(
        why.code(),
        tonic::Code::NotFound | tonic::Code::FailedPrecondition | tonic::Code::Aborted
    )
}

fn report(args: &RedriveArgs, done: &[&Dead], more: bool) -> anyhow::Result<()> {
    if args.target.output == Format::Json {
        return print_json(&json!({
            "dry_run": args.dry_run, "more": more,
            "items": done.iter().map(|dead| json!({
                "guid": dead.guid, "plugin": dead.plugin, "effect": dead.ordinal, "what": dead.what, "error": dead.error,
            })).collect::<Vec<_>>(),
        }));
    }
    Ok(print(&report_text(args.dry_run, done, more))?)
}

fn report_text(dry_run: bool, done: &[&Dead], more: bool) -> String {
    if done.is_empty() {
        return "nothing is dead\n".to_owned();
    }
    let rows: Vec<Vec<String>> = done
        .iter()
        .map(|dead| {
            vec![
                dead.guid.clone(),
                dead.plugin.clone(),
                dead.what.clone(),
                dead.error.lines().next().unwrap_or_default().to_owned(),
            ]
        })
        .collect();
    let mut text = table(&["GUID", "PLUGIN", "WHAT", "IT FAILED WITH"], &rows);
    text.push_str(&match (dry_run, done.len()) {
        (true, n) => format!("{n} would be tried again; without --dry-run they are\n"),
        (false, 1) => "1 is tried again: trireme get delivery shows how it goes\n".to_owned(),
        (false, n) => {
            format!("{n} are tried again: trireme get deliveries --unhandled shows how it goes\n")
        }
    });
    if more {
        text.push_str("there are more: say it once more\n");
    }
    text
}

async fn of_one(client: &Client, args: &RedriveArgs, guid: &str) -> anyhow::Result<Vec<Dead>> {
    let (delivery, told) = get(client, guid).await?;
    let wanted = |plugin: &str| args.plugin.as_deref().is_none_or(|name| name == plugin);
    let dead: Vec<Dead> = told
        .plans
        .iter()
        .filter(|plan| wanted(&plan.plugin))
        .flat_map(dead_of)
        .filter(|dead| args.effect.is_none_or(|effect| effect == dead.ordinal))
        .collect();
    if dead.is_empty() || told.archived {
        // The node knows best what to do instead.
        if let (Some(plugin), false) = (&args.plugin, args.dry_run) {
            let request = RedriveRequest {
                guid: guid.to_owned(),
                plugin: plugin.clone(),
                ordinal: args.effect.unwrap_or_default(),
                request_id: request_id(),
                ..RedriveRequest::default()
            };
            client.deliveries().redrive(request).await?;
        }
        let what = match (told.archived, inbox::delivery_word(delivery.state())) {
            (true, _) => {
                "is archived: have the forge send it again, it is then taken anew".to_owned()
            }
            (false, state) => format!(
                "({state}) has nothing dead{}; `trireme get delivery {guid}` shows what each plugin did",
                args.plugin
                    .as_ref()
                    .map_or_else(String::new, |plugin| format!(" of {plugin}"))
            ),
        };
        return Err(coded(NOT_FOUND, format!("delivery {guid} {what}")));
    }
    Ok(dead)
}

/// And whether there are more than are revived at once. Oldest first, as their lanes take them.
async fn of_all(client: &Client, args: &RedriveArgs) -> anyhow::Result<(Vec<Dead>, bool)> {
    let (org, repo) = org_repo(args.repo.as_deref())?;
    let request = ListDeliveriesRequest {
        only_dead: true,
        org,
        repo,
        plugin: args.plugin.clone().unwrap_or_default(),
        ..ListDeliveriesRequest::default()
    };
    let found = read(client, request, MAX_REDRIVEN).await?;
    let wanted = |plan: &&Arc<Plan>| {
        let plugin = args.plugin.as_deref();
        plugin.is_none_or(|name| name == plan.plugin)
    };
    let mut dead = Vec::new();
    for delivery in found.deliveries.iter().rev() {
        let plans = found.plans.iter().filter(|plan| plan.guid == delivery.guid);
        dead.extend(plans.filter(wanted).flat_map(|plan| dead_of(plan)));
    }
    let more = !found.next.is_empty() || dead.len() > MAX_REDRIVEN;
    dead.truncate(MAX_REDRIVEN);
    Ok((dead, more))
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{
        CommentEffect, Condition, EffectOutcome, Header, LabelEffect, Subject, effect::Action,
    };

    use super::*;

    fn delivery() -> Delivery {
        let names = ["wip", "lgtm", "hold", "approve"].map(str::to_owned);
        Delivery {
            guid: "72d3162e".to_owned(),
            event: "issue_comment".to_owned(),
            action: "created".to_owned(),
            org: "acme".to_owned(),
            repo: "widget".to_owned(),
            number: 7,
            sender: "ann".to_owned(),
            received_ms: 1_767_225_600_000,
            handled_ms: 1_767_225_603_000,
            node_id: 2,
            state: DeliveryState::Handled.into(),
            plugins: names.to_vec(),
            settled: names.to_vec(),
            headers: vec![Header {
                name: "x-github-event".to_owned(),
                value: "issue_comment".into(),
            }],
            ..Delivery::default()
        }
    }

    fn plans() -> Vec<Arc<Plan>> {
        let subject = Some(Subject {
            org: "acme".to_owned(),
            repo: "widget".to_owned(),
            number: 7,
        });
        let label = Effect {
            action: Some(Action::AddLabel(LabelEffect {
                subject: subject.clone(),
                label: "lgtm".to_owned(),
            })),
            state: EffectState::Dead.into(),
            attempts: 5,
            error: "422: no".to_owned(),
            ..Effect::default()
        };
        let comment = Effect {
            action: Some(Action::Comment(CommentEffect {
                subject,
                body: "LGTM\n\nit is".to_owned(),
                ..CommentEffect::default()
            })),
            condition: Some(Condition {
                ordinal: 0,
                outcomes: vec![EffectOutcome::Ok.into()],
            }),
            state: EffectState::Skipped.into(),
            error: "effect 0 was refused".to_owned(),
            ..Effect::default()
        };
        let plan = |plugin: &str| Plan {
            guid: "72d3162e".to_owned(),
            plugin: plugin.to_owned(),
            config_version: 3,
            ..Plan::default()
        };
        vec![
            Arc::new(Plan {
                failures: 5,
                error: "404 no such file".to_owned(),
                dead: true,
                ..plan("approve")
            }),
            Arc::new(Plan {
                planned_ms: 1_767_225_601_000,
                effects: vec![label, comment],
                jobs: vec!["0f1e".to_owned()],
                ..plan("lgtm")
            }),
        ]
    }

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
    fn a_list_shows_dead_letters_and_where_it_goes_on() {
        let found = Found {
            deliveries: vec![delivery()],
            plans: plans(),
            next: "12.0".to_owned(),
        };
        insta::assert_snapshot!(list_text(&found, 1_767_225_660_000), @r"
        GUID      EVENT                  ABOUT          STATE    PLANNED BY  DEAD          AGE
        72d3162e  issue_comment.created  acme/widget#7  handled  -           approve,lgtm  60s
        older ones: --after 12.0
        ");
    }

    #[test]
    fn what_is_dead_is_redriven_and_what_was_skipped_is_not() {
        let dead: Vec<Dead> = plans().iter().flat_map(|plan| dead_of(plan)).collect();
        let told: Vec<&Dead> = dead.iter().collect();
        insta::assert_snapshot!(report_text(true, &told, true), @r"
        GUID      PLUGIN   WHAT                             IT FAILED WITH
        72d3162e  approve  decide                           404 no such file
        72d3162e  lgtm     add label lgtm to acme/widget#7  422: no
        2 would be tried again; without --dry-run they are
        there are more: say it once more
        ");
        assert_eq!(report_text(false, &[], false), "nothing is dead\n");
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

    #[test]
    fn a_repository_is_written_in_one_of_two_ways() {
        let pair = |org: &str, repo: &str| (org.to_owned(), repo.to_owned());
        assert_eq!(org_repo(None).unwrap(), pair("", ""));
        assert_eq!(org_repo(Some("acme")).unwrap(), pair("acme", ""));
        assert_eq!(
            org_repo(Some("acme/widget")).unwrap(),
            pair("acme", "widget")
        );
        for wrong in ["acme/", "/widget", "a/b/c"] {
            assert!(org_repo(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
