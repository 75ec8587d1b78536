//! `lgtm`: the label `lgtm`, set and removed by what reviewers say and removed by new commits.

mod decide;

use async_trait::async_trait;
use trireme_forge::RepoId;
use trireme_forge::webhook::Event;

use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::payload::not_for_now;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use decide::Options;
use trireme_office::RunningConfig;

pub(crate) struct Lgtm;

fn options(running: &RunningConfig, repo: &RepoId) -> Options {
    let section = running.plugins.lgtm_for(&repo.org, &repo.repo);
    Options {
        review_acts_as_lgtm: section.review_acts_as_lgtm,
        store_tree_hash: section.store_tree_hash,
        sticky_team: section.sticky_lgtm_team,
        skip_collaborators: running.plugins.skip_collaborators(&repo.org, &repo.repo),
    }
}

#[async_trait]
impl Plugin for Lgtm {
    fn name(&self) -> &'static str {
        "lgtm"
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
        let mut decision = Decision::nothing();
        if let Some(request) = decide::request(event, &options, cx.bot) {
            let mut facts = Facts::default();
            if request.add
                && let Some(comment) = event.generic_comment()
                && let Some(refusal) = not_for_now(cx, &comment, &mut facts.pull_request).await?
            {
                return Ok(decide::refuse(&request, refusal));
            }
            let decide = |facts: &Facts| decide::decide_request(&request, &options, cx.bot, facts);
            decision = gather(cx, &request.on, facts, decide).await?;
        }
        if let Event::PullRequest(event) = event
            && decide::is_push(event)
        {
            let pr = &event.pull_request;
            let on = Target::new(repo, pr.number);
            let is_late = cx.is_late(pr.updated_at);
            let decide =
                |facts: &Facts| decide::decide_push(event, is_late, &options, cx.bot, facts);
            decision = decision.and(gather(cx, &on, Facts::default(), decide).await?);
        }
        Ok(decision)
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let config = scope.per_repo(|repo| {
            let section = scope.plugins.lgtm_for(&repo.org, &repo.repo);
            let mut lines = Vec::new();
            if section.review_acts_as_lgtm {
                lines.push("<li>Reviews of \"approve\" or \"request changes\" act as adding or removing LGTM.</li>".to_owned());
            }
            if section.store_tree_hash {
                lines.push("<li>Squashing commits does not remove LGTM.</li>".to_owned());
            }
            if !section.sticky_lgtm_team.is_empty() {
                let team = &section.sticky_lgtm_team;
                lines.push(format!("<li>Commits from \"{team}\" do not remove LGTM.</li>"));
            }
            (!lines.is_empty()).then(|| {
                let lines = lines.join("\n");
                format!("The plugin has the following configuration:<ul>\n{lines}\n</ul>")
            })
        });
        PluginHelp {
            description: "The lgtm plugin manages the application and removal of the 'lgtm' (Looks Good To Me) label which is typically used to gate merging.".to_owned(),
            config,
            commands: vec![Command {
                usage: "/[remove-]lgtm [cancel] or GitHub Review action",
                featured: true,
                description: "Adds or removes the 'lgtm' label which is typically used to gate merging.",
                examples: &[
                    "/lgtm",
                    "/lgtm cancel",
                    "/remove-lgtm",
                    "<a href=\"https://help.github.com/articles/about-pull-request-reviews/\">'Approve' or 'Request Changes'</a>",
                ],
                who_can_use: "Collaborators on the repository. '/lgtm cancel' can be used additionally by the PR author.",
            }],
            ..PluginHelp::default()
        }
    }
}
