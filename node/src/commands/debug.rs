//! `debug bundle`: what every node says about itself, in one file to look through or to send to somebody.

use std::{fs::OpenOptions, io::Write, path::Path};

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use futures::future::join_all;
use trireme_proto::api::{ClusterStatusRequest, CollectDebugRequest, DebugFile};

use super::{ask_member, connect};
use crate::{
    cli::{DebugCommand, Target},
    exit::coded,
    output::{Format, print, print_json},
};

const README: &str = "\
What Trireme's nodes said about themselves when this was made. Without secrets (replaced by [redacted]) and without
what users sent: no payloads, no configuration, no logs of jobs. Read log.txt before you give it away all the same.

unreachable.txt            members that gave no answer, and why; absent when all did
node-<id>/status.json      role, term, log, snapshot, digest, clock, members as this node sees them
node-<id>/memberships.txt  the last changes of the membership that the node applied since it was started
node-<id>/office.json      in whose name controllers act
node-<id>/alarms.txt       what an operator has to look at
node-<id>/counts.json      how many records of each kind are in memory
node-<id>/metrics.txt      what Prometheus would see
node-<id>/settings.toml    the settings in force, defaults included
node-<id>/host.txt         version, system
node-<id>/log.txt          the last log lines, oldest first
";

/// What one member gave.
struct Answer {
    id: u64,
    address: String,
    files: Result<Vec<DebugFile>, String>,
}

/// # Errors
/// When no node answers or the file cannot be written.
pub async fn run(command: DebugCommand) -> anyhow::Result<()> {
    match command {
        DebugCommand::Bundle { file, target } => bundle(&file, &target).await,
    }
}

async fn bundle(file: &Path, target: &Target) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let asked = client.address().to_owned();
    let status = client
        .cluster()
        .status(ClusterStatusRequest {})
        .await?
        .into_inner();
    let answers = join_all(status.nodes.iter().map(async |node| {
        // The node that answered is asked where it answered.
        let address = if node.id == status.node_id {
            asked.clone()
        } else {
            node.api_address.clone()
        };
        let files = ask_member(&target.access, &asked, &address, async |client| {
            let answer = client
                .cluster()
                .collect_debug(CollectDebugRequest {})
                .await?;
            Ok(answer.into_inner().files)
        });
        Answer {
            id: node.id,
            files: files.await,
            address,
        }
    }))
    .await;
    let path = file.to_owned();
    let answers =
        tokio::task::spawn_blocking(move || write(&path, &answers).map(|()| answers)).await??;
    let of = |answered: bool| -> Vec<&Answer> {
        answers
            .iter()
            .filter(|answer| answer.files.is_ok() == answered)
            .collect()
    };
    match target.output {
        Format::Json => print_json(&serde_json::json!({
            "file": file.display().to_string(),
            "nodes": of(true).iter().map(|answer| answer.id).collect::<Vec<_>>(),
            "unreachable": of(false).iter().map(|answer| answer.id).collect::<Vec<_>>(),
        })),
        Format::Text => {
            let ids = |answers: Vec<&Answer>| {
                let ids: Vec<String> = answers.iter().map(|answer| answer.id.to_string()).collect();
                ids.join(", ")
            };
            let mut text = format!("{}: nodes {}\n", file.display(), ids(of(true)));
            let silent = of(false);
            if !silent.is_empty() {
                text.push_str(&format!("no answer from: {}\n", ids(silent)));
            }
            Ok(print(&text)?)
        }
    }
}

/// Blocks.
fn write(path: &Path, answers: &[Answer]) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let out = OpenOptions::new().write(true).create_new(true).open(path);
    let out = out.map_err(|why| match why.kind() {
        std::io::ErrorKind::AlreadyExists => {
            coded(1, format!("{name} is there already: name another file"))
        }
        _ => anyhow::Error::from(why).context(name.clone()),
    })?;
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    let written = pack(&mut archive, answers).and_then(|()| {
        let file = archive.into_inner()?.finish()?;
        file.sync_all()
    });
    written.with_context(|| name.clone())
}

fn pack(archive: &mut tar::Builder<impl Write>, answers: &[Answer]) -> std::io::Result<()> {
    let made = u64::try_from(super::now_ms() / 1000).unwrap_or(0);
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(made);
        archive.append_data(&mut header, format!("trireme-debug/{name}"), content)
    };
    add("README.txt", README.as_bytes())?;
    let mut unreachable = String::new();
    for answer in answers {
        match &answer.files {
            Ok(files) => {
                for file in files {
                    // A name is the node's word; it makes no directories here.
                    let name = file.name.replace(['/', '\\'], "_");
                    add(&format!("node-{}/{name}", answer.id), &file.content)?;
                }
            }
            Err(why) => {
                unreachable.push_str(&format!(
                    "node {} at {}: {why}\n",
                    answer.id, answer.address
                ));
            }
        }
    }
    if !unreachable.is_empty() {
        add("unreachable.txt", unreachable.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_bundle_names_who_was_silent() {
        let answers = [
            Answer {
                id: 1,
                address: "a".into(),
                files: Ok(vec![DebugFile {
                    name: "../log.txt".into(),
                    content: "line".into(),
                }]),
            },
            Answer {
                id: 2,
                address: "b".into(),
                files: Err("connection refused".into()),
            },
        ];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.tar.gz");
        write(&path, &answers).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((name, text));
        }
        assert_eq!(found[0].0, "trireme-debug/README.txt");
        assert_eq!(
            found[1],
            ("trireme-debug/node-1/.._log.txt".into(), "line".into())
        );
        assert_eq!(
            found[2],
            (
                "trireme-debug/unreachable.txt".into(),
                "node 2 at b: connection refused\n".into()
            )
        );
        let again = write(&path, &answers).unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
    }
}
