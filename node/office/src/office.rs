//! The office: the right of one node to act for the cluster, and the commands it gives in that name.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use trireme_proto::state::{Command, Done, Rejection, command::Body, outcome};
use trireme_raft::{ProposeError, Queues, ReadError, Store, View, Watch};
use trireme_state::min_level_at;

/// Why an office could not record a command.
#[derive(Debug, thiserror::Error)]
pub enum OfficeError {
    /// This node no longer holds the office: stop, whoever holds it now carries on from the state.
    #[error("the office of epoch {epoch} is over")]
    Left { epoch: u64 },
    /// `apply` refused the command and changed nothing.
    #[error("rejected ({code:?}): {message}")]
    Rejected { code: Rejection, message: String },
    /// No quorum says who is in office.
    #[error("the office cannot be confirmed: {0}")]
    Unknown(#[from] ReadError),
    /// The command may or may not have been recorded: look at the state before asking again.
    #[error("not recorded: {0}")]
    Store(#[from] ProposeError),
}

impl OfficeError {
    /// Whether `apply` refused because of what the state already holds, so that a fresh look settles it.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Rejected {
                code: Rejection::Conflict
                    | Rejection::AlreadyExists
                    | Rejection::NotFound
                    | Rejection::Fenced,
                ..
            }
        )
    }
}

/// Held by the leader's controllers. Cheap to clone.
#[derive(Clone)]
pub struct Office {
    pub(crate) store: Store,
    pub(crate) controller: &'static str,
    pub(crate) epoch: u64,
    pub(crate) taken_ms: i64,
    pub(crate) resigned: CancellationToken,
}

impl Office {
    /// The log index of the `TakeOffice` command that began it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where a controller's queues are shown.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        self.store.queues()
    }

    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.store.node_id()
    }

    /// Stamp of the `TakeOffice` command.
    #[must_use]
    pub fn taken_ms(&self) -> i64 {
        self.taken_ms
    }

    /// The newest state that this node has applied.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.store.view()
    }

    /// Changes after revision `after`.
    #[must_use]
    pub fn watch(&self, after: u64) -> Watch {
        self.store.watch(Some(after))
    }

    /// The store itself, for reads of the archive and of cluster facts.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The clock that stamps the log, for decisions by time; never below the stamp of the view.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.store.now_ms()
    }

    /// Cancelled when the office is over; what still runs 2 s later is aborted.
    #[must_use]
    pub fn resigned(&self) -> CancellationToken {
        self.resigned.clone()
    }

    /// Records `body` in the name of this office; returns once it is applied on this node.
    ///
    /// # Errors
    /// [`OfficeError::Left`] if the office changed hands, [`OfficeError::Rejected`] if `apply` refused, and
    /// [`OfficeError::Store`] if there was no quorum in time.
    pub async fn propose(&self, body: Body) -> Result<Done, OfficeError> {
        if self.resigned.is_cancelled() {
            return Err(OfficeError::Left { epoch: self.epoch });
        }
        let level = self.store.view().feature_level();
        let command = Command {
            min_level: min_level_at(&body, level),
            principal: format!("controller:{}@{}", self.controller, self.node_id()),
            request_id: String::new(),
            epoch: self.epoch,
            body: Some(body),
        };
        let applied = self.store.propose(command).await?;
        match applied.outcome.result {
            Some(outcome::Result::Done(done)) => Ok(done),
            Some(outcome::Result::Rejected(rejected)) => match rejected.code() {
                Rejection::NotInOffice => {
                    self.resigned.cancel();
                    Err(OfficeError::Left { epoch: self.epoch })
                }
                code => Err(OfficeError::Rejected {
                    code,
                    message: rejected.message,
                }),
            },
            None => Err(OfficeError::Rejected {
                code: Rejection::Unspecified,
                message: "the outcome is empty".to_owned(),
            }),
        }
    }

    /// Asked before every write to the outside: is this node still the confirmed leader, and the office its own?
    ///
    /// # Errors
    /// [`OfficeError::Left`] if it is not, [`OfficeError::Unknown`] if nobody can tell.
    pub async fn assert_held(&self) -> Result<(), OfficeError> {
        let left = OfficeError::Left { epoch: self.epoch };
        if self.resigned.is_cancelled() || self.view().office().epoch != self.epoch {
            return Err(left);
        }
        // Within the leader's lease no other node can have been elected, so none can hold a newer office.
        if self.store.holds_lease() {
            return Ok(());
        }
        // The lease ran out between two heartbeats: a round to the quorum settles it.
        self.store.linearize().await?;
        if self.view().office().epoch == self.epoch {
            Ok(())
        } else {
            Err(left)
        }
    }
}
