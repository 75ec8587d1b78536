//! What plugins are told beside `plugins.yaml`: what the flags of Prow's hook and of its external plugins say. Data only.

use std::path::PathBuf;
use std::time::Duration;

use trireme_outside::jira::JiraAuth;
use trireme_outside::service::Secret;

/// All of them.
#[derive(Clone, Default)]
pub struct PluginOptions {
    /// Whether nothing outside is changed: the forge's client sees to its own part, the rest is not asked.
    pub dry_run: bool,
    pub cherrypicker: CherrypickerOptions,
    pub needs_rebase: NeedsRebaseOptions,
    /// Without it nobody is told (HOOK-002).
    pub slack: Option<SlackOptions>,
    pub jira: Option<JiraOptions>,
    /// A private SSH key without passphrase, with which the commits that we make and push are signed (GHC-003).
    pub git_signing_key: Option<PathBuf>,
    /// Who is asked for pictures and jokes; `None`: nobody, and such commands are not heard (PLG-FUN-006).
    pub fun: Option<FunOptions>,
}

/// Addresses of those who know pictures and jokes, or where something stands in for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunOptions {
    pub jokes: String,
    pub dogs: String,
    /// What stands before the files of dogs that are fine.
    pub fine_dogs: String,
    pub cats: String,
    /// What stands before the file of the grumpy cat.
    pub grumpy_cats: String,
    pub geese: String,
    pub ponies: String,
}

impl Default for FunOptions {
    fn default() -> Self {
        Self {
            jokes: "https://icanhazdadjoke.com".to_owned(),
            dogs: "https://random.dog/woof.json".to_owned(),
            fine_dogs: "https://storage.googleapis.com/this-is-fine-images/".to_owned(),
            cats: "https://api.thecatapi.com/v1/images/search?format=json&results_per_page=1"
                .to_owned(),
            grumpy_cats: "https://upload.wikimedia.org/wikipedia/commons/e/ee/".to_owned(),
            geese: "https://api.unsplash.com/photos/random?query=goose".to_owned(),
            ponies: "https://theponyapi.com/api/v1/pony/random".to_owned(),
        }
    }
}

#[derive(Clone)]
pub struct SlackOptions {
    /// [`trireme_outside::slack::SLACK_API`], or where something stands in for it.
    pub api: String,
    pub token: Secret,
}

#[derive(Clone)]
pub struct JiraOptions {
    /// The server's address.
    pub url: String,
    pub auth: JiraAuth,
    /// Whether it is only asked, and no issue linked.
    pub dry_run: bool,
}

/// PLG-CHERRYPICK-001
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CherrypickerOptions {
    /// Put on new pull requests.
    pub labels: Vec<String>,
    /// Whether who asked is assigned.
    pub use_prow_assignments: bool,
    /// Whether anybody may ask, not only members of the org.
    pub allow_all: bool,
    pub create_issue_on_conflict: bool,
    /// Labels that begin so ask for a cherry-pick onto the branch that the rest names. Not empty.
    pub label_prefix: String,
}

impl Default for CherrypickerOptions {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            use_prow_assignments: true,
            allow_all: false,
            create_issue_on_conflict: false,
            label_prefix: "cherrypick/".to_owned(),
        }
    }
}

/// PLG-NEEDSREBASE-002, PLG-NEEDSREBASE-004
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedsRebaseOptions {
    /// How often all pull requests are looked at.
    pub update_period: Duration,
    /// Comments on a pull request that was looked at so lately change nothing; zero for none.
    pub cache_valid_time: Duration,
}

impl Default for NeedsRebaseOptions {
    fn default() -> Self {
        Self {
            update_period: Duration::from_secs(24 * 3600),
            cache_valid_time: Duration::ZERO,
        }
    }
}
