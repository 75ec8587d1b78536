//! What an agent says, carried to where it belongs: results into the log, signs of life to the leader.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::timeout;
use trireme_proto::{
    api::{JobFinished, RenewRequest, RunningJob},
    state::{Command, FinishJob, JobState, Rejection, StartJob, command::Body, outcome},
};
use trireme_raft::ProposeError;

use super::Services;

/// Between two tries to record what an agent said, doubled each time up to the latter.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(2);
/// A renewal that takes a larger part of the period is given up: the next one is due.
const RENEWALS_PER_PERIOD: u32 = 6;
/// Between two tries of one: a new leader may not have begun to schedule.
const RENEW_AGAIN: Duration = Duration::from_millis(50);
/// Bytes of a description; longer ones are cut.
const MAX_DESCRIPTION: usize = 4096;

/// A lease that is over as far as the agent is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) job_id: String,
    pub(super) fence: u64,
}

pub(super) fn started(job_id: String, fence: u64) -> Body {
    Body::StartJob(StartJob { id: job_id, fence })
}

/// Anything but a result is taken for an error: the lease must end somehow.
pub(super) fn finished(said: JobFinished) -> Body {
    let (state, description) = match said.state() {
        JobState::Success | JobState::Failure | JobState::Aborted | JobState::Error => {
            (said.state, cut(said.description))
        }
        other => (
            JobState::Error.into(),
            format!(
                "The agent reported {} as the result.",
                other.as_str_name().to_lowercase()
            ),
        ),
    };
    Body::FinishJob(FinishJob {
        id: said.job_id,
        fence: said.fence,
        state,
        description,
        url: String::new(),
    })
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_DESCRIPTION));
    text
}

/// Returns once the report is recorded or void. Tries as long as the attachment lasts: on the next one the agent says
/// it again.
pub(super) async fn record(services: Services, principal: String, body: Body) {
    let mut wait = FIRST_WAIT;
    loop {
        let command = Command {
            min_level: 1,
            principal: principal.clone(),
            body: Some(body.clone()),
            ..Command::default()
        };
        match services.store.propose(command).await {
            Ok(applied) => {
                if let Some(outcome::Result::Rejected(rejected)) = applied.outcome.result {
                    void(&principal, rejected.code(), &rejected.message);
                }
                return;
            }
            Err(why @ (ProposeError::TooLarge { .. } | ProposeError::Rejected(_))) => {
                tracing::warn!(who = principal, %why, "an agent's report was refused");
                return;
            }
            Err(why) => tracing::debug!(%why, "an agent's report is not recorded yet"),
        }
        let jitter = rand::rng().random_range(1.0..1.5);
        tokio::time::sleep(wait.mul_f64(jitter)).await;
        wait = (wait * 2).min(MAX_WAIT);
    }
}

fn void(who: &str, code: Rejection, why: &str) {
    match code {
        Rejection::Fenced | Rejection::Conflict | Rejection::NotFound => {
            tracing::info!(who, why, "an agent's report is void");
        }
        _ => tracing::warn!(who, why, "an agent's report was refused"),
    }
}

/// On the leader: milliseconds that the leases hold from now on; 0 when this node cannot say.
pub(super) fn renew_here(
    services: &Services,
    agent_id: &str,
    incarnation: u64,
    running: &[RunningJob],
) -> u32 {
    // A node that was deposed and has not heard of it must not grant what its successor takes back.
    if !services.store.holds_lease() {
        return 0;
    }
    services
        .leases
        .renew(agent_id, incarnation, running)
        .map_or(0, |period| {
            u32::try_from(period.as_millis()).unwrap_or(u32::MAX)
        })
}

/// Asks the leader, which keeps renewals; 0 when they were not renewed in time.
pub(super) async fn renew(services: Services, asked: RenewRequest) -> u32 {
    let limit = services.leases.period() / RENEWALS_PER_PERIOD;
    let trying = async {
        loop {
            let granted = renew_once(&services, asked.clone(), limit).await;
            if granted > 0 {
                return granted;
            }
            tokio::time::sleep(RENEW_AGAIN).await;
        }
    };
    timeout(limit, trying).await.unwrap_or(0)
}

async fn renew_once(services: &Services, asked: RenewRequest, limit: Duration) -> u32 {
    let leader = services.store.leadership().borrow().leader;
    if leader == Some(services.store.node_id()) {
        return renew_here(services, &asked.agent_id, asked.incarnation, &asked.running);
    }
    let status = services.store.status();
    let address = status
        .members
        .iter()
        .find(|member| Some(member.node.id) == leader)
        .map(|member| member.node.api_address.clone());
    let Some(address) = address else { return 0 };
    let forward = async {
        let client = services
            .attachments
            .leader(services.store.host(), &address)
            .await
            .map_err(|why| why.to_string())?;
        let answer = client.agents().renew(asked).await;
        answer
            .map(|answer| answer.into_inner().lease_millis)
            .map_err(|why| why.message().to_owned())
    };
    match timeout(limit, forward).await {
        Ok(Ok(granted)) => granted,
        Ok(Err(why)) => {
            tracing::debug!(leader = address, why, "a renewal did not reach the leader");
            0
        }
        Err(_) => {
            tracing::debug!(leader = address, "the leader did not answer a renewal");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_result_ends_the_lease_as_an_error() {
        let said = |state: JobState| JobFinished {
            job_id: "j".to_owned(),
            fence: 7,
            state: state.into(),
            description: "é".repeat(MAX_DESCRIPTION),
        };
        let result = |state| match finished(said(state)) {
            Body::FinishJob(finish) => (finish.state(), finish.description),
            other => panic!("{other:?}"),
        };
        let (state, description) = result(JobState::Failure);
        assert_eq!(
            (state, description.len()),
            (JobState::Failure, MAX_DESCRIPTION)
        );
        let (state, description) = result(JobState::Pending);
        assert_eq!(state, JobState::Error);
        assert_eq!(
            description,
            "The agent reported job_state_pending as the result."
        );
    }
}
