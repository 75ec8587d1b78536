//! Members, leader, lag and agents.

use askama::Template;
use axum::{extract::State, response::Response};
use trireme_api::Load;

use crate::{Deck, html, instant};

struct Member {
    id: u64,
    role: &'static str,
    api: String,
    peer: String,
    matched: String,
    lag: String,
}

struct Agent {
    name: String,
    state: &'static str,
    class: &'static str,
    held: u32,
    capacity: u32,
    clusters: String,
    node: u64,
}

#[derive(Template)]
#[template(path = "cluster.html")]
struct Page {
    page: &'static str,
    revision: u64,
    node: u64,
    leader: u64,
    is_leader: bool,
    alarms: Vec<(String, String)>,
    config_errors: Vec<String>,
    facts: Vec<(&'static str, String)>,
    members: Vec<Member>,
    agents: Vec<Agent>,
}

fn loaded(load: Option<&Load>) -> String {
    load.map_or_else(
        || "not by this node".to_owned(),
        |load| {
            let result = if load.error.is_none() {
                "good"
            } else {
                "failed"
            };
            format!("{result} at {}, {:.1?}", instant(load.at_ms), load.took)
        },
    )
}

pub(crate) async fn page(State(deck): State<Deck>) -> Response {
    let (view, status) = (deck.store.view(), deck.store.status());
    let leader = status.leader.unwrap_or_default();
    let known =
        |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    let office = view.office();
    let config = deck.config.get();
    let loads = [
        ("The version in force elsewhere", &config.parsed),
        ("The watched directory", &config.followed),
    ];
    html(&Page {
        page: "cluster",
        revision: view.revision,
        node: deck.store.node_id(),
        leader,
        is_leader: leader == deck.store.node_id(),
        alarms: view
            .alarms()
            .map(|alarm| (alarm.key.clone(), alarm.message.clone()))
            .collect(),
        config_errors: loads
            .iter()
            .filter_map(|(what, load)| {
                let error = load.as_ref()?.error.as_ref()?;
                Some(format!(
                    "{what} is not taken, the former configuration stays: {error}"
                ))
            })
            .collect(),
        facts: vec![
            ("Cluster", status.cluster_id.clone()),
            (
                "This node",
                format!("{} ({})", deck.store.node_id(), status.role),
            ),
            (
                "Leader",
                if leader == 0 {
                    "none known".to_owned()
                } else {
                    leader.to_string()
                },
            ),
            ("Term", status.term.to_string()),
            (
                "Applied index",
                format!(
                    "{} of {}",
                    view.revision,
                    status.last_log.unwrap_or_default()
                ),
            ),
            (
                "Snapshot index",
                status.snapshot.unwrap_or_default().to_string(),
            ),
            (
                "Office",
                format!(
                    "epoch {} on node {} since {}",
                    office.epoch,
                    office.node_id,
                    instant(office.since_ms)
                ),
            ),
            ("Office changed hands", format!("{} times", office.changes)),
            (
                "Configuration here",
                match (config.version, config.version_sha.trim()) {
                    (0, _) => "none yet".to_owned(),
                    (version, "") => format!("version {version}"),
                    (version, sha) => format!("version {version} ({sha})"),
                },
            ),
            ("Last parsed", loaded(config.parsed.as_ref())),
            ("Watched directory", loaded(config.followed.as_ref())),
        ],
        members: status
            .members
            .iter()
            .map(|member| Member {
                id: member.node.id,
                role: match (member.node.id == leader, member.voter) {
                    (true, _) => "leader",
                    (_, true) => "voter",
                    (_, false) => "learner",
                },
                api: member.node.api_address.clone(),
                peer: member.node.peer_address.clone(),
                matched: known(member.matched),
                lag: known(
                    member
                        .matched
                        .map(|matched| status.last_log.unwrap_or_default().saturating_sub(matched)),
                ),
            })
            .collect(),
        agents: view
            .agents()
            .map(|agent| {
                let (state, class) = match (agent.lost, agent.draining) {
                    (true, _) => ("lost", "lost"),
                    (_, true) => ("draining", "draining"),
                    _ => ("ready", "ready"),
                };
                Agent {
                    name: agent.name.clone(),
                    state,
                    class,
                    held: view.lease_count(&agent.id),
                    capacity: agent.capacity,
                    clusters: agent.clusters.join(", "),
                    node: agent.node_id,
                }
            })
            .collect(),
    })
}
