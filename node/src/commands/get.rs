//! `get`.

use serde_json::{Value, json};
use trireme_proto::{
    api::{
        GetJobRequest, ListAgentsRequest, ListIntentsRequest, ListJobsRequest, ListPoolsRequest,
    },
    state::{IntentState, Job, JobState, JobType, MergePool, PoolAction, PoolPull},
};
use trireme_prowjob::record;

use super::{connect, history, now_ms};
use crate::{
    cli::{GetCommand, GetJobsArgs, JobArgs, Target},
    exit::{USAGE, coded},
    output::{Format, age, print, print_json, table},
};

/// # Errors
/// When no node answers or there is no such object.
pub async fn run(command: GetCommand) -> anyhow::Result<()> {
    match command {
        GetCommand::Jobs(args) => jobs(args).await,
        GetCommand::Job(args) => job(args).await,
        GetCommand::Pools(target) => pools(&target).await,
        GetCommand::Deliveries(args) => super::deliveries::list(args).await,
        GetCommand::Delivery(args) => super::deliveries::show(args).await,
        GetCommand::Configs(args) => super::config::history(&args).await,
        GetCommand::Agents(target) => agents(&target).await,
    }
}

fn parse_type(word: &str) -> anyhow::Result<JobType> {
    trireme_prowjob::ProwJobType::from_word(word)
        .map(record::job_type)
        .ok_or_else(|| {
            coded(
                USAGE,
                format!("--type {word}: one of presubmit, postsubmit, periodic, batch"),
            )
        })
}

fn parse_state(word: &str) -> anyhow::Result<JobState> {
    trireme_prowjob::ProwJobState::from_word(word)
        .map(record::job_state)
        .ok_or_else(|| {
            coded(
                USAGE,
                format!("--state {word}: one of scheduling, triggered, pending, success, failure, aborted, error"),
            )
        })
}

async fn jobs(args: GetJobsArgs) -> anyhow::Result<()> {
    let (org, repo) = match args.repo.as_deref() {
        None => (String::new(), String::new()),
        Some(name) => name
            .split_once('/')
            .map(|(org, repo)| (org.to_owned(), repo.to_owned()))
            .ok_or_else(|| coded(USAGE, format!("--repo {name}: write it as ORG/REPO")))?,
    };
    let request = ListJobsRequest {
        org,
        repo,
        r#type: args
            .kind
            .as_deref()
            .map(parse_type)
            .transpose()?
            .unwrap_or_default()
            .into(),
        state: args
            .state
            .as_deref()
            .map(parse_state)
            .transpose()?
            .unwrap_or_default()
            .into(),
        author: args.author.unwrap_or_default(),
        job: args.job.unwrap_or_default(),
        pull: args.pull.unwrap_or_default(),
        page_size: args.limit,
        brief: args.target.output == Format::Text,
        ..ListJobsRequest::default()
    };
    let client = connect(&args.target).await?;
    let jobs = client.jobs().list_jobs(request).await?.into_inner().jobs;
    match args.target.output {
        Format::Json => {
            let items: Vec<Value> = jobs.iter().map(job_json).collect::<anyhow::Result<_>>()?;
            print_json(&json!({ "items": items }))
        }
        Format::Text if args.wide => Ok(print(&wide_table(&jobs))?),
        Format::Text => Ok(print(&job_table(&jobs, now_ms()))?),
    }
}

/// The ProwJob as Prow's clients know it.
fn job_json(job: &Job) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(record::prow_job(job)?)?)
}

fn about(job: &Job) -> String {
    let pulls: Vec<String> = job
        .pulls
        .iter()
        .map(|pull| format!("#{}", pull.number))
        .collect();
    match (job.org.is_empty(), pulls.is_empty()) {
        (true, _) => "-".to_owned(),
        (_, true) => format!("{}/{}@{}", job.org, job.repo, job.base_ref),
        _ => format!("{}/{}{}", job.org, job.repo, pulls.join("")),
    }
}

fn job_table(jobs: &[Job], now: i64) -> String {
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![
                job.id.clone(),
                job.job.clone(),
                record::prow_type(job.r#type()).to_string(),
                about(job),
                record::prow_state(job.state()).to_string(),
                job.attempt.to_string(),
                age(now, job.created_ms),
            ]
        })
        .collect();
    table(
        &["ID", "JOB", "TYPE", "ABOUT", "STATE", "ATTEMPT", "AGE"],
        &rows,
    )
}

/// JOB-055.
fn wide_table(jobs: &[Job]) -> String {
    let instant = |ms: i64| match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) if ms > 0 => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => String::new(),
    };
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            let pulls: Vec<_> = job.pulls.iter().map(|p| p.number.to_string()).collect();
            vec![
                job.job.clone(),
                job.build_id.clone(),
                record::prow_type(job.r#type()).to_string(),
                job.org.clone(),
                job.repo.clone(),
                pulls.join(","),
                instant(job.created_ms),
                instant(job.completed_ms),
                record::prow_state(job.state()).to_string(),
            ]
        })
        .collect();
    table(
        &[
            "JOB",
            "BUILDID",
            "TYPE",
            "ORG",
            "REPO",
            "PULLS",
            "STARTTIME",
            "COMPLETIONTIME",
            "STATE",
        ],
        &rows,
    )
}

async fn job(args: JobArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let answer = client
        .jobs()
        .get_job(GetJobRequest {
            id: args.id,
            read: None,
        })
        .await?
        .into_inner();
    let Some(job) = answer.job else {
        anyhow::bail!("the node answered without the job");
    };
    if args.target.output == Format::Json {
        let mut told = job_json(&job)?;
        told["history"] = history::rows(&job);
        told["history_dropped"] = job.history_dropped.into();
        return print_json(&told);
    }
    let now = now_ms();
    let mut text = format!(
        "job          {}\nid           {}\nabout        {}\nstate        {}\ndescription  {}\nurl          {}\nbuild        {}\n\
         attempt      {}\ncreated      {} ago\norigin       {}\n",
        job.job,
        job.id,
        about(&job),
        record::prow_state(job.state()),
        job.description,
        job.url,
        job.build_id,
        job.attempt,
        age(now, job.created_ms),
        job.origin,
    );
    if let Some(lease) = &job.lease {
        text.push_str(&format!(
            "agent        {} (fence {})\n",
            lease.agent_id, lease.fence
        ));
    }
    for report in &answer.reports {
        let state = if report.dead {
            format!(
                "given up: {}; `trireme get deliveries` and redrive",
                report.error
            )
        } else if report.owed == report.reported {
            "up to date".to_owned()
        } else {
            format!("owed, {} tries", report.attempts)
        };
        text.push_str(&format!("report       {}: {state}\n", report.reporter));
    }
    let happened = history::timeline(&job);
    if !happened.is_empty() {
        text.push('\n');
        text.push_str(&happened);
    }
    Ok(print(&text)?)
}

fn numbers(pulls: &[PoolPull]) -> String {
    let list: Vec<String> = pulls
        .iter()
        .map(|pull| format!("#{}", pull.number))
        .collect();
    if list.is_empty() {
        "-".to_owned()
    } else {
        list.join(",")
    }
}

fn action(pool: &MergePool) -> String {
    let word = match pool.action() {
        PoolAction::Unspecified => "-",
        PoolAction::Wait => "wait",
        PoolAction::Trigger => "trigger",
        PoolAction::TriggerBatch => "trigger batch",
        PoolAction::Merge => "merge",
        PoolAction::MergeBatch => "merge batch",
        PoolAction::Blocked => "blocked",
    };
    if pool.error.is_empty() {
        word.to_owned()
    } else {
        format!("{word}: {}", pool.error)
    }
}

fn intent_word(state: IntentState) -> &'static str {
    match state {
        IntentState::Unspecified => "-",
        IntentState::Open => "open",
        IntentState::Merged => "merged",
        IntentState::Refused => "refused",
        IntentState::Observed => "observed",
        IntentState::Withdrawn => "withdrawn",
    }
}

async fn pools(target: &Target) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let pools = client
        .pools()
        .list_pools(ListPoolsRequest { read: None })
        .await?
        .into_inner()
        .pools;
    let intents = client
        .pools()
        .list_intents(ListIntentsRequest { read: None })
        .await?
        .into_inner()
        .intents;
    if target.output == Format::Json {
        let numbers = |pulls: &[PoolPull]| pulls.iter().map(|pull| pull.number).collect::<Vec<_>>();
        return print_json(&json!({
            "pools": pools.iter().map(|pool| json!({
                "org": pool.org, "repo": pool.repo, "branch": pool.branch, "base_sha": pool.base_sha,
                "success": numbers(&pool.success), "pending": numbers(&pool.pending),
                "missing": numbers(&pool.missing), "batch_pending": numbers(&pool.batch_pending),
                "action": action(pool), "target": numbers(&pool.target), "blockers": pool.blockers,
            })).collect::<Vec<_>>(),
            "intents": intents.iter().map(|intent| json!({
                "org": intent.org, "repo": intent.repo, "number": intent.number, "head_sha": intent.head_sha,
                "base_sha": intent.base_sha, "state": intent_word(intent.state()), "merge_sha": intent.merge_sha,
                "message": intent.message, "batch": intent.batch,
            })).collect::<Vec<_>>(),
        }));
    }
    let rows: Vec<Vec<String>> = pools
        .iter()
        .map(|pool| {
            vec![
                format!("{}/{}:{}", pool.org, pool.repo, pool.branch),
                numbers(&pool.success),
                numbers(&pool.pending),
                numbers(&pool.missing),
                numbers(&pool.batch_pending),
                action(pool),
                numbers(&pool.target),
            ]
        })
        .collect();
    let mut text = table(
        &[
            "POOL", "PASSING", "PENDING", "MISSING", "BATCH", "ACTION", "TARGET",
        ],
        &rows,
    );
    let rows: Vec<Vec<String>> = intents
        .iter()
        .map(|intent| {
            vec![
                format!("{}/{}#{}", intent.org, intent.repo, intent.number),
                intent.head_sha.chars().take(8).collect(),
                intent_word(intent.state()).to_owned(),
                intent.merge_sha.chars().take(8).collect(),
                intent.message.clone(),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(
        &["MERGE INTENT", "HEAD", "STATE", "COMMIT", "MESSAGE"],
        &rows,
    ));
    Ok(print(&text)?)
}

async fn agents(target: &Target) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let answer = client
        .agents()
        .list_agents(ListAgentsRequest { read: None })
        .await?
        .into_inner();
    let running = |id: &str| {
        answer
            .load
            .iter()
            .find(|load| load.agent_id == id)
            .map_or(0, |load| load.running)
    };
    if target.output == Format::Json {
        return print_json(&json!({
            "items": answer.agents.iter().map(|agent| json!({
                "id": agent.id, "name": agent.name, "clusters": agent.clusters, "capacity": agent.capacity,
                "leases": running(&agent.id), "node": agent.node_id, "lost": agent.lost,
                "draining": agent.draining,
            })).collect::<Vec<_>>(),
        }));
    }
    let rows: Vec<Vec<String>> = answer
        .agents
        .iter()
        .map(|agent| {
            let state = match (agent.lost, agent.draining) {
                (true, _) => "lost",
                (_, true) => "draining",
                _ => "ready",
            };
            vec![
                agent.name.clone(),
                state.to_owned(),
                format!("{}/{}", running(&agent.id), agent.capacity),
                agent.clusters.join(","),
                agent.node_id.to_string(),
                agent.id.clone(),
            ]
        })
        .collect();
    Ok(print(&table(
        &["NAME", "STATE", "LEASES", "CLUSTERS", "NODE", "ID"],
        &rows,
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_listed_by_what_they_are_about() {
        let job = |pulls: &[u64]| Job {
            id: "id".into(),
            job: "unit".into(),
            r#type: JobType::Presubmit.into(),
            org: "o".into(),
            repo: "r".into(),
            base_ref: "main".into(),
            state: JobState::Pending.into(),
            created_ms: 1,
            pulls: pulls
                .iter()
                .map(|number| trireme_proto::state::Pull {
                    number: *number,
                    ..Default::default()
                })
                .collect(),
            ..Job::default()
        };
        insta::assert_snapshot!(job_table(&[job(&[]), job(&[1, 2])], 61_001), @r"
        ID  JOB   TYPE       ABOUT     STATE    ATTEMPT  AGE
        id  unit  presubmit  o/r@main  pending  0        61s
        id  unit  presubmit  o/r#1#2   pending  0        61s
        ");
    }

    #[test]
    fn unknown_words_are_refused() {
        assert!(parse_type("batch").is_ok());
        assert!(
            parse_state("running")
                .unwrap_err()
                .to_string()
                .contains("one of scheduling")
        );
    }

    #[test]
    fn job_055_the_columns_of_listings() {
        let batch = Job {
            job: "unit".to_owned(),
            build_id: "42".to_owned(),
            r#type: JobType::Batch.into(),
            org: "org".to_owned(),
            repo: "repo".to_owned(),
            pulls: [7, 8]
                .map(|number| trireme_proto::state::Pull {
                    number,
                    ..Default::default()
                })
                .to_vec(),
            state: JobState::Success.into(),
            created_ms: 1_767_225_600_000,
            completed_ms: 1_767_225_661_999,
            ..Job::default()
        };
        let periodic = Job {
            job: "nightly".to_owned(),
            r#type: JobType::Periodic.into(),
            state: JobState::Triggered.into(),
            created_ms: 1_767_225_600_000,
            ..Job::default()
        };
        insta::assert_snapshot!(wide_table(&[batch, periodic]), @r"
        JOB      BUILDID  TYPE      ORG  REPO  PULLS  STARTTIME             COMPLETIONTIME        STATE
        unit     42       batch     org  repo  7,8    2026-01-01T00:00:00Z  2026-01-01T00:01:01Z  success
        nightly           periodic                    2026-01-01T00:00:00Z                        triggered
        ");
    }
}
