//! The labels that plugins read and write.

pub(crate) const APPROVED: &str = "approved";
pub(crate) const DEPRECATION: &str = "kind/deprecation";
pub(crate) const HOLD: &str = "do-not-merge/hold";
pub(crate) const LGTM: &str = "lgtm";
/// Nobody trusted has looked at the pull request yet.
pub const NEEDS_OK_TO_TEST: &str = "needs-ok-to-test";
pub use trireme_office::OK_TO_TEST;
pub(crate) const RELEASE_NOTE: &str = "release-note";
pub(crate) const RELEASE_NOTE_ACTION_REQUIRED: &str = "release-note-action-required";
pub(crate) const RELEASE_NOTE_NEEDED: &str = "do-not-merge/release-note-label-needed";
pub(crate) const RELEASE_NOTE_NONE: &str = "release-note-none";
pub(crate) const WORK_IN_PROGRESS: &str = "do-not-merge/work-in-progress";
