//! The answers of upstream's own reporter: `reports.jsonl.gz`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

use std::io::{BufRead as _, BufReader};

use serde_json::Value;
use trireme_forge::{IssueComment, User};
use trireme_prowjob::{ProwJob, ProwJobType};
use trireme_report::{
    comment::{self, Write},
    description,
    status::{is_reported, owed_status},
};

const ORACLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/oracle/reports.jsonl.gz"
);

/// The answers of one kind; empty where the oracle is absent.
fn answers(kind: &str) -> Vec<Value> {
    let Ok(file) = std::fs::File::open(ORACLE) else {
        println!("skipped: {ORACLE} is absent");
        return Vec::new();
    };
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    let parsed = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let answers: Vec<Value> = parsed.filter(|answer| answer["kind"] == kind).collect();
    assert!(!answers.is_empty(), "the oracle has nothing of kind {kind}");
    answers
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn types(answer: &Value) -> Vec<ProwJobType> {
    serde_json::from_value(answer["job_types_to_report"].clone()).unwrap()
}

/// CRI-011, CRI-020, JOB-066, JOB-071
#[test]
fn descriptions() {
    for answer in answers("description") {
        let made = description::with_base_sha(text(&answer, "text"), text(&answer, "base_sha"));
        // Where upstream cuts through a character a mark stands for each half, and nothing of it is left here (JOB-066).
        let expected = text(&answer, "description").replace('\u{fffd}', "");
        assert_eq!(made, expected, "{answer}");
        if expected == text(&answer, "description") {
            assert_eq!(answer["bytes"], made.len(), "{answer}");
        }
        assert_read_back(&made, &answer);
    }
    for answer in answers("read_description") {
        assert_read_back(text(&answer, "description"), &answer);
    }
}

fn assert_read_back(description: &str, answer: &Value) {
    let sha = description::base_sha_of(description).unwrap_or_default();
    assert_eq!(sha, text(answer, "read_back_base_sha"), "{answer}");
    assert_eq!(
        description::skips_retest(description),
        answer["skip_retest"] == true,
        "{answer}"
    );
}

/// CRI-010
#[test]
fn statuses() {
    for answer in answers("status") {
        let Ok(job) = serde_json::from_value::<ProwJob>(answer["prowjob"].clone()) else {
            assert!(
                text(&answer["prowjob"]["status"], "state") == "weird",
                "{answer}"
            );
            continue;
        };
        let ops = answer["ops"].as_array().cloned().unwrap_or_default();
        match owed_status(&job, &types(&answer)) {
            Err(why) => assert_eq!(
                format!("error setting status: {why}"),
                text(&answer, "error"),
                "{answer}"
            ),
            Ok(None) => assert!(ops.is_empty() && answer.get("error").is_none(), "{answer}"),
            Ok(Some(owed)) => {
                let [op] = ops.as_slice() else {
                    panic!("expected one operation: {answer}");
                };
                let refs = job.spec.refs.as_ref().unwrap();
                assert_eq!(text(op, "op"), "create_status", "{answer}");
                assert_eq!(
                    (text(op, "org"), text(op, "repo")),
                    (refs.org.as_str(), refs.repo.as_str()),
                    "{answer}"
                );
                assert_eq!(text(op, "ref"), owed.sha, "{answer}");
                let status = &op["status"];
                assert_eq!(text(status, "state"), owed.status.state.as_str());
                assert_eq!(text(status, "context"), owed.status.context);
                assert_eq!(text(status, "description"), owed.status.description);
                assert_eq!(text(status, "target_url"), owed.status.target_url);
            }
        }
    }
}

fn comments(list: &Value) -> Vec<IssueComment> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|comment| IssueComment {
            id: comment["id"].as_u64().unwrap(),
            html_url: String::new(),
            author: User::new(text(comment, "user")),
            body: text(comment, "body").to_owned(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
        })
        .collect()
}

/// The few template forms in the oracle.
fn render(template: &str, job: &ProwJob) -> String {
    let refs = job.spec.refs.as_ref().unwrap();
    let pull = &refs.pulls[0];
    let number = pull.number.to_string();
    [
        ("{{.Spec.Refs.Org}}", &refs.org),
        ("{{.Spec.Refs.Repo}}", &refs.repo),
        (
            "{{with index .Spec.Refs.Pulls 0}}{{.Number}}{{end}}",
            &number,
        ),
        (
            "{{with index .Spec.Refs.Pulls 0}}{{.Author}}{{end}}",
            &pull.author,
        ),
    ]
    .iter()
    .fold(template.to_owned(), |text, (from, to)| {
        text.replace(from, to)
    })
}

/// CRI-013, CRI-014, CRI-015, CRI-021, CRI-022
#[test]
fn results_comments() {
    for answer in answers("comments") {
        let types = types(&answer);
        let bots: Vec<String> = serde_json::from_value(answer["bot"].clone()).unwrap();
        for step in answer["steps"].as_array().unwrap() {
            let jobs: Vec<ProwJob> = serde_json::from_value(step["prowjobs"].clone()).unwrap();
            let complete: Vec<&ProwJob> = jobs
                .iter()
                .filter(|job| is_reported(job, &types) && job.complete())
                .collect();
            let before = comments(&step["comments_before"]);
            let template = |job: &ProwJob| {
                let template = answer["report_template"].as_str();
                Ok::<_, std::convert::Infallible>(template.map(|text| render(text, job)))
            };
            let one_pull = complete.first().is_some_and(|job| {
                let refs = job.spec.refs.as_ref();
                refs.is_some_and(|refs| refs.pulls.len() == 1)
            });
            let plan = if one_pull {
                let is_bot = |login: &str| bots.iter().any(|bot| bot == login);
                let must_create = step["must_create"] == true;
                comment::plan(&complete, &before, is_bot, template, must_create).unwrap()
            } else {
                comment::CommentPlan::default()
            };
            let mut ops: Vec<(String, u64, String)> = plan
                .delete
                .iter()
                .map(|id| ("delete_comment".to_owned(), *id, String::new()))
                .collect();
            match plan.write {
                Some(Write::Create(body)) => ops.push(("create_comment".into(), 0, body)),
                Some(Write::Edit { id, body }) => ops.push(("edit_comment".into(), id, body)),
                None => {}
            }
            let expected = step["ops"].as_array().cloned().unwrap_or_default();
            let expected: Vec<(String, u64, String)> = expected
                .iter()
                .map(|op| {
                    let name = text(op, "op").to_owned();
                    let id = if name == "create_comment" {
                        0
                    } else {
                        op["id"].as_u64().unwrap()
                    };
                    (name, id, text(op, "body").to_owned())
                })
                .collect();
            assert_eq!(ops, expected, "{step:#}");
        }
    }
}
