//! `approve`: the label `approved` and the notification that says what is missing.
//!
//! Everything is computed anew from what people wrote and from the OWNERS files whenever something happens that could
//! change it; nothing is remembered between events.

mod approvals;
#[cfg(feature = "cost")]
pub mod cost;
mod coverage;
mod decide;
mod notification;

use async_trait::async_trait;
use trireme_forge::RepoId;
use trireme_forge::webhook::Event;

use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use decide::Options;
use trireme_office::RunningConfig;

pub(crate) struct Approve;

fn options(running: &RunningConfig, repo: &RepoId) -> Options {
    let section = running.plugins.approve_for(&repo.org, &repo.repo);
    let names = running.plugins.owners_filenames(&repo.org, &repo.repo);
    Options {
        issue_required: section.issue_required,
        require_self_approval: !section.has_self_approval(),
        lgtm_acts_as_approve: section.lgtm_acts_as_approve,
        ignore_review_state: !section.considers_review_state(),
        command_help_link: section.command_help_link,
        pr_process_link: section.pr_process_link,
        link_url: site(&running.config.prow.github.link_url),
        owners_file_name: names.owners,
    }
}

/// An address without path, as links are built on it.
fn site(url: &str) -> String {
    let from = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[from..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |path| from + path);
    url[..end].to_owned()
}

#[async_trait]
impl Plugin for Approve {
    fn name(&self) -> &'static str {
        "approve"
    }

    fn events(&self) -> &'static [EventKind] {
        &[
            EventKind::PullRequest,
            EventKind::Review,
            EventKind::Generic,
        ]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        event
            .repo()
            .is_some_and(|repo| decide::may_matter(event, &options(cx.running, repo)))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(repo) = event.repo() else {
            return Ok(Decision::nothing());
        };
        let options = options(cx.running, repo);
        let Some(occasion) = decide::occasion(event, &options, cx.bot) else {
            return Ok(Decision::nothing());
        };
        let on = Target::new(&occasion.repo, occasion.number);
        let decide = |facts: &Facts| decide::decide(&occasion, &options, cx.bot, facts);
        gather(cx, &on, Facts::default(), decide).await
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let config = scope.per_repo(|repo| {
            let section = scope.plugins.approve_for(&repo.org, &repo.repo);
            let do_not = |yes: bool| if yes { "" } else { "do not " };
            let will = |yes: bool| if yes { "will " } else { "will not " };
            Some(format!(
                "Pull requests {} require an associated issue.<br>Pull request authors {} implicitly approve their own PRs.<br>The /lgtm [cancel] command(s) {} act as approval.<br>A GitHub approved or changes requested review {} act as approval or cancel respectively.",
                do_not(section.issue_required),
                do_not(section.has_self_approval()),
                will(section.lgtm_acts_as_approve),
                will(section.considers_review_state()),
            ))
        });
        PluginHelp {
            description: "The approve plugin implements a pull request approval process that manages the 'approved' label and an approval notification comment. Approval is achieved when the set of users that have approved the PR is capable of approving every file changed by the PR. A user is able to approve a file if their username or an alias they belong to is listed in the 'approvers' section of an OWNERS file in the directory of the file or higher in the directory tree.\n<br>\n<br>Per-repo configuration may be used to require that PRs link to an associated issue before approval is granted. It may also be used to specify that the PR authors implicitly approve their own PRs.\n<br>For more information see <a href=\"https://docs.prow.k8s.io/docs/components/plugins/approve/approvers/\">here</a>.".to_owned(),
            config,
            commands: vec![Command {
                usage: "/[remove-]approve [no-issue|cancel]",
                featured: true,
                description: "Approves a pull request",
                examples: &["/approve", "/approve no-issue", "/remove-approve"],
                who_can_use: "Users listed as 'approvers' in appropriate OWNERS files.",
            }],
            ..PluginHelp::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_built_on_the_forges_address() {
        assert_eq!(site("https://github.com"), "https://github.com");
        assert_eq!(
            site("https://ghe.example.com/x/?y"),
            "https://ghe.example.com"
        );
        assert_eq!(site("github.com"), "github.com");
    }
}
