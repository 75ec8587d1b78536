//! Sections that several plugins share.

use std::collections::BTreeMap;

object! {
    /// How approval works in some repositories.
    pub struct Approve {
        /// `org` or `org/repo`.
        [omit "repos"] repos: Vec<String>,
        /// Whether an issue must be linked.
        [omit "issue_required"] issue_required: bool,
        /// Whether authors must approve their own pull requests in so many words; see [`Approve::has_self_approval`].
        [omit "require_self_approval"] require_self_approval: Option<bool>,
        [omit "lgtm_acts_as_approve"] lgtm_acts_as_approve: bool,
        /// See [`Approve::considers_review_state`].
        [omit "ignore_review_state"] ignore_review_state: Option<bool>,
        [omit "commandHelpLink"] command_help_link: String,
        [omit "pr_process_link"] pr_process_link: String,
    }
}

impl Approve {
    /// Whether opening a pull request counts as the author's approval.
    #[must_use]
    pub fn has_self_approval(&self) -> bool {
        !self.require_self_approval.unwrap_or(false)
    }

    /// Whether a review of state "approved" counts as `/approve`.
    #[must_use]
    pub fn considers_review_state(&self) -> bool {
        !self.ignore_review_state.unwrap_or(false)
    }

    pub(super) fn with_links(mut self) -> Self {
        if self.command_help_link.is_empty() {
            "https://go.k8s.io/bot-commands".clone_into(&mut self.command_help_link);
        }
        if self.pr_process_link.is_empty() {
            "https://git.k8s.io/community/contributors/guide/owners.md#the-code-review-process"
                .clone_into(&mut self.pr_process_link);
        }
        self
    }
}

object! {
    /// How LGTM works in some repositories.
    pub struct Lgtm {
        /// `org` or `org/repo`.
        [omit "repos"] repos: Vec<String>,
        /// Whether a review acts as `/lgtm` or `/lgtm cancel`.
        [omit "review_acts_as_lgtm"] review_acts_as_lgtm: bool,
        /// Whether the tree's hash is remembered, so that a squash of the same tree keeps the label.
        [omit "store_tree_hash"] store_tree_hash: bool,
        /// The team of the org whose members keep the label when they push.
        [omit "trusted_team_for_sticky_lgtm"] sticky_lgtm_team: String,
    }
}

object! {
    /// Who may start tests in some repositories.
    pub struct Trigger {
        /// `org` or `org/repo`.
        [omit "repos"] repos: Vec<String>,
        /// Logins of apps whose pull requests are trusted, without their `[bot]`.
        [omit "trusted_apps"] trusted_apps: Vec<String>,
        /// An org whose members are trusted too.
        [omit "trusted_org"] trusted_org: String,
        /// Where people read how to become members.
        [omit "join_org_url"] join_org_url: String,
        /// Whether collaborators of the repository are not trusted.
        [omit "only_org_members"] only_org_members: bool,
        /// Whether `/ok-to-test` has no effect.
        [omit "ignore_ok_to_test"] ignore_ok_to_test: bool,
        /// Whether failed GitHub workflows are run again too.
        [omit "trigger_github_workflows"] trigger_github_workflows: bool,
        [omit "org_invite"] org_invite: Option<OrgInvite>,
    }
}

impl Trigger {
    pub(super) fn set_defaults(&mut self) {
        if !self.trusted_org.is_empty() && self.join_org_url.is_empty() {
            self.join_org_url = format!("https://github.com/orgs/{}/people", self.trusted_org);
        }
    }
}

object! {
    /// Invitations to contributors who are not members.
    pub struct OrgInvite {
        [omit "prominent"] prominent: Option<ProminentOrgInvite>,
    }
}

object! {
    /// The invitation that stands out, for people with several merged pull requests.
    pub struct ProminentOrgInvite {
        [omit "disabled"] disabled: bool,
        [omit "merged_pr_threshold"] merged_pr_threshold: Option<i64>,
        [omit "message"] message: String,
    }
}

object! {
    /// How OWNERS files are read.
    pub struct Owners {
        /// `org` or `org/repo` whose Markdown files may name owners in their head.
        [omit "mdyamlrepos"] md_yaml_repos: Vec<String>,
        /// `org` or `org/repo` whose collaborators do not count.
        [omit "skip_collaborators"] skip_collaborators: Vec<String>,
        /// Labels that OWNERS files may not set.
        [omit "labels_denylist"] labels_denylist: Option<Vec<String>>,
        /// By `org/repo` or `org`.
        [omit "filenames"] filenames: BTreeMap<String, OwnersFilenames>,
    }
}

impl Owners {
    /// Whether a file that was just read says nothing about them.
    pub(crate) fn is_unset(&self) -> bool {
        serde_json::to_value(self).ok() == serde_json::to_value(Self::default()).ok()
    }

    pub(super) fn set_defaults(&mut self) {
        self.labels_denylist
            .get_or_insert_with(|| vec!["approved".to_owned(), "lgtm".to_owned()]);
    }
}

object! {
    pub struct OwnersFilenames {
        [omit "owners"] owners: String,
        [omit "owners_aliases"] owners_aliases: String,
    }
}

impl OwnersFilenames {
    #[must_use]
    pub fn usual() -> Self {
        Self {
            owners: "OWNERS".to_owned(),
            owners_aliases: "OWNERS_ALIASES".to_owned(),
        }
    }
}
