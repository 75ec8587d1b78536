//! `config`.

mod diff;
mod find;
mod git;
mod show;
mod source;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trireme_api::configs::{MAX_RETIRED_PERCENT, Uploaded};
use trireme_proto::api::{
    ApplyConfigHeader, ApplyConfigResponse, Diagnostic, RetiredConfig, RollbackConfigRequest,
};

pub use diff::DiffArgs;
pub use show::{HistoryArgs, ShowArgs, history};
pub use source::SourceArgs;

use super::{connect, request_id};
use crate::{
    cli::{ConfigCommand, Target},
    exit::{CONFIG, coded},
    output::{Format, Progress, print, print_json},
};

/// `config apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// A directory in which config.yaml, plugins.yaml and the job tree lie in the customary places.
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Why, for the history.
    #[arg(short, long, default_value = "")]
    pub message: String,
    /// Only check, as the cluster would.
    #[arg(long)]
    pub dry_run: bool,
    /// Only if this version is in force: someone else's is not overwritten.
    #[arg(
        long,
        value_name = "VERSION",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub expect: u64,
    #[command(flatten)]
    pub guard: GuardArgs,
    #[command(flatten)]
    pub target: Target,
}

/// How much a version may take away.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Retire contexts and jobs however many they are.
    #[arg(long)]
    pub yes: bool,
    /// Refuse to retire more than this share of the contexts or of the jobs in force, unless --yes is given.
    #[arg(long, value_name = "PERCENT", default_value_t = MAX_RETIRED_PERCENT, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub max_retired: u32,
}

/// `config rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Any version that `config history` lists.
    pub version: u64,
    /// Only check, as the cluster would.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub guard: GuardArgs,
    #[command(flatten)]
    pub target: Target,
}

/// # Errors
/// When no node answers or the configuration is refused.
pub async fn run(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Expand(args) => super::expand::run(&args).await,
        ConfigCommand::Why(args) => super::why::run(&args).await,
        ConfigCommand::History(args) => history(&args).await,
        ConfigCommand::Show(args) => show::show(&args).await,
        ConfigCommand::Diff(args) => diff::run(&args).await,
        ConfigCommand::Rollback(args) => rollback(&args).await,
        ConfigCommand::Apply(args) => apply(&args).await,
    }
}

async fn rollback(args: &RollbackArgs) -> anyhow::Result<()> {
    let request = RollbackConfigRequest {
        version: args.version,
        request_id: request_id(),
        expected_current: 0,
        retire: args.guard.yes,
        max_retired_percent: Some(args.guard.max_retired),
        dry_run: args.dry_run,
    };
    let answer = connect(&args.target)
        .await?
        .config()
        .rollback(request)
        .await?;
    report(
        &args.target,
        &answer.into_inner(),
        args.dry_run,
        "",
        Uploaded::default(),
    )
}

async fn apply(args: &ApplyArgs) -> anyhow::Result<()> {
    let taken = args.source.read(args.dir.as_ref()).await?;
    if let (Some(found), Format::Text) = (&taken.found, args.target.output) {
        eprint!("{found}");
    }
    let header = ApplyConfigHeader {
        message: args.message.clone(),
        request_id: request_id(),
        dry_run: args.dry_run,
        expected_current: args.expect,
        source: taken.source.clone(),
        retire: args.guard.yes,
        max_retired_percent: Some(args.guard.max_retired),
    };
    let client = connect(&args.target).await?;
    let mut progress = Progress::new();
    let answer = client
        .apply_config(header, &taken.files, |uploaded| {
            progress.tell(|| how_far(&uploaded));
        })
        .await;
    progress.end();
    let (answer, uploaded) = answer?;
    report(&args.target, &answer, args.dry_run, &taken.prefix, uploaded)
}

fn how_far(uploaded: &Uploaded) -> String {
    let megabytes = |bytes: u64| format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10);
    if uploaded.files == uploaded.of_files {
        return "checking".to_owned();
    }
    format!(
        "uploading {} of {} files, {} of {} MB",
        uploaded.files,
        uploaded.of_files,
        megabytes(uploaded.bytes),
        megabytes(uploaded.of_bytes)
    )
}

fn report(
    target: &Target,
    answer: &ApplyConfigResponse,
    dry_run: bool,
    prefix: &str,
    uploaded: Uploaded,
) -> anyhow::Result<()> {
    match target.output {
        Format::Json => print_json(&as_json(answer, prefix, uploaded))?,
        Format::Text => print(&as_text(answer, dry_run, prefix))?,
    }
    if answer.accepted {
        return Ok(());
    }
    let guarded = answer.retired.as_ref().is_some_and(|gone| gone.refused);
    Err(coded(
        CONFIG,
        match guarded {
            true => "nothing was changed: say --yes if all of that is meant to go",
            false => "the configuration was refused whole; the version in force stays",
        },
    ))
}

fn as_json(answer: &ApplyConfigResponse, prefix: &str, uploaded: Uploaded) -> Value {
    let retired = |gone: &RetiredConfig| {
        json!({
            "contexts": gone.contexts, "contexts_before": gone.contexts_before,
            "jobs": gone.jobs, "jobs_before": gone.jobs_before,
            "first_contexts": gone.first_contexts, "first_jobs": gone.first_jobs,
            "refused": gone.refused, "max_percent": gone.max_percent,
        })
    };
    json!({
        "accepted": answer.accepted, "version": (answer.version > 0).then_some(answer.version),
        "unchanged": answer.unchanged,
        "presubmits": answer.presubmits, "postsubmits": answer.postsubmits, "periodics": answer.periodics,
        "retired": answer.retired.as_ref().map(retired),
        "uploaded": {"files": uploaded.files, "bytes": uploaded.bytes, "pages": answer.new_pages},
        "diagnostics": answer.diagnostics.iter().map(|found| json!({
            "severity": found.severity, "file": place(found, prefix), "line": found.line, "column": found.column,
            "field": found.field, "message": found.message,
        })).collect::<Vec<_>>(),
    })
}

/// Where it is on this machine.
fn place(found: &Diagnostic, prefix: &str) -> String {
    match found.file.as_str() {
        "" => String::new(),
        file => format!("{prefix}{file}"),
    }
}

fn as_text(answer: &ApplyConfigResponse, dry_run: bool, prefix: &str) -> String {
    let mut text = String::new();
    for found in &answer.diagnostics {
        let field = if found.field.is_empty() {
            String::new()
        } else {
            format!("{}: ", found.field)
        };
        // 0 = not known.
        let position: String = [found.line, found.column]
            .iter()
            .take_while(|number| **number > 0)
            .map(|number| format!(":{number}"))
            .collect();
        let place = match place(found, prefix) {
            file if file.is_empty() => String::new(),
            file => format!("{file}{position}: "),
        };
        text.push_str(&format!(
            "{}: {place}{field}{}\n",
            found.severity, found.message
        ));
    }
    if let Some(gone) = answer.retired.as_ref().filter(|gone| gone.refused) {
        text.push_str(&refusal(gone));
    }
    if answer.accepted {
        let jobs = format!(
            "{} presubmits, {} postsubmits, {} periodics",
            answer.presubmits, answer.postsubmits, answer.periodics
        );
        text.push_str(&match (dry_run, answer.unchanged, answer.version) {
            (_, true, version) => {
                format!("version {version} has the same files and stays in force: {jobs}\n")
            }
            (true, _, _) => format!("good: {jobs}; nothing was changed\n"),
            (false, _, version) => format!("version {version} is in force: {jobs}\n"),
        });
    }
    text
}

fn refusal(gone: &RetiredConfig) -> String {
    let mut text = format!(
        "refused: it would retire {} of {} contexts and {} of {} jobs, and no more than {} % of either unless told to\n",
        gone.contexts, gone.contexts_before, gone.jobs, gone.jobs_before, gone.max_percent
    );
    let lists = [
        ("context", &gone.first_contexts, gone.contexts),
        ("job", &gone.first_jobs, gone.jobs),
    ];
    for (what, first, all) in lists {
        for name in first {
            text.push_str(&format!("  {what} {name}\n"));
        }
        let more = (all as usize).saturating_sub(first.len());
        if more > 0 {
            text.push_str(&format!("  and {more} more {what}s\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_would_go_and_how_much_it_is() {
        let answer = ApplyConfigResponse {
            retired: Some(RetiredConfig {
                contexts: 3,
                contexts_before: 10,
                jobs: 1,
                jobs_before: 12,
                first_contexts: vec![
                    "acme/widget: lint".to_owned(),
                    "acme/widget: unit".to_owned(),
                ],
                first_jobs: vec!["periodic nightly".to_owned()],
                refused: true,
                max_percent: 20,
            }),
            ..ApplyConfigResponse::default()
        };
        insta::assert_snapshot!(as_text(&answer, false, ""), @r"
        refused: it would retire 3 of 10 contexts and 1 of 12 jobs, and no more than 20 % of either unless told to
          context acme/widget: lint
          context acme/widget: unit
          and 1 more contexts
          job periodic nightly
        ");
    }

    #[test]
    fn an_upload_tells_how_far_it_is() {
        let mut uploaded = Uploaded {
            files: 1200,
            of_files: 20_000,
            bytes: 10_240_000,
            of_bytes: 170_000_000,
        };
        insta::assert_snapshot!(how_far(&uploaded), @"uploading 1200 of 20000 files, 10.2 of 170.0 MB");
        uploaded.files = uploaded.of_files;
        insta::assert_snapshot!(how_far(&uploaded), @"checking");
    }
}
