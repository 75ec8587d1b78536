//! `config`.

use bytes::Bytes;
use serde_json::json;
use trireme_proto::api::{
    ApplyConfigRequest, ApplyConfigResponse, ConfigUpload, RollbackConfigRequest,
};

use super::{connect, files, get, request_id};
use crate::{
    cli::{ConfigCommand, Target},
    configuration::role,
    exit::{CONFIG, coded},
    output::{Format, print, print_json},
};

/// # Errors
/// When no node answers or the configuration is refused.
pub async fn run(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Expand(args) => super::expand::run(&args).await,
        ConfigCommand::Why(args) => super::why::run(&args).await,
        ConfigCommand::History(target) => get::configs(&target).await,
        ConfigCommand::Rollback { version, target } => {
            let request = RollbackConfigRequest {
                version,
                request_id: request_id(),
            };
            let answer = connect(&target).await?.config().rollback(request).await?;
            report(&target, &answer.into_inner(), false)
        }
        ConfigCommand::Apply {
            files,
            message,
            dry_run,
            target,
        } => {
            let request = ApplyConfigRequest {
                files: uploads(&files)?,
                message,
                request_id: request_id(),
                dry_run,
                expected_current: 0,
            };
            let answer = connect(&target).await?.config().apply(request).await?;
            report(&target, &answer.into_inner(), dry_run)
        }
    }
}

/// # Errors
/// When files cannot be read.
pub fn uploads(args: &crate::cli::FileArgs) -> anyhow::Result<Vec<ConfigUpload>> {
    let set = files::read(args).map_err(|found| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        coded(CONFIG, lines.join("\n"))
    })?;
    Ok(set
        .iter()
        .map(|(path, content)| ConfigUpload {
            role: role(&set.layout, path).to_owned(),
            path: path.to_owned(),
            content: Bytes::copy_from_slice(content),
        })
        .collect())
}

fn report(target: &Target, answer: &ApplyConfigResponse, dry_run: bool) -> anyhow::Result<()> {
    if target.output == Format::Json {
        print_json(&json!({
            "accepted": answer.accepted, "version": (answer.version > 0).then_some(answer.version),
            "presubmits": answer.presubmits, "postsubmits": answer.postsubmits, "periodics": answer.periodics,
            "diagnostics": answer.diagnostics.iter().map(|found| json!({
                "severity": found.severity, "file": found.file, "line": found.line, "column": found.column,
                "field": found.field, "message": found.message,
            })).collect::<Vec<_>>(),
        }))?;
    } else {
        let mut text = String::new();
        for found in &answer.diagnostics {
            let field = if found.field.is_empty() {
                String::new()
            } else {
                format!("{}: ", found.field)
            };
            // 0 = not known.
            let place: String = [found.line, found.column]
                .iter()
                .take_while(|number| **number > 0)
                .map(|number| format!(":{number}"))
                .collect();
            text.push_str(&format!(
                "{}: {}{place}: {field}{}\n",
                found.severity, found.file, found.message
            ));
        }
        if answer.accepted {
            let jobs = format!(
                "{} presubmits, {} postsubmits, {} periodics",
                answer.presubmits, answer.postsubmits, answer.periodics
            );
            text.push_str(&match (dry_run, answer.version) {
                (true, _) => format!("good: {jobs}; nothing was changed\n"),
                (false, version) => format!("version {version} is in force: {jobs}\n"),
            });
        }
        print(&text)?;
    }
    if answer.accepted {
        Ok(())
    } else {
        Err(coded(
            CONFIG,
            "the configuration was refused whole; the version in force stays",
        ))
    }
}
