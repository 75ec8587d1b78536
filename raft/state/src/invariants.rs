//! What must hold of every state that `apply` made. For tests and for `doctor`-like checks: walks everything.

use trireme_proto::state::{ConfigFile, DeliveryState, IntentState, Job, JobState};

use crate::{
    State,
    jobs::is_complete,
    limits::MAX_JOB_EVENTS,
    plans::{is_committed, is_settled},
};

impl State {
    /// Rebuilds the state from its records and compares indexes and digest; then checks what the records promise each
    /// other. Cost grows with the state.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn check_invariants(&self) -> Result<(), String> {
        let rebuilt =
            Self::from_snapshot_rows(self.snapshot_rows()).map_err(|error| error.to_string())?;
        if rebuilt != *self {
            return Err("an index does not follow from the records".to_owned());
        }
        self.check_jobs()?;
        self.check_inbox()?;
        self.check_configs()?;
        for intent in self
            .intents()
            .filter(|intent| intent.state() == IntentState::Open)
        {
            let others = self.intents_of(&intent.org, &intent.repo, intent.number);
            if others
                .filter(|other| other.state() == IntentState::Open)
                .count()
                != 1
            {
                return Err(format!(
                    "{}/{}#{} has several open intents",
                    intent.org, intent.repo, intent.number
                ));
            }
        }
        Ok(())
    }

    fn check_jobs(&self) -> Result<(), String> {
        for job in self.jobs.iter() {
            let state = job.state();
            let terminal = matches!(
                state,
                JobState::Success | JobState::Failure | JobState::Error
            );
            let broken = if state == JobState::Unspecified {
                Some("has no state")
            } else if terminal && !is_complete(job) {
                Some("is terminal and not complete")
            } else if is_complete(job) && !terminal && state != JobState::Aborted {
                Some("is complete and not terminal")
            } else if is_complete(job) && job.lease.is_some() {
                Some("is complete and leased")
            } else if state == JobState::Pending && job.lease.is_none() {
                Some("is pending without a lease")
            } else if state == JobState::Aborted && !is_complete(job) && job.lease.is_none() {
                Some("is aborted, held by nobody and not complete")
            } else if job.lease.is_some() && !matches!(state, JobState::Pending | JobState::Aborted)
            {
                Some("is leased and neither pending nor aborted")
            } else {
                broken_history(job)
            };
            if let Some(broken) = broken {
                return Err(format!("job {} {broken}", job.id));
            }
            for reporter in &job.reporters {
                match self.report(&job.id, reporter) {
                    Some(report) if report.owed == job.state => {}
                    _ => {
                        return Err(format!(
                            "job {} owes {reporter} another state than its own",
                            job.id
                        ));
                    }
                }
            }
        }
        match self
            .reports
            .iter()
            .find(|report| self.job(&report.job_id).is_none())
        {
            Some(orphan) => Err(format!("a report of {} outlived it", orphan.job_id)),
            None => Ok(()),
        }
    }

    fn check_configs(&self) -> Result<(), String> {
        for version in self.configs.iter() {
            let Some(files) = self.config_files(version) else {
                return Err(format!("configuration {} misses a page", version.number));
            };
            let has = |file: &ConfigFile| {
                let blob = file.blob.as_ref();
                blob.is_some_and(|blob| self.has_blob(&blob.sha256))
            };
            if let Some(file) = files.iter().find(|file| !has(file)) {
                return Err(format!(
                    "configuration {} misses the content of {:?}",
                    version.number, file.path
                ));
            }
        }
        Ok(())
    }

    fn check_inbox(&self) -> Result<(), String> {
        for delivery in self.deliveries.iter() {
            let settled = |plugin: &String| {
                let plan = self.plan(&delivery.guid, plugin);
                plan.is_none_or(|plan| {
                    plan.dead || is_committed(plan) && plan.effects.iter().all(is_settled)
                })
            };
            if let Some(plugin) = delivery.settled.iter().find(|plugin| !settled(plugin)) {
                return Err(format!(
                    "delivery {}: {plugin} is settled with open effects",
                    delivery.guid
                ));
            }
            let all = delivery
                .plugins
                .iter()
                .all(|plugin| delivery.settled.contains(plugin));
            let handled = delivery.state() == DeliveryState::Handled;
            if handled != (all && delivery.state() != DeliveryState::Received) {
                return Err(format!(
                    "delivery {} is handled or not, against its plugins",
                    delivery.guid
                ));
            }
        }
        match self
            .plans
            .iter()
            .find(|plan| self.delivery(&plan.guid).is_none())
        {
            Some(orphan) => Err(format!("a plan of {} outlived it", orphan.guid)),
            None => Ok(()),
        }
    }
}

fn broken_history(job: &Job) -> Option<&'static str> {
    let rows = &job.history;
    let last = rows.last()?;
    let in_order = rows
        .iter()
        .zip(rows.iter().skip(1))
        .all(|(one, next)| one.revision <= next.revision && one.at_ms <= next.at_ms);
    if last.state != job.state {
        Some("has a history that does not end with its state")
    } else if !in_order || last.revision > job.version {
        Some("has a history that is not in order")
    } else if rows.len() > MAX_JOB_EVENTS {
        Some("has a history that is too long")
    } else if job.history_dropped > 0 && rows.len() < MAX_JOB_EVENTS {
        Some("has lost rows of its history that there was room for")
    } else {
        None
    }
}
