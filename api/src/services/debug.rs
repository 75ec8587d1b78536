//! What a node says about itself for a debug bundle: numbers and names, no payloads.

use std::fmt::Write as _;

use serde_json::{Value, json};
use trireme_proto::api::{ClusterStatusResponse, DebugFile};
use trireme_raft::Store;

use crate::Metrics;

/// Bytes of all files of one node together; what is over is cut, the longest file first.
const MAX_BYTES: usize = 8 << 20;

fn file(name: &str, content: String) -> DebugFile {
    DebugFile {
        name: name.to_owned(),
        content: content.into(),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Blocks for as long as the state's counts take.
pub(super) fn files(
    store: &Store,
    metrics: &Metrics,
    told: &ClusterStatusResponse,
) -> Result<Vec<DebugFile>, std::fmt::Error> {
    let status = store.status();
    let view = store.view();
    let members: Vec<Value> = status
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.node.id, "voter": member.voter, "peer": member.node.peer_address,
                "api": member.node.api_address, "matched": member.matched,
                "millis_since_heard": member.millis_since_heard, "feature_level": member.feature_level,
                "version": member.version,
            })
        })
        .collect();
    let this = json!({
        "cluster": told.cluster_id, "node": told.node_id, "version": told.version,
        "build_level": trireme_state::FEATURE_LEVEL, "feature_level": told.feature_level,
        "role": told.role, "leader": status.leader, "term": told.term, "last_log": told.last_log_index,
        "committed": status.committed, "applied": told.applied_index, "digest": told.digest,
        "snapshot": status.snapshot, "purged": status.purged, "wal_segments": status.wal_segments,
        "millis_since_quorum_ack": status.millis_since_quorum_ack, "clock_skew_ms": status.clock_skew_ms,
        "ring_delay_micros": u64::try_from(status.ring_delay.as_micros()).unwrap_or(u64::MAX),
        "archive_incomplete": status.archive_lost, "recovered": store.is_recovered(), "members": members,
    });
    let mut alarms = String::new();
    for alarm in &told.alarms {
        writeln!(
            alarms,
            "{}\tnode {}\tsince {} ms\t{}",
            alarm.key, alarm.node_id, alarm.raised_ms, alarm.message
        )?;
    }
    let office = view.office();
    let office = json!({
        "epoch": office.epoch, "node": office.node_id, "term": office.term, "since_ms": office.since_ms,
        "changes": office.changes,
    });
    let mut history = String::from("index\tvoters\tmembers\n");
    for (index, membership) in store.memberships() {
        let voters: Vec<String> = membership
            .configs
            .iter()
            .map(|voters| format!("{:?}", voters.node_ids))
            .collect();
        let nodes: Vec<String> = membership
            .nodes
            .iter()
            .map(|node| format!("{}={}", node.id, node.peer_address))
            .collect();
        writeln!(
            history,
            "{index}\t{}\t{}",
            voters.join(" and "),
            nodes.join(" ")
        )?;
    }
    writeln!(history, "node ids ever used: {:?}", store.used_node_ids())?;
    let counts = view.counts();
    let counts = json!({
        "jobs": counts.jobs, "live_jobs": counts.live_jobs, "reports": counts.reports,
        "reports_owed": counts.reports_owed, "deliveries": counts.deliveries,
        "open_deliveries": counts.open_deliveries, "seen_deliveries": counts.seen_deliveries,
        "plans": counts.plans, "pull_requests": counts.pull_requests, "pools": counts.pools,
        "intents": counts.intents, "open_intents": counts.open_intents, "configs": counts.configs,
        "blobs": counts.blobs, "blob_bytes": counts.blob_bytes, "agents": counts.agents,
        "cursors": counts.cursors, "timers": counts.timers, "alarms": counts.alarms,
        "remembered_requests": counts.remembered_requests, "dead_letters": counts.dead_letters,
    });
    Ok(vec![
        file("status.json", pretty(&this)),
        file("office.json", pretty(&office)),
        file("counts.json", pretty(&counts)),
        file("alarms.txt", alarms),
        file("memberships.txt", history),
        file("metrics.txt", metrics.encode(store)?),
    ])
}

/// Cuts what is over the limit, from the longest file's beginning: its end is the newest.
pub(super) fn bounded(mut files: Vec<DebugFile>) -> Vec<DebugFile> {
    loop {
        let total: usize = files.iter().map(|file| file.content.len()).sum();
        let Some(over) = total.checked_sub(MAX_BYTES).filter(|over| *over > 0) else {
            return files;
        };
        let Some(longest) = files.iter_mut().max_by_key(|file| file.content.len()) else {
            return files;
        };
        let cut = over.min(longest.content.len());
        longest.content = longest.content.slice(cut..);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_file_loses_its_beginning() {
        let long = "a".repeat(MAX_BYTES) + "end";
        let files = bounded(vec![file("small", "x".to_owned()), file("long", long)]);
        assert_eq!(files[0].content, "x");
        assert_eq!(files[1].content.len(), MAX_BYTES - 1);
        assert!(files[1].content.ends_with(b"end"));
    }
}
