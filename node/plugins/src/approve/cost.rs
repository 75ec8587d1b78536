//! The pure part of approve on a pull request that somebody makes up, for `benches/approve.rs` to time.

use jiff::Timestamp;
use trireme_forge::owners::RepoOwners;
use trireme_forge::{BotUser, IssueComment, RepoId, User};

use super::decide::{Occasion, Options, decide};
use crate::facts::Facts;

/// A pull request of `author` with all facts that the decision asks for.
pub struct Scene {
    occasion: Occasion,
    options: Options,
    bot: BotUser,
    facts: Facts,
}

impl Scene {
    /// `comments` are author and text, oldest first.
    #[must_use]
    pub fn new(files: Vec<String>, owners: RepoOwners, comments: &[(&str, &str)]) -> Self {
        let comments = comments
            .iter()
            .zip(1..)
            .map(|((author, body), id)| IssueComment {
                id,
                html_url: format!("https://github.com/org/repo/pull/5#issuecomment-{id}"),
                author: User::new(*author),
                body: (*body).to_owned(),
                created_at: Timestamp::UNIX_EPOCH,
                updated_at: Timestamp::UNIX_EPOCH,
            });
        Self {
            occasion: Occasion::of(RepoId::new("org", "repo"), 5, "main", "author"),
            options: Options {
                issue_required: false,
                require_self_approval: false,
                lgtm_acts_as_approve: false,
                ignore_review_state: false,
                command_help_link: "https://go.k8s.io/bot-commands".into(),
                pr_process_link: "https://process".into(),
                link_url: "https://github.com".into(),
                owners_file_name: "OWNERS".into(),
            },
            bot: BotUser {
                login: "k8s-ci-robot".into(),
                email: String::new(),
                app: false,
            },
            facts: Facts {
                labels: Some(vec![]),
                comments: Some(comments.collect()),
                reviews: Some(vec![]),
                review_comments: Some(vec![]),
                files: Some(files),
                owners: [("main".to_owned(), owners)].into(),
                ..Facts::default()
            },
        }
    }

    /// What approve does about it, as text; `None` if a fact is missing.
    #[must_use]
    pub fn decide(&self) -> Option<String> {
        let decision = decide(&self.occasion, &self.options, &self.bot, &self.facts);
        decision.ok().map(|decision| decision.to_string())
    }
}
