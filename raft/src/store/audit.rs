//! Comparing the replicas: see `trireme_state`'s audits for the rules, which the log makes the same everywhere.
//!
//! The leader begins a round now and then. Each node reports what its own state was, and looks at what the majority says.
//! One that differs writes `DIVERGED` into its data directory and stops, the lead handed over if it has it; how it gets
//! another state is told in `resync`.

use std::{sync::Weak, time::Duration};

use tokio::time::{sleep, timeout};
use trireme_proto::state::{Audit, BeginAudit, ReportDigest, command::Body, outcome};
use trireme_state::{Digest, min_level_of};

use super::{Inner, ProposeError, Started, Store};
use crate::{directory::Diverged, fatal::FatalKind};

/// Between looks at a round that is under way, and at whether one is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long a node that must stop tries to report its digest first.
const LAST_WORD: Duration = Duration::from_secs(2);

pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        if strong.fatal.get().is_some() {
            return;
        }
        let mut own = started.audited.clone();
        let audited = *own.borrow_and_update();
        if let Some((index, digest)) = audited
            && let Some(audit) = strong.published.view().audit(index)
        {
            strong.answer_audit(audit, digest).await;
        }
        if strong.is_audit_due(started)
            && let Err(why) = strong.begin_audit(started).await
        {
            tracing::info!(%why, "no audit was begun");
        }
        drop(strong);
        tokio::select! {
            () = sleep(LOOK) => {}
            changed = own.changed() => if changed.is_err() { return },
        }
    }
}

impl Inner {
    /// Reports this node's digest once, and stops the node if the majority has another: in this order, because the alarm
    /// and whoever asked for the comparison know by the report which node it is.
    async fn answer_audit(&self, audit: &Audit, own: Digest) {
        let differs = !audit.agreed.is_empty() && audit.agreed != own.as_slice();
        let mut reports = audit.reports.iter();
        if !reports.any(|report| report.node_id == self.node_id) {
            let report = Body::ReportDigest(ReportDigest {
                node_id: self.node_id,
                audit_index: audit.index,
                digest: own.to_vec().into(),
            });
            let reporting = self.propose(self.own_command(report));
            let reported = match differs {
                true => timeout(LAST_WORD, reporting)
                    .await
                    .unwrap_or(Err(ProposeError::Timeout {
                        maybe_applied: true,
                    })),
                false => reporting.await,
            };
            if let Err(why) = reported {
                tracing::info!(%why, audit = audit.index, "the digest cannot be reported now");
            }
        }
        if differs {
            self.stop_diverged(audit);
        }
    }

    fn stop_diverged(&self, audit: &Audit) {
        let view = self.published.view();
        let agreed = audit
            .reports
            .iter()
            .filter(|report| report.digest == audit.agreed)
            .map(|report| report.node_id);
        let peers = agreed.filter_map(|id| {
            let node = view.nodes().iter().find(|node| node.id == id)?;
            Some(node.peer_address.clone())
        });
        let marker = Diverged {
            audit: audit.index,
            peers: peers.collect(),
        };
        let (kind, message) = match self.directory(|directory| directory.set_diverged(&marker)) {
            Ok(()) => (
                FatalKind::Diverged,
                format!(
                    "this node's state differed from the majority's at entry {}: start it again, it then fetches the state \
                     from another node. If it happens again, suspect the machine's memory and replace the node",
                    audit.index
                ),
            ),
            Err(error) => (FatalKind::Disk, error.to_string()),
        };
        self.fatal.set(kind, message);
    }

    fn is_audit_due(&self, started: &Started) -> bool {
        let view = self.published.view();
        let begin = self.own_command(Body::BeginAudit(BeginAudit::default()));
        if min_level_of(&begin) > view.feature_level() || !self.observe(started).confirmed {
            return false;
        }
        let now = started.clock.now_ms(view.last_stamp_ms());
        let every = i64::try_from(self.limits.audit_every.as_millis()).unwrap_or(i64::MAX);
        match view.audits().next_back() {
            Some(last) => now.saturating_sub(last.begun_ms) >= every,
            None => true,
        }
    }

    async fn begin_audit(&self, started: &Started) -> Result<u64, ProposeError> {
        let configs = started.ring.pulse().membership.configs;
        let mut voters: Vec<u64> = configs
            .into_iter()
            .flat_map(|voters| voters.node_ids)
            .collect();
        voters.sort_unstable();
        voters.dedup();
        let begin = Body::BeginAudit(BeginAudit { voters });
        let applied = self.propose(self.own_command(begin)).await?;
        match applied.outcome.result {
            Some(outcome::Result::Rejected(why)) => Err(ProposeError::Rejected(why.message)),
            _ => Ok(applied.revision),
        }
    }
}

impl Store {
    /// Has all nodes compare their states now; answers with the audit's log index, under which
    /// [`trireme_state::State::audit`] tells what became of it. Works on any node.
    pub async fn begin_audit(&self) -> Result<u64, ProposeError> {
        let started = self.inner.started().ok_or(ProposeError::NotStarted)?;
        self.inner.begin_audit(started).await
    }
}
