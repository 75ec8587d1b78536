//! `cluster status --all`: every member asked at its own door.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::{Value, json};
use trireme_proto::api::{
    ClusterStatusRequest, ClusterStatusResponse, InspectNodeRequest, InspectNodeResponse,
    NodeStatus,
};

use super::loads;
use crate::{
    cli::{Access, Target},
    commands::{ask_member, connect},
    output::{Format, print, print_json, table},
};

/// Nodes answer at slightly different revisions while the cluster writes; this often it is tried to meet them at one.
const ROUNDS: usize = 5;

/// A member and what it said, or why it said nothing.
struct Row {
    node: NodeStatus,
    told: Result<InspectNodeResponse, String>,
}

impl Row {
    fn status(&self) -> Option<&ClusterStatusResponse> {
        self.told.as_ref().ok()?.status.as_ref()
    }
}

/// Whether a node's state is that of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agreement {
    Same,
    Differs,
    /// No other node was met at the same revision.
    Unknown,
}

pub(super) async fn run(target: &Target) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let asked = client.address().to_owned();
    let status = client
        .cluster()
        .status(ClusterStatusRequest {})
        .await?
        .into_inner();
    let mut rows = Vec::new();
    for _ in 0..ROUNDS {
        rows = ask_all(&target.access, &status, &asked).await;
        let mut revisions = rows
            .iter()
            .filter_map(|row| Some(row.status()?.applied_index));
        let first = revisions.next();
        if revisions.all(|revision| Some(revision) == first) {
            break;
        }
    }
    match target.output {
        Format::Json => print_json(&to_json(&status, &rows)),
        Format::Text => Ok(print(&to_text(&status, &rows))?),
    }
}

async fn ask_all(access: &Access, status: &ClusterStatusResponse, asked: &str) -> Vec<Row> {
    let asking = status.nodes.iter().map(async |node| {
        // The node that answered is asked where it answered.
        let address = if node.id == status.node_id {
            asked
        } else {
            &node.api_address
        };
        let told = ask_member(access, asked, address, async |client| {
            let answer = client.cluster().inspect_node(InspectNodeRequest {}).await?;
            Ok(answer.into_inner())
        });
        let told = told.await.and_then(|told| {
            let found = told.status.as_ref().map_or(0, |status| status.node_id);
            if found == node.id {
                Ok(told)
            } else {
                Err(format!("node {found} answers there"))
            }
        });
        Row {
            node: node.clone(),
            told,
        }
    });
    join_all(asking).await
}

/// The leader that most of those that answer name.
fn leader(rows: &[Row]) -> Option<u64> {
    let mut named: BTreeMap<u64, usize> = BTreeMap::new();
    for leader in rows.iter().filter_map(|row| Some(row.status()?.leader_id)) {
        *named.entry(leader).or_default() += 1;
    }
    named.remove(&0);
    named
        .into_iter()
        .max_by_key(|(_, times)| *times)
        .map(|(leader, _)| leader)
}

fn last_log(rows: &[Row]) -> u64 {
    let last = rows
        .iter()
        .filter_map(|row| Some(row.status()?.last_log_index));
    last.max().unwrap_or(0)
}

fn agreement(rows: &[Row], row: &Row) -> Agreement {
    let Some(status) = row.status() else {
        return Agreement::Unknown;
    };
    let mut peers = rows
        .iter()
        .filter(|other| other.node.id != row.node.id)
        .filter_map(Row::status)
        .filter(|other| other.applied_index == status.applied_index)
        .peekable();
    if peers.peek().is_none() {
        Agreement::Unknown
    } else if peers.all(|other| other.digest == status.digest) {
        Agreement::Same
    } else {
        Agreement::Differs
    }
}

fn to_json(asked: &ClusterStatusResponse, rows: &[Row]) -> Value {
    let last = last_log(rows);
    let nodes: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut value = json!({
                "id": row.node.id, "voter": row.node.voter, "peer": row.node.peer_address,
                "api": row.node.api_address, "reachable": row.told.is_ok(),
            });
            match (&row.told, row.status()) {
                (Ok(told), Some(status)) => {
                    value["role"] = status.role.as_str().into();
                    value["version"] = status.version.as_str().into();
                    value["build_level"] = told.build_level.into();
                    value["feature_level"] = status.feature_level.into();
                    value["leader"] = json!((status.leader_id > 0).then_some(status.leader_id));
                    value["term"] = status.term.into();
                    value["applied"] = status.applied_index.into();
                    value["lag"] = last.saturating_sub(status.applied_index).into();
                    value["snapshot"] = status.snapshot_index.into();
                    value["digest"] = status.digest.as_str().into();
                    value["state"] = match agreement(rows, row) {
                        Agreement::Same => "same".into(),
                        Agreement::Differs => "differs".into(),
                        Agreement::Unknown => Value::Null,
                    };
                    value["clock_skew_ms"] =
                        json!(told.has_clock_skew.then_some(told.clock_skew_ms));
                    value["archive_incomplete"] = json!(
                        (!told.archive_incomplete.is_empty()).then_some(&told.archive_incomplete)
                    );
                    value["ring_delay_micros"] = told.ring_delay_micros.into();
                    value["wal_segments"] = told.wal_segments.into();
                    value["config"] = json!(status.config.as_ref().map(loads::to_json));
                }
                (told, _) => {
                    value["error"] = json!(told.as_ref().err());
                }
            }
            value
        })
        .collect();
    json!({
        "cluster": asked.cluster_id, "leader": leader(rows), "last_log": last, "nodes": nodes,
        "alarms": asked.alarms.iter().map(|alarm| json!({"key": alarm.key, "message": alarm.message})).collect::<Vec<_>>(),
    })
}

fn to_text(asked: &ClusterStatusResponse, rows: &[Row]) -> String {
    let last = last_log(rows);
    let leader = leader(rows);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let id = row.node.id.to_string();
            let api = row.node.api_address.clone();
            let (Ok(told), Some(status)) = (&row.told, row.status()) else {
                let mut cells = vec![id, "no answer".to_owned()];
                cells.extend(std::iter::repeat_n("-".to_owned(), 7));
                cells.push(api);
                return cells;
            };
            let clock = match told.has_clock_skew {
                true => format!("{:+} ms", told.clock_skew_ms),
                false => "-".to_owned(),
            };
            let archive = match told.archive_incomplete.is_empty() {
                true => "complete",
                false => "INCOMPLETE",
            };
            let state = match agreement(rows, row) {
                Agreement::Same => "same",
                Agreement::Differs => "DIFFERS",
                Agreement::Unknown => "-",
            };
            vec![
                id,
                status.role.clone(),
                format!("{} (level {})", status.version, told.build_level),
                status.applied_index.to_string(),
                last.saturating_sub(status.applied_index).to_string(),
                status.snapshot_index.to_string(),
                state.to_owned(),
                clock,
                archive.to_owned(),
                api,
            ]
        })
        .collect();
    let head = [
        "NODE", "ROLE", "VERSION", "APPLIED", "LAG", "SNAPSHOT", "STATE", "CLOCK", "ARCHIVE", "API",
    ];
    let leader = leader.map_or_else(
        || "none known: no writes until a majority of the voters runs".to_owned(),
        |leader| leader.to_string(),
    );
    let mut text = format!(
        "cluster  {}\nleader   {leader}\nlevel    {}\n\n{}",
        asked.cluster_id,
        asked.feature_level,
        table(&head, &cells)
    );
    let mut caution = |line: String| text.push_str(&format!("\n{line}\n"));
    for row in rows {
        match &row.told {
            Err(why) => caution(format!("node {} gave no answer: {why}", row.node.id)),
            Ok(told) if !told.archive_incomplete.is_empty() => caution(format!(
                "node {}'s archive is incomplete: {}; it is filled from a peer",
                row.node.id, told.archive_incomplete
            )),
            Ok(_) => {}
        }
        let config = row.status().and_then(|status| status.config.as_ref());
        for error in config.into_iter().flat_map(loads::errors) {
            caution(format!("node {}: {error}", row.node.id));
        }
    }
    if rows
        .iter()
        .any(|row| agreement(rows, row) == Agreement::Differs)
    {
        caution(
            "CAUTION nodes hold different states at one revision: save a debug bundle, then replace the one that differs"
                .to_owned(),
        );
    }
    for alarm in &asked.alarms {
        caution(format!("ALARM {}: {}", alarm.key, alarm.message));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, applied: u64, digest: &str) -> Row {
        Row {
            node: NodeStatus {
                id,
                voter: true,
                api_address: format!("10.0.0.{id}:8888"),
                ..NodeStatus::default()
            },
            told: Ok(InspectNodeResponse {
                status: Some(ClusterStatusResponse {
                    node_id: id,
                    role: if id == 1 { "leader" } else { "follower" }.into(),
                    leader_id: 1,
                    version: "0.1.0".into(),
                    applied_index: applied,
                    last_log_index: applied,
                    digest: digest.into(),
                    ..ClusterStatusResponse::default()
                }),
                has_clock_skew: id != 2,
                clock_skew_ms: 3 - i64::try_from(id).unwrap() * 2,
                build_level: 1,
                ..InspectNodeResponse::default()
            }),
        }
    }

    #[test]
    fn every_member_has_a_row() {
        let asked = ClusterStatusResponse {
            cluster_id: "c".into(),
            feature_level: 1,
            ..ClusterStatusResponse::default()
        };
        let mut lost = row(4, 0, "");
        lost.told = Err("connection refused".into());
        let rows = [row(1, 20, "a"), row(2, 20, "a"), row(3, 18, "b"), lost];
        insta::assert_snapshot!(to_text(&asked, &rows), @r"
        cluster  c
        leader   1
        level    1

        NODE  ROLE       VERSION          APPLIED  LAG  SNAPSHOT  STATE  CLOCK  ARCHIVE   API
        1     leader     0.1.0 (level 1)  20       0    0         same   +1 ms  complete  10.0.0.1:8888
        2     follower   0.1.0 (level 1)  20       0    0         same   -      complete  10.0.0.2:8888
        3     follower   0.1.0 (level 1)  18       2    0         -      -3 ms  complete  10.0.0.3:8888
        4     no answer  -                -        -    -         -      -      -         10.0.0.4:8888

        node 4 gave no answer: connection refused
        ");
        let value = to_json(&asked, &rows);
        assert_eq!(value["nodes"][0]["state"], "same");
        assert_eq!(value["nodes"][2]["state"], Value::Null);
        assert_eq!(value["nodes"][3]["reachable"], false);
    }

    #[test]
    fn unequal_states_at_one_revision_are_pointed_out() {
        let rows = [row(1, 20, "a"), row(2, 20, "b")];
        let text = to_text(&ClusterStatusResponse::default(), &rows);
        assert!(text.contains("DIFFERS"), "{text}");
        assert!(
            text.contains("CAUTION nodes hold different states"),
            "{text}"
        );
    }
}
