//! The list of runs.

use std::collections::BTreeSet;

use askama::Template;
use axum::{
    extract::{Query, State},
    response::Response,
};
use serde::Deserialize;
use trireme_proto::state::Job;
use trireme_prowjob::{ProwJobState, ProwJobType, record};
use trireme_state::JobFilter;

use crate::{Deck, duration, html, instant, now_ms};

/// Runs on the page; the filter is there to find others.
const MAX_ROWS: usize = 500;
const TYPES: [&str; 4] = ["presubmit", "postsubmit", "periodic", "batch"];
const STATES: [&str; 7] = [
    "scheduling",
    "triggered",
    "pending",
    "success",
    "failure",
    "aborted",
    "error",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Filter {
    repo: String,
    #[serde(rename = "type")]
    kind: String,
    state: String,
    author: String,
}

impl Filter {
    fn any(&self) -> bool {
        [&self.repo, &self.kind, &self.state, &self.author]
            .iter()
            .any(|value| !value.is_empty())
    }

    /// A word that is none, or half a repository's name, fits no run.
    fn wanted(&self) -> Option<JobFilter> {
        let (org, repo) = match self.repo.trim() {
            "" => ("", ""),
            name => name.split_once('/')?,
        };
        let job_type = match self.kind.as_str() {
            "" => None,
            word => Some(record::job_type(ProwJobType::from_word(word)?)),
        };
        let state = match self.state.as_str() {
            "" => None,
            word => Some(record::job_state(ProwJobState::from_word(word)?)),
        };
        Some(JobFilter {
            org: org.to_owned(),
            repo: repo.to_owned(),
            job_type,
            state,
            author: self.author.trim().to_owned(),
            ..JobFilter::default()
        })
    }
}

fn repo(job: &Job) -> String {
    if job.org.is_empty() {
        String::new()
    } else {
        format!("{}/{}", job.org, job.repo)
    }
}

struct Row {
    id: String,
    job: String,
    kind: String,
    repo: String,
    base: String,
    pulls: Vec<trireme_proto::state::Pull>,
    state: String,
    attempt: u32,
    created: String,
    took: String,
}

impl Row {
    fn new(job: &Job, now_ms: i64) -> Self {
        let end = if job.completed_ms > 0 {
            job.completed_ms
        } else {
            now_ms
        };
        Self {
            id: job.id.clone(),
            job: job.job.clone(),
            kind: record::prow_type(job.r#type()).to_string(),
            repo: repo(job),
            base: job.base_ref.clone(),
            pulls: job.pulls.clone(),
            state: record::prow_state(job.state()).to_string(),
            attempt: job.attempt,
            created: instant(job.created_ms),
            took: duration(end - job.created_ms),
        }
    }
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct Page {
    page: &'static str,
    revision: u64,
    node: u64,
    filter: Filter,
    repos: BTreeSet<String>,
    types: &'static [&'static str],
    states: &'static [&'static str],
    rows: Vec<Row>,
    more: bool,
}

pub(crate) async fn page(State(deck): State<Deck>, Query(filter): Query<Filter>) -> Response {
    let view = deck.store.view();
    let now = now_ms();
    let mut rows: Vec<Row> = filter
        .wanted()
        .into_iter()
        .flat_map(|wanted| view.jobs_newest_first(wanted))
        .take(MAX_ROWS + 1)
        .map(|job| Row::new(job, now))
        .collect();
    let more = rows.len() > MAX_ROWS;
    rows.truncate(MAX_ROWS);
    html(&Page {
        page: "jobs",
        revision: view.revision,
        node: deck.store.node_id(),
        repos: view
            .jobs_newest_first(JobFilter::default())
            .take(10 * MAX_ROWS)
            .map(|job| repo(job))
            .filter(|repo| !repo.is_empty())
            .collect(),
        types: &TYPES,
        states: &STATES,
        filter,
        rows,
        more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(filter: Filter, rows: Vec<Row>) -> String {
        Page {
            page: "jobs",
            revision: 7,
            node: 1,
            repos: BTreeSet::new(),
            types: &TYPES,
            states: &STATES,
            filter,
            rows,
            more: false,
        }
        .render()
        .unwrap()
    }

    #[test]
    fn what_a_forge_sends_is_escaped() {
        let job = Job {
            job: "<script>".into(),
            ..Job::default()
        };
        let text = page(Filter::default(), vec![Row::new(&job, 0)]);
        assert!(
            text.contains("&#60;script&#62;") || text.contains("&lt;script&gt;"),
            "{text}"
        );
        assert!(text.contains(r#"<html lang="en">"#));
    }

    #[test]
    fn an_empty_list_says_why() {
        assert!(page(Filter::default(), Vec::new()).contains("when a webhook triggers one"));
        let filter = Filter {
            author: "ann".into(),
            ..Filter::default()
        };
        assert!(page(filter, Vec::new()).contains("fit this filter"));
    }

    #[test]
    fn a_filter_that_makes_no_sense_fits_nothing() {
        let filter = |repo: &str, state: &str| Filter {
            repo: repo.into(),
            state: state.into(),
            ..Filter::default()
        };
        let wanted = filter(" o/r", "pending").wanted().unwrap();
        assert_eq!((wanted.org.as_str(), wanted.repo.as_str()), ("o", "r"));
        assert_eq!(wanted.state, Some(trireme_proto::state::JobState::Pending));
        assert!(filter("", "").wanted().is_some());
        assert!(filter("o", "").wanted().is_none() && filter("", "running").wanted().is_none());
    }
}
