//! `cluster`.

mod all;
mod compare;
mod loads;
mod scrub;

use serde_json::{Value, json};
use trireme_proto::api::{
    AddNodeRequest, ClusterStatusRequest, ClusterStatusResponse, NodeRequest, NodeStatus,
    ReplaceNodeRequest, StepDownRequest, StepDownResponse,
};

use super::connect;
use crate::{
    cli::{ClusterCommand, Target},
    output::{Format, print, print_json, table},
};

/// # Errors
/// When no node answers or the change is refused; the reason says what to do first. When a check finds something.
pub async fn run(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Status { all: false, target } => status(&target).await,
        ClusterCommand::Status { all: true, target } => all::run(&target).await,
        ClusterCommand::Compare(target) => compare::run(&target).await,
        ClusterCommand::Scrub { node, target } => scrub::run(node, &target).await,
        ClusterCommand::StepDown(target) => {
            let answer = connect(&target)
                .await?
                .cluster()
                .step_down(StepDownRequest {})
                .await?
                .into_inner();
            stepped_down(&target, &answer)
        }
        ClusterCommand::Add {
            node_id,
            peer,
            api,
            target,
        } => {
            let request = AddNodeRequest {
                peer_address: peer,
                api_address: api,
                node_id,
            };
            let answer = connect(&target).await?.cluster().add_node(request).await?;
            members(&target, &answer.into_inner().nodes)
        }
        ClusterCommand::Promote { node_id, target } => {
            let request = NodeRequest { node_id };
            let answer = connect(&target)
                .await?
                .cluster()
                .promote_node(request)
                .await?;
            members(&target, &answer.into_inner().nodes)
        }
        ClusterCommand::Remove { node_id, target } => {
            let request = NodeRequest { node_id };
            let answer = connect(&target)
                .await?
                .cluster()
                .remove_node(request)
                .await?;
            members(&target, &answer.into_inner().nodes)
        }
        ClusterCommand::Replace {
            old_id,
            new_id,
            target,
        } => {
            let request = ReplaceNodeRequest { old_id, new_id };
            let answer = connect(&target)
                .await?
                .cluster()
                .replace_node(request)
                .await?;
            members(&target, &answer.into_inner().nodes)
        }
        ClusterCommand::TransferLeader { node_id, target } => {
            let request = NodeRequest { node_id };
            let answer = connect(&target)
                .await?
                .cluster()
                .transfer_leader(request)
                .await?;
            members(&target, &answer.into_inner().nodes)
        }
    }
}

async fn status(target: &Target) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let status = client
        .cluster()
        .status(ClusterStatusRequest {})
        .await?
        .into_inner();
    match target.output {
        Format::Json => print_json(&status_json(&status)),
        Format::Text => Ok(print(&status_text(&status))?),
    }
}

fn stepped_down(target: &Target, answer: &StepDownResponse) -> anyhow::Result<()> {
    let former = (answer.former_leader_id > 0).then_some(answer.former_leader_id);
    match target.output {
        Format::Json => print_json(&json!({"leader": answer.leader_id, "former_leader": former})),
        Format::Text => {
            let before = former.map_or(String::new(), |former| {
                format!(" in place of node {former}")
            });
            Ok(print(&format!(
                "node {} leads{before}\n",
                answer.leader_id
            ))?)
        }
    }
}

fn members(target: &Target, nodes: &[NodeStatus]) -> anyhow::Result<()> {
    match target.output {
        Format::Json => print_json(&nodes.iter().map(node_json).collect::<Vec<_>>()),
        Format::Text => Ok(print(&node_table(nodes, 0))?),
    }
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "id": node.id, "voter": node.voter, "peer": node.peer_address, "api": node.api_address,
        "matched": node.has_matched.then_some(node.matched_index), "lag": node.has_matched.then_some(node.lag),
    })
}

fn status_json(status: &ClusterStatusResponse) -> Value {
    json!({
        "cluster": status.cluster_id, "node": status.node_id, "role": status.role,
        "leader": (status.leader_id > 0).then_some(status.leader_id), "term": status.term,
        "last_log": status.last_log_index, "applied": status.applied_index,
        "snapshot": status.snapshot_index, "purged": status.purged_index,
        "feature_level": status.feature_level, "version": status.version, "digest": status.digest,
        "office": status.office.map(|office| json!({
            "epoch": office.epoch, "node": office.node_id, "changes": office.changes,
        })),
        "config": status.config.as_ref().map(loads::to_json),
        "alarms": status.alarms.iter().map(|alarm| json!({"key": alarm.key, "message": alarm.message})).collect::<Vec<_>>(),
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
    })
}

fn status_text(status: &ClusterStatusResponse) -> String {
    let leader = match status.leader_id {
        0 => "none known: no writes until a majority of the voters runs".to_owned(),
        id => id.to_string(),
    };
    let mut text = format!(
        "cluster  {}\nasked    node {} ({})\nleader   {leader}\nterm     {}\napplied  {} of {}\n\n{}",
        status.cluster_id,
        status.node_id,
        status.role,
        status.term,
        status.applied_index,
        status.last_log_index,
        node_table(&status.nodes, status.leader_id),
    );
    if let Some(config) = &status.config {
        text.push_str(&loads::to_text(config));
    }
    for alarm in &status.alarms {
        text.push_str(&format!("\nALARM {}: {}\n", alarm.key, alarm.message));
    }
    text
}

fn node_table(nodes: &[NodeStatus], leader: u64) -> String {
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let role = match (node.voter, node.id == leader) {
                (_, true) => "leader",
                (true, _) => "voter",
                (false, _) => "learner",
            };
            let known = |value: u64| {
                if node.has_matched {
                    value.to_string()
                } else {
                    "-".to_owned()
                }
            };
            vec![
                node.id.to_string(),
                role.to_owned(),
                node.api_address.clone(),
                node.peer_address.clone(),
                known(node.matched_index),
                known(node.lag),
            ]
        })
        .collect();
    table(&["NODE", "ROLE", "API", "PEER", "MATCHED", "LAG"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_reads_well_with_and_without_a_leader() {
        let node = |id| NodeStatus {
            id,
            voter: id < 3,
            api_address: format!("127.0.0.1:{id}"),
            peer_address: format!("127.0.0.1:1{id}"),
            has_matched: id == 2,
            matched_index: 90,
            lag: 10,
            ..NodeStatus::default()
        };
        let mut status = ClusterStatusResponse {
            cluster_id: "c".into(),
            node_id: 1,
            role: "leader".into(),
            leader_id: 1,
            term: 3,
            last_log_index: 100,
            applied_index: 99,
            nodes: vec![node(1), node(2), node(3)],
            ..ClusterStatusResponse::default()
        };
        insta::assert_snapshot!(status_text(&status), @r"
        cluster  c
        asked    node 1 (leader)
        leader   1
        term     3
        applied  99 of 100

        NODE  ROLE     API          PEER          MATCHED  LAG
        1     leader   127.0.0.1:1  127.0.0.1:11  -        -
        2     voter    127.0.0.1:2  127.0.0.1:12  90       10
        3     learner  127.0.0.1:3  127.0.0.1:13  -        -
        ");
        status.leader_id = 0;
        assert!(status_text(&status).contains("none known: no writes until a majority"));
    }
}
