//! `cluster scrub`: is what lies on the members' disks still what was written?

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};
use tonic::{Code, Status};
use trireme_proto::api::{ClusterStatusRequest, NodeStatus, ScrubNodeRequest, ScrubNodeResponse};

use crate::{
    cli::{Access, Target},
    commands::{connect, member, snapshot::size},
    exit::{CORRUPT, NOT_FOUND, coded},
    output::{Format, Progress, print, print_json, table},
};

/// A member that checks its files says every second how far it is.
const SILENCE: Duration = Duration::from_secs(15);

/// A member and what it found.
struct Row {
    id: u64,
    found: Result<ScrubNodeResponse, Status>,
}

pub(super) async fn run(only: Option<u64>, target: &Target) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let asked = client.address().to_owned();
    let status = client
        .cluster()
        .status(ClusterStatusRequest {})
        .await?
        .into_inner();
    let members = chosen(&status.nodes, only)?;
    let progress = RefCell::new((Progress::new(), BTreeMap::new()));
    let told = |id: u64, so_far: &ScrubNodeResponse| {
        let (progress, read) = &mut *progress.borrow_mut();
        read.insert(id, (so_far.bytes, so_far.of_bytes));
        let bytes = read.values().map(|(bytes, _)| bytes).sum();
        let of_bytes = read.values().map(|(_, of_bytes)| of_bytes).sum();
        progress.tell(|| format!("checking: {} of {}", size(bytes), size(of_bytes)));
    };
    let rows = join_all(members.iter().map(async |node| {
        // The node that answered is asked where it answered.
        let address = match node.id == status.node_id {
            true => &asked,
            false => &node.api_address,
        };
        let found = ask(&target.access, &asked, address, node.id, |so_far| {
            told(node.id, so_far);
        });
        Row {
            id: node.id,
            found: found.await,
        }
    }))
    .await;
    progress.into_inner().0.end();
    // Whoever may not ask hears that, as of every other verb.
    for row in &rows {
        if let Err(why) = &row.found
            && matches!(why.code(), Code::Unauthenticated | Code::PermissionDenied)
        {
            return Err(why.clone().into());
        }
    }
    match target.output {
        Format::Json => print_json(&to_json(&rows))?,
        Format::Text => print(&to_text(&rows))?,
    }
    match verdict(&rows) {
        None => Ok(()),
        Some((code, words)) => Err(coded(code, words)),
    }
}

fn chosen(nodes: &[NodeStatus], only: Option<u64>) -> anyhow::Result<Vec<&NodeStatus>> {
    let fits = |node: &&NodeStatus| only.is_none_or(|id| node.id == id);
    let members: Vec<&NodeStatus> = nodes.iter().filter(fits).collect();
    match only {
        Some(id) if members.is_empty() => {
            let ids: Vec<String> = nodes.iter().map(|node| node.id.to_string()).collect();
            Err(coded(
                NOT_FOUND,
                format!("node {id} is no member; members are {}", ids.join(", ")),
            ))
        }
        _ => Ok(members),
    }
}

/// Has one member check its files, for as long as it goes on saying how far it is.
async fn ask(
    access: &Access,
    asked: &str,
    address: &str,
    id: u64,
    told: impl Fn(&ScrubNodeResponse),
) -> Result<ScrubNodeResponse, Status> {
    let client = member(access, asked, address)
        .await
        .map_err(Status::unavailable)?;
    let silent = |_| Status::unavailable(format!("nothing was heard for {SILENCE:?}"));
    let mut cluster = client.cluster();
    let begun = cluster.scrub_node(ScrubNodeRequest { node_id: id });
    let begun = tokio::time::timeout(SILENCE, begun).await;
    let mut answers = begun.map_err(silent)??.into_inner();
    loop {
        let answer = tokio::time::timeout(SILENCE, answers.message()).await;
        match answer.map_err(silent)?? {
            Some(last) if last.done => return Ok(last),
            Some(so_far) => told(&so_far),
            None => return Err(Status::unavailable("it ended before it had checked all")),
        }
    }
}

/// All that a member found damaged; the archive counts as one file.
fn damage(found: &ScrubNodeResponse) -> impl Iterator<Item = &String> {
    let archive = Some(&found.archive_damaged).filter(|damage| !damage.is_empty());
    found.damaged.iter().chain(archive)
}

fn to_json(rows: &[Row]) -> Value {
    let nodes: Vec<Value> = rows
        .iter()
        .map(|row| match &row.found {
            Ok(found) => json!({
                "id": row.id, "files": found.files, "bytes": found.bytes, "damaged": found.damaged,
                "archive_damaged": (!found.archive_damaged.is_empty()).then_some(&found.archive_damaged),
            }),
            Err(why) => json!({"id": row.id, "error": why.message()}),
        })
        .collect();
    let verdict = verdict(rows).map(|(_, words)| words);
    json!({"nodes": nodes, "problem": verdict})
}

fn to_text(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let (files, read, found) = match &row.found {
                Ok(found) => (
                    found.files.to_string(),
                    size(found.bytes),
                    match damage(found).count() {
                        0 => "nothing damaged".to_owned(),
                        1 => "1 file DAMAGED".to_owned(),
                        count => format!("{count} files DAMAGED"),
                    },
                ),
                Err(_) => ("-".to_owned(), "-".to_owned(), "not checked".to_owned()),
            };
            vec![row.id.to_string(), files, read, found]
        })
        .collect();
    let mut text = table(&["NODE", "FILES", "READ", "FOUND"], &cells);
    for row in rows {
        match &row.found {
            Ok(found) => {
                for damage in damage(found) {
                    text.push_str(&format!("\nDAMAGED node {}: {damage}\n", row.id));
                }
            }
            Err(why) => {
                text.push_str(&format!(
                    "\nnode {} was not checked: {}\n",
                    row.id,
                    why.message()
                ));
            }
        }
    }
    if verdict(rows).is_none() {
        text.push_str(
            "\nsnapshots, closed segments of the log and the archive are as they were written\n",
        );
    }
    text
}

/// What is wrong and what to do next, with the exit code.
fn verdict(rows: &[Row]) -> Option<(u8, String)> {
    let ids = |of: &dyn Fn(&Row) -> bool| -> Vec<u64> {
        let found = rows.iter().filter(|row| of(row));
        found.map(|row| row.id).collect()
    };
    let damaged = ids(&|row| {
        row.found
            .as_ref()
            .is_ok_and(|found| !found.damaged.is_empty())
    });
    let archives = ids(&|row| {
        row.found
            .as_ref()
            .is_ok_and(|found| !found.archive_damaged.is_empty())
    });
    let unchecked = ids(&|row| row.found.is_err());
    let named = |ids: &[u64]| {
        let plural = if ids.len() == 1 { "" } else { "s" };
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        format!("node{plural} {}", ids.join(", "))
    };
    if let Some(first) = damaged.first() {
        let words = format!(
            "{} found damage on disk. What is in memory is good: do not restart it now. A newer snapshot was written; ask again \
             with `trireme cluster scrub --node {first}`: if nothing is damaged then, the file is not needed any more. \
             Otherwise replace the node under a new id, `trireme cluster replace {first} <new>`, and check its disk",
            named(&damaged)
        );
        return Some((CORRUPT, words));
    }
    if !archives.is_empty() {
        let words = format!(
            "{} found finished history damaged on disk: fill the archive anew from a peer as is said above, and check the disk",
            named(&archives)
        );
        return Some((CORRUPT, words));
    }
    match unchecked.is_empty() {
        true => None,
        false => Some((1, format!("{}: not checked", named(&unchecked)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, files: u64, bytes: u64, damaged: &[&str]) -> Row {
        Row {
            id,
            found: Ok(ScrubNodeResponse {
                files,
                of_files: files,
                bytes,
                of_bytes: bytes,
                done: true,
                damaged: damaged.iter().map(|&text| text.to_owned()).collect(),
                ..ScrubNodeResponse::default()
            }),
        }
    }

    #[test]
    fn whole_files_are_counted() {
        let rows = [row(1, 0, 0, &[]), row(2, 7, 90 << 20, &[])];
        assert_eq!(verdict(&rows), None);
        insta::assert_snapshot!(to_text(&rows), @r"
        NODE  FILES  READ     FOUND
        1     0      0 bytes  nothing damaged
        2     7      90 MiB   nothing damaged

        snapshots, closed segments of the log and the archive are as they were written
        ");
        assert_eq!(to_json(&rows)["problem"], Value::Null);
    }

    #[test]
    fn damage_is_shown_with_the_way_out() {
        let lost = Row {
            id: 3,
            found: Err(Status::unavailable("connection refused")),
        };
        let rows = [
            row(1, 7, 90 << 20, &[]),
            row(
                2,
                7,
                30 << 20,
                &["the log is damaged: /data/wal/1.wal at byte 4096: the checksum does not match"],
            ),
            lost,
        ];
        insta::assert_snapshot!(to_text(&rows), @r"
        NODE  FILES  READ    FOUND
        1     7      90 MiB  nothing damaged
        2     7      30 MiB  1 file DAMAGED
        3     -      -       not checked

        DAMAGED node 2: the log is damaged: /data/wal/1.wal at byte 4096: the checksum does not match

        node 3 was not checked: connection refused
        ");
        let (code, words) = verdict(&rows).unwrap();
        assert_eq!(code, CORRUPT);
        insta::assert_snapshot!(words, @"node 2 found damage on disk. What is in memory is good: do not restart it now. A newer snapshot was written; ask again with `trireme cluster scrub --node 2`: if nothing is damaged then, the file is not needed any more. Otherwise replace the node under a new id, `trireme cluster replace 2 <new>`, and check its disk");
        let value = to_json(&rows);
        assert_eq!(value["nodes"][1]["damaged"].as_array().unwrap().len(), 1);
        assert_eq!(value["nodes"][2]["error"], "connection refused");
        assert_eq!(
            verdict(&rows[2..]),
            Some((1, "node 3: not checked".to_owned()))
        );
    }

    #[test]
    fn one_member_can_be_chosen() {
        let nodes = [1, 2].map(|id| NodeStatus {
            id,
            ..NodeStatus::default()
        });
        assert_eq!(chosen(&nodes, None).unwrap().len(), 2);
        assert_eq!(chosen(&nodes, Some(2)).unwrap()[0].id, 2);
        let none = chosen(&nodes, Some(7)).unwrap_err().to_string();
        insta::assert_snapshot!(none, @"node 7 is no member; members are 1, 2");
    }

    #[test]
    fn damaged_history_has_a_way_out_of_its_own() {
        let mut one = row(1, 7, 90 << 20, &[]);
        if let Ok(found) = &mut one.found {
            found.archive_damaged =
                "the archive cannot be read: it rots. Fill a new one".to_owned();
        }
        let rows = [one];
        insta::assert_snapshot!(to_text(&rows), @r"
        NODE  FILES  READ    FOUND
        1     7      90 MiB  1 file DAMAGED

        DAMAGED node 1: the archive cannot be read: it rots. Fill a new one
        ");
        let (code, words) = verdict(&rows).unwrap();
        assert_eq!(code, CORRUPT);
        insta::assert_snapshot!(words, @"node 1 found finished history damaged on disk: fill the archive anew from a peer as is said above, and check the disk");
        assert_eq!(
            to_json(&rows)["nodes"][0]["archive_damaged"],
            "the archive cannot be read: it rots. Fill a new one"
        );
    }
}
