//! What happened, seen from outside: by those who watched, by the forge, by those who asked in the end.

use std::{fs, io, io::Write as _, path::Path};

use prost::Message as _;
use serde_json::json;
use trireme_proto::state::{ChangeBatch, Delivery, Job, MergeIntent, Plan, change::Record};

use crate::registers::{self, Asked};

/// One follower's view of the changes, through whichever nodes it was connected to.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    pub name: String,
    /// In the order they came, without payloads of deliveries and ProwJobs.
    pub batches: Vec<ChangeBatch>,
    /// Why streams ended, and where.
    pub breaks: Vec<String>,
}

/// One attempt to bring a webhook home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub guid: String,
    pub event: String,
    /// 0, 502 or 504 when there was no answer.
    pub status: u16,
    pub redelivery: bool,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A merge that took effect on the forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub number: u64,
    pub head_sha: String,
    pub commit: String,
}

/// A node's digest of its state at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestAt {
    pub node: u64,
    pub revision: u64,
    pub digest: String,
}

/// Linearizable reads after everything had come to rest.
#[derive(Debug, Clone, Default)]
pub struct Last {
    pub jobs: Vec<Job>,
    pub deliveries: Vec<Delivery>,
    pub plans: Vec<Plan>,
    pub intents: Vec<MergeIntent>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// All begin after revision 1, which is the first membership.
    pub watched: Vec<Watched>,
    pub sent: Vec<Sent>,
    pub merged: Vec<Merged>,
    /// Merge calls that the forge got, whatever became of them.
    pub merge_calls: u64,
    pub last: Last,
    pub digests: Vec<DigestAt>,
    /// What clients of registers asked, in the order in which it ended.
    pub asked: Vec<Asked>,
    /// Nodes that should be members in the end.
    pub nodes: Vec<u64>,
}

impl History {
    /// Every change that the first follower saw, with its revision.
    pub fn changes(&self) -> impl Iterator<Item = (u64, &Record, bool)> {
        self.watched.first().into_iter().flat_map(|watched| {
            watched.batches.iter().flat_map(|batch| {
                batch.changes.iter().filter_map(|change| {
                    let record = change.record.as_ref()?;
                    Some((batch.revision, record, change.removed))
                })
            })
        })
    }

    /// GUIDs that somebody acknowledged, each once.
    #[must_use]
    pub fn acknowledged(&self) -> std::collections::BTreeSet<&str> {
        let sent = self.sent.iter().filter(|sent| sent.status == 200);
        sent.map(|sent| sent.guid.as_str()).collect()
    }

    /// Keeps it in a directory: `watch-<follower>.jsonl` to read and `watch-<follower>.pb` (length-delimited
    /// `ChangeBatch`es) to work with, `forge.jsonl`, `digests.jsonl`, `operations.jsonl`, `last.txt`.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn keep(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        for watched in &self.watched {
            let path = |extension| directory.join(format!("watch-{}.{extension}", watched.name));
            let mut lines = io::BufWriter::new(fs::File::create(path("jsonl"))?);
            let mut bytes = Vec::new();
            for batch in &watched.batches {
                let changes: Vec<String> = batch
                    .changes
                    .iter()
                    .map(|change| {
                        let verb = if change.removed { "removed " } else { "" };
                        format!("{verb}{:?}", change.record)
                    })
                    .collect();
                let line = json!({
                    "revision": batch.revision,
                    "stamp_ms": batch.stamp_ms,
                    "changes": changes,
                });
                writeln!(lines, "{line}")?;
                batch
                    .encode_length_delimited(&mut bytes)
                    .map_err(io::Error::other)?;
            }
            for reason in &watched.breaks {
                writeln!(lines, "{}", json!({ "break": reason }))?;
            }
            lines.flush()?;
            fs::write(path("pb"), bytes)?;
        }
        let mut forge = io::BufWriter::new(fs::File::create(directory.join("forge.jsonl"))?);
        for sent in &self.sent {
            let line = json!({
                "webhook": sent.guid,
                "event": sent.event,
                "status": sent.status,
                "redelivery": sent.redelivery,
                "at_ms": sent.at_ms,
            });
            writeln!(forge, "{line}")?;
        }
        for merged in &self.merged {
            let line = json!({
                "merged": merged.number,
                "head": merged.head_sha,
                "commit": merged.commit,
            });
            writeln!(forge, "{line}")?;
        }
        forge.flush()?;
        let operations = fs::File::create(directory.join("operations.jsonl"))?;
        registers::keep(&self.asked, io::BufWriter::new(operations))?;
        let mut digests = String::new();
        for at in &self.digests {
            let line = json!({ "node": at.node, "revision": at.revision, "digest": at.digest });
            digests.push_str(&format!("{line}\n"));
        }
        fs::write(directory.join("digests.jsonl"), digests)?;
        fs::write(directory.join("last.txt"), format!("{:#?}\n", self.last))
    }
}

/// Without what is large and never judged.
pub(crate) fn strip(batch: &mut ChangeBatch) {
    for change in &mut batch.changes {
        match &mut change.record {
            Some(Record::Job(job)) => job.prowjob.clear(),
            Some(Record::Delivery(delivery)) => delivery.payload_zstd.clear(),
            _ => {}
        }
    }
}
