//! Another try for what was given up.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use trireme_api::{client::Client, inbox};
use trireme_proto::{
    api::{ListDeliveriesRequest, RedriveRequest},
    state::Plan,
};
use trireme_state::redrivable;

use super::{get, org_repo, read};
use crate::{
    cli::Target,
    commands::{connect, request_id},
    exit::{NOT_FOUND, coded},
    output::{Format, Progress, print, print_json, table},
};

/// Dead letters that are revived by one command; it says when there are more.
const MAX_REDRIVEN: usize = 10_000;

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
    use super::{super::sample::plans, *};

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
}
