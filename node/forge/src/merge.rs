//! Asking a forge to merge, and the ways it says no (Prow's kinds).

use crate::error::ForgeError;
use crate::types::MergeMethod;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeRequest {
    /// The forge merges only if this is still the head.
    pub expected_head_sha: String,
    pub method: MergeMethod,
    /// `None` leaves the forge's default.
    pub title: Option<String>,
    pub message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The commit that the base branch now points at.
    pub sha: String,
}

/// Why a merge did not happen, or is not known to have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The forge decided not to merge; nothing happened.
    #[error(transparent)]
    Refused(#[from] MergeRefused),
    /// The call itself failed. With [`ForgeError::maybe_sent`] the merge may have happened.
    #[error(transparent)]
    Forge(#[from] ForgeError),
}

impl MergeError {
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Forge(error) if error.is_outage())
    }

    /// The merge may have happened: look at the pull request before asking again.
    #[must_use]
    pub fn maybe_sent(&self) -> bool {
        matches!(self, Self::Forge(error) if error.maybe_sent())
    }
}

/// The forge's own sentence, and what kind of refusal it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MergeRefused {
    pub kind: Refusal,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 409: the head is not the expected one any more.
    ModifiedHead,
    /// 405: the base moved while the forge merged. Worth trying again.
    BaseChanged,
    /// 405: we may not push to this branch.
    UnauthorizedToPush,
    /// 405: the repository forbids merge commits, so the configured method can never work there.
    MergeCommitsForbidden,
    /// 405 for any other reason: conflicts, missing reviews or checks, a draft, another forbidden method.
    Unmergeable,
}
