//! The labels that plugins read and write.

pub(crate) const APPROVED: &str = "approved";
pub(crate) const BLOCKED_PATHS: &str = "do-not-merge/blocked-paths";
pub(crate) const CLA_NO: &str = "cncf-cla: no";
pub(crate) const CLA_YES: &str = "cncf-cla: yes";
pub(crate) const CONTAINS_MERGE_COMMITS: &str = "do-not-merge/contains-merge-commits";
pub(crate) const CHERRY_PICK_APPROVED: &str = "cherry-pick-approved";
pub(crate) const CHERRY_PICK_NOT_APPROVED: &str = "do-not-merge/cherry-pick-not-approved";
pub(crate) const DEPRECATION: &str = "kind/deprecation";
pub(crate) const HOLD: &str = "do-not-merge/hold";
pub(crate) const INVALID_BUG: &str = "bugzilla/invalid-bug";
pub(crate) const INVALID_COMMIT_MESSAGE: &str = "do-not-merge/invalid-commit-message";
pub(crate) const INVALID_OWNERS_FILE: &str = "do-not-merge/invalid-owners-file";
pub(crate) const LGTM: &str = "lgtm";
pub(crate) const NEEDS_REBASE: &str = "needs-rebase";
/// Nobody trusted has looked at the pull request yet.
pub const NEEDS_OK_TO_TEST: &str = "needs-ok-to-test";
pub use trireme_office::OK_TO_TEST;
pub(crate) const RELEASE_NOTE: &str = "release-note";
pub(crate) const RELEASE_NOTE_ACTION_REQUIRED: &str = "release-note-action-required";
pub(crate) const RELEASE_NOTE_NEEDED: &str = "do-not-merge/release-note-label-needed";
pub(crate) const RELEASE_NOTE_NONE: &str = "release-note-none";
pub(crate) const WORK_IN_PROGRESS: &str = "do-not-merge/work-in-progress";
