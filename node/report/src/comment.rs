//! The comment with a pull request's failed tests: what is read from the bot's former ones, and what becomes of them.

use std::collections::BTreeSet;

use trireme_forge::IssueComment;
use trireme_prowjob::{ProwJob, ProwJobState, ProwJobType, labels};

/// In every such comment; how they are found again.
pub const MARKER: &str = "<!-- test report -->";

const ABOUT_THIS_BOT: &str = "Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository. I understand the commands that are listed [here](https://go.k8s.io/bot-commands).";

const COLUMNS: &str = " | ";

/// What to do so that the comments show the new results. Repeating it is harmless once it has been done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommentPlan {
    pub write: Option<Write>,
    /// Ids of comments that `write` replaces.
    pub delete: Vec<u64>,
}

/// The one comment that remains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Create(String),
    Edit { id: u64, body: String },
}

/// Brings the bot's comments on a pull request up to date with `jobs`, all complete and about that pull request,
/// oldest first, each context once (CRI-013, CRI-014, CRI-021).
///
/// Results of other contexts are kept from the comments; a new failure is told in a new comment, because an edit
/// notifies nobody. `template` gives the configured text below the table. `must_create` comments even when everything
/// has passed, unless something was aborted.
///
/// # Errors
/// What `template` fails with.
pub fn plan<E>(
    jobs: &[&ProwJob],
    comments: &[IssueComment],
    is_bot: impl Fn(&str) -> bool,
    template: impl FnOnce(&ProwJob) -> Result<Option<String>, E>,
    must_create: bool,
) -> Result<CommentPlan, E> {
    let Some(first) = jobs.first() else {
        return Ok(CommentPlan::default());
    };
    let mut ours: Vec<&IssueComment> = comments
        .iter()
        .filter(|comment| is_bot(&comment.author.login) && comment.body.contains(MARKER))
        .collect();
    let failed = jobs
        .iter()
        .filter(|job| job.status.state == ProwJobState::Failure);
    let fresh: Vec<String> = failed.map(|job| row(job)).collect();

    let mut rows = kept_rows(&ours, jobs);
    let fails_anew = !fresh.is_empty();
    rows.extend(fresh);

    let latest = if fails_anew || rows.is_empty() {
        None
    } else {
        ours.pop()
    };
    let mut delete: Vec<u64> = ours.iter().map(|comment| comment.id).collect();
    let aborted = jobs
        .iter()
        .any(|job| job.status.state == ProwJobState::Aborted);
    if rows.is_empty() && (!must_create || aborted) {
        return Ok(CommentPlan {
            write: None,
            delete,
        });
    }
    let body = body(first, &rows, template(first)?);
    let write = match latest {
        Some(comment) => Some(Write::Edit {
            id: comment.id,
            body,
        }),
        // Our own former attempt: the row's link names the run, so an equal text tells of the same run.
        None if ours.last().is_some_and(|comment| comment.body == body) => {
            delete.pop();
            None
        }
        None => Some(Write::Create(body)),
    };
    Ok(CommentPlan { write, delete })
}

/// The rows of earlier comments that still count.
fn kept_rows(ours: &[&IssueComment], jobs: &[&ProwJob]) -> Vec<String> {
    let mut rows: Vec<&str> = Vec::new();
    for comment in ours {
        let mut in_table = false;
        for line in comment.body.split('\n').map(str::trim) {
            if line.starts_with("---") {
                in_table = true;
            } else if line.is_empty() {
                in_table = false;
            } else if in_table {
                rows.push(line);
            }
        }
    }
    let mut seen: BTreeSet<&str> = jobs.iter().map(|job| job.spec.context.as_str()).collect();
    let mut kept: Vec<String> = rows
        .into_iter()
        .rev()
        .filter(|row| seen.insert(row.split(COLUMNS).next().unwrap_or_default()))
        .map(str::to_owned)
        .collect();
    kept.reverse();
    kept
}

/// One line of the table (CRI-022).
fn row(job: &ProwJob) -> String {
    let required = match job.metadata.labels.get(labels::IS_OPTIONAL) {
        Some(optional) if job.spec.r#type == ProwJobType::Presubmit => match go_bool(optional) {
            Some(true) => "false",
            Some(false) => "true",
            None => "unknown",
        },
        _ => "unknown",
    };
    let sha = job
        .spec
        .refs
        .as_ref()
        .and_then(|refs| refs.pulls.first())
        .map_or("", |pull| pull.sha.as_str());
    [
        &job.spec.context,
        sha,
        &format!("[link]({})", job.status.url),
        required,
        &format!("`{}`", job.spec.rerun_command),
    ]
    .join(COLUMNS)
}

fn go_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// CRI-015
fn body(first: &ProwJob, rows: &[String], template: Option<String>) -> String {
    let author = first
        .spec
        .refs
        .as_ref()
        .and_then(|refs| refs.pulls.first())
        .map_or("", |pull| pull.author.as_str());
    let mut lines: Vec<String> = if rows.is_empty() {
        vec![format!("@{author}: all tests **passed!**"), String::new()]
    } else {
        let plural = if rows.len() > 1 { "s" } else { "" };
        vec![
            format!(
                "@{author}: The following test{plural} **failed**, say `/retest` to rerun all failed tests or `/retest-required` to rerun all mandatory failed tests:"
            ),
            String::new(),
            "Test name | Commit | Details | Required | Rerun command".to_owned(),
            "--- | --- | --- | --- | ---".to_owned(),
        ]
    };
    lines.extend_from_slice(rows);
    if let Some(text) = template {
        lines.extend([String::new(), text]);
    }
    let about = ["", "<details>", "", ABOUT_THIS_BOT, "</details>", MARKER];
    lines.extend(about.map(str::to_owned));
    lines.join("\n")
}
