//! `get deliveries`, `get delivery`, `deliveries redrive`: the inbox, and another try for what was given up.

mod redrive;
#[cfg(test)]
mod sample;
mod show;

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use trireme_api::{client::Client, inbox};
use trireme_proto::{
    api::{GetDeliveryRequest, GetDeliveryResponse, ListDeliveriesRequest},
    state::{Delivery, Plan},
};
use trireme_state::is_dead;

pub use self::{
    redrive::{DeliveriesCommand, run},
    show::{ShowArgs, show},
};
use super::{connect, now_ms};
use crate::{
    cli::Target,
    exit::{USAGE, coded},
    output::{Format, age, print, print_json, table},
};

/// Deliveries on a page that the node is asked for.
const PAGE: u32 = 500;

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
    /// Also those that are in the archive: handled more than a day ago, given up more than a week ago.
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

#[cfg(test)]
mod tests {
    use super::{
        sample::{delivery, plans},
        *,
    };

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
