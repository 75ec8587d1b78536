//! Members, leader, lag and agents.

use askama::Template;
use axum::{extract::State, response::Response};

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
    facts: Vec<(&'static str, String)>,
    members: Vec<Member>,
    agents: Vec<Agent>,
}

pub(crate) async fn page(State(deck): State<Deck>) -> Response {
    let (view, status) = (deck.store.view(), deck.store.status());
    let leader = status.leader.unwrap_or_default();
    let known =
        |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    let office = view.office();
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
