//! Versions as they are kept: their history, and what stands in one.

use std::io::{self, Write as _};

use clap::Args;
use serde_json::{Value, json};
use trireme_proto::{
    api::ConfigHistoryRequest,
    state::{ConfigFile, ConfigVersion},
};

use super::super::{connect, now_ms};
use crate::{
    cli::Target,
    exit::{NOT_FOUND, coded},
    output::{Format, age, print, print_json, table},
};

/// `config history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// At most this many, 200 at once.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// Only versions before this one; 0 = the newest.
    #[arg(
        long,
        value_name = "VERSION",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub before: u64,
    #[command(flatten)]
    pub target: Target,
}

/// `config show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Any version that `config history` lists; the one in force without, or 0.
    #[arg(default_value_t = 0, hide_default_value = true)]
    pub version: u64,
    /// A file of it, as listed without: its content is written as it is.
    pub file: Option<String>,
    #[command(flatten)]
    pub target: Target,
}

pub(super) fn version_json(version: &ConfigVersion) -> Value {
    json!({
        "version": version.number, "author": version.author, "message": version.message,
        "created_ms": version.created_ms, "files": version.paged_files, "bytes": version.paged_bytes,
        "presubmits": version.presubmits, "postsubmits": version.postsubmits,
        "periodics": version.periodics,
        "rollback_of": (version.rollback_of > 0).then_some(version.rollback_of),
        "source": (!version.source.is_empty()).then_some(&version.source),
        "root": hex::encode(&version.root),
    })
}

/// # Errors
/// When no node answers.
pub async fn history(args: &HistoryArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let request = ConfigHistoryRequest {
        limit: args.limit,
        before: args.before,
    };
    let answer = client.config().history(request).await?.into_inner();
    // Numbers have no gaps.
    let older = answer
        .versions
        .last()
        .map(|version| version.number)
        .filter(|oldest| *oldest > 1);
    if args.target.output == Format::Json {
        return print_json(&json!({
            "current": answer.current,
            "items": answer.versions.iter().map(version_json).collect::<Vec<_>>(),
            "before": older,
        }));
    }
    let now = now_ms();
    let row = |version: &ConfigVersion| {
        let mark = if version.number == answer.current {
            "*"
        } else {
            ""
        };
        let commit: String = version.source.chars().take(12).collect();
        vec![
            format!("{}{mark}", version.number),
            version.paged_files.to_string(),
            version.presubmits.to_string(),
            version.postsubmits.to_string(),
            version.periodics.to_string(),
            version.author.clone(),
            age(now, version.created_ms),
            commit,
            version.message.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = answer.versions.iter().map(row).collect();
    let mut text = table(
        &[
            "VERSION", "FILES", "PRE", "POST", "PERIODIC", "AUTHOR", "AGE", "COMMIT", "MESSAGE",
        ],
        &rows,
    );
    if let Some(older) = older {
        text.push_str(&format!("older ones: --before {older}\n"));
    }
    Ok(print(&text)?)
}

fn name(file: &ConfigFile) -> String {
    file.blob
        .as_ref()
        .map(|blob| hex::encode(&blob.sha256))
        .unwrap_or_default()
}

/// # Errors
/// When no node answers, or there is no such version or file.
pub(super) async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let (version, files) = client.config_version(args.version).await?;
    let size = |file: &ConfigFile| file.blob.as_ref().map_or(0, |blob| blob.size);
    if let Some(path) = &args.file {
        let found = files.iter().find(|file| file.path == *path);
        let file = found.ok_or_else(|| {
            coded(
                NOT_FOUND,
                format!(
                    "version {} has no file {path:?}; `trireme config show {}` lists them",
                    version.number, version.number
                ),
            )
        })?;
        let blob = file.blob.clone().unwrap_or_default();
        let content = client.config_content(&blob).await?;
        if args.target.output == Format::Json {
            return print_json(&json!({
                "version": version.number, "role": file.role, "path": file.path, "bytes": size(file),
                "sha256": name(file), "content": String::from_utf8_lossy(&content),
            }));
        }
        let mut out = io::stdout().lock();
        return match out.write_all(&content).and_then(|()| out.flush()) {
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        };
    }
    if args.target.output == Format::Json {
        let mut answer = version_json(&version);
        answer["items"] = files
            .iter()
            .map(|file| {
                json!({"role": file.role, "path": file.path, "bytes": size(file), "sha256": name(file)})
            })
            .collect();
        return print_json(&answer);
    }
    let mut text = format!(
        "version {}, {} ago, by {}\n",
        version.number,
        age(now_ms(), version.created_ms),
        version.author
    );
    for (what, value) in [("message", &version.message), ("commit", &version.source)] {
        if !value.is_empty() {
            text.push_str(&format!("{what}: {value}\n"));
        }
    }
    if version.rollback_of > 0 {
        text.push_str(&format!("rollback of: {}\n", version.rollback_of));
    }
    text.push_str(&format!(
        "{} presubmits, {} postsubmits, {} periodics\n\n",
        version.presubmits, version.postsubmits, version.periodics
    ));
    let rows: Vec<Vec<String>> = files
        .iter()
        .map(|file| vec![file.role.clone(), size(file).to_string(), file.path.clone()])
        .collect();
    text.push_str(&table(&["ROLE", "BYTES", "PATH"], &rows));
    Ok(print(&text)?)
}
