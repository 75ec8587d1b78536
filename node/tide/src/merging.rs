//! May this pull request merge at all, and by which method (section 5 of the checklist).

use trireme_forge::{
    MergeMethod, Repository,
    search::{MergeState, Mergeable},
};

use crate::pull::Pull;

/// What to do about pull requests that GitHub calls BLOCKED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MergeBlocks {
    Ignore,
    #[default]
    Permit,
    Block,
}

/// The methods that a repository's settings allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedMethods {
    pub merge: bool,
    pub squash: bool,
    pub rebase: bool,
}

impl From<&Repository> for AllowedMethods {
    fn from(repository: &Repository) -> Self {
        Self {
            merge: repository.allow_merge_commit,
            squash: repository.allow_squash_merge,
            rebase: repository.allow_rebase_merge,
        }
    }
}

impl AllowedMethods {
    #[must_use]
    pub fn allows(self, method: MergeMethod) -> bool {
        match method {
            MergeMethod::Merge => self.merge,
            MergeMethod::Squash => self.squash,
            MergeMethod::Rebase => self.rebase,
        }
    }
}

/// Labels that choose the method; empty ones are off (TIDE-052).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MethodLabels {
    pub merge: String,
    pub squash: String,
    pub rebase: String,
}

/// The one method label present decides, else the configuration; `None` when two labels contradict.
#[must_use]
pub fn method(pull: &Pull, configured: MergeMethod, labels: &MethodLabels) -> Option<MergeMethod> {
    let mut chosen = None;
    for label in pull.labels.iter().filter(|label| !label.is_empty()) {
        let by_label = if *label == labels.squash {
            MergeMethod::Squash
        } else if *label == labels.rebase {
            MergeMethod::Rebase
        } else if *label == labels.merge {
            MergeMethod::Merge
        } else {
            continue;
        };
        if chosen.replace(by_label).is_some() {
            return None;
        }
    }
    Some(chosen.unwrap_or(configured))
}

/// Why it must not be merged whatever its tests say (TIDE-050, TIDE-056, TIDE-136).
#[must_use]
pub fn forbidden(
    pull: &Pull,
    method: Option<MergeMethod>,
    allowed: AllowedMethods,
    blocks: MergeBlocks,
) -> Option<String> {
    if pull.mergeable == Mergeable::Conflicting {
        return Some("PR has a merge conflict.".to_owned());
    }
    let Some(method) = method else {
        return Some("PR has conflicting merge method override labels".to_owned());
    };
    if method == MergeMethod::Rebase && !pull.can_be_rebased {
        return Some("PR can't be rebased".to_owned());
    }
    if !allowed.allows(method) {
        return Some(format!(
            "Merge type {:?} disallowed by repo settings",
            method.as_str()
        ));
    }
    if pull.merge_state == MergeState::Blocked && blocks == MergeBlocks::Block {
        return Some("PR is blocked from merging by GitHub (check branch protection, required reviews, or rulesets)".to_owned());
    }
    // Upstream tests drafts and has their merges refused at every sync.
    pull.draft.then(|| "PR is a draft.".to_owned())
}
