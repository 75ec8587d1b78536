//! What happens to a pull request's jobs when the pull request changes (PLG-TRIGGER-030 … 037).

use trireme_config::job::{Filter, Presubmit};
use trireme_forge::webhook::{PullRequestAction, PullRequestEvent};
use trireme_forge::{BotUser, UserKind, has_label};
use trireme_proto::state::effect::Action;
use trireme_proto::state::{self, AbortJob, Job};

use super::comment::choose;
use super::jobs::Runs;
use super::texts::{Guidance, Welcome};
use super::trust::{is_trusted, is_trusted_pull_request};
use super::{Options, Verdict, texts};
use crate::decision::Target;
use crate::facts::{Facts, Missing};
use crate::label_names::{LGTM, NEEDS_OK_TO_TEST, OK_TO_TEST};

/// Whether the event alone allows any decision.
pub(super) fn may_matter(event: &PullRequestEvent) -> bool {
    let nobody = BotUser {
        login: String::new(),
        email: String::new(),
        app: false,
    };
    counts(event, &nobody)
}

/// Whether the event can start or abort anything.
pub(super) fn counts(event: &PullRequestEvent, bot: &BotUser) -> bool {
    match &event.action {
        PullRequestAction::Opened
        | PullRequestAction::Reopened
        | PullRequestAction::Synchronize
        | PullRequestAction::Closed
        | PullRequestAction::ReadyForReview
        | PullRequestAction::ConvertedToDraft => true,
        PullRequestAction::Edited => base_changed(event),
        PullRequestAction::Labeled => {
            let label = event.label.as_ref().map_or("", |label| &label.name);
            // What the bot set after a command was built for by that command.
            label == LGTM || (label == OK_TO_TEST && !bot.is(&event.sender.login))
        }
        _ => false,
    }
}

/// Whether the event can start anything, so that the repository's own jobs matter.
pub(super) fn may_start(event: &PullRequestEvent) -> bool {
    !matches!(
        event.action,
        PullRequestAction::Closed | PullRequestAction::ConvertedToDraft
    )
}

/// Whether head or base are not what they were, or may not be what was last told about.
pub(super) fn moves(event: &PullRequestEvent) -> bool {
    matches!(
        event.action,
        PullRequestAction::Synchronize | PullRequestAction::Reopened | PullRequestAction::Edited
    )
}

fn base_changed(event: &PullRequestEvent) -> bool {
    let is_told = |from: &Option<String>| from.as_ref().is_some_and(|from| !from.is_empty());
    is_told(&event.changes.base_branch) || is_told(&event.changes.base_sha)
}

/// `live` are the incomplete presubmits of the pull request, `newer` is what is known of it if the event is older.
pub(super) fn decide<'j>(
    event: &PullRequestEvent,
    newer: Option<&state::PullRequest>,
    options: &Options,
    bot: &BotUser,
    jobs: &[&'j Presubmit],
    live: &[&Job],
    facts: &Facts,
) -> Result<Verdict<'j>, Missing> {
    // What runs may come from a former configuration, or from the repository, which is not asked about an end.
    let ends_runs = !live.is_empty()
        && matches!(
            event.action,
            PullRequestAction::Closed
                | PullRequestAction::ConvertedToDraft
                | PullRequestAction::Synchronize
        );
    if (jobs.is_empty() && !ends_runs) || !counts(event, bot) {
        return Ok(Verdict::default());
    }
    let pr = &event.pull_request;
    let author = &pr.author.login;
    // What followed has been, or will be, built for by its own event: runs of a former head would only take the place
    // of its runs (PLG-TRIGGER-035).
    let is_passed = newer.is_some_and(|known| {
        known.head_sha != pr.head.sha || !known.open || known.draft && !pr.draft
    });
    let build = |unless_exists| match is_passed {
        true => Ok(None),
        false => build(event, jobs, unless_exists, facts),
    };
    let build_if_trusted = |unless_exists| {
        let mut verdict = Verdict::default();
        if is_trusted(author, &pr.repo, options, bot, facts)? {
            verdict.runs = build(unless_exists)?;
        } else if has_label(facts.labels()?, OK_TO_TEST) {
            if has_label(facts.labels()?, NEEDS_OK_TO_TEST) {
                let on = Target::new(&pr.repo, pr.number);
                verdict.effects.push(on.remove_label(NEEDS_OK_TO_TEST));
            }
            verdict.runs = build(unless_exists)?;
        }
        Ok(verdict)
    };
    match event.action {
        PullRequestAction::Opened => {
            if !is_trusted(author, &pr.repo, options, bot, facts)? {
                return Ok(Verdict::effects(welcome(event, options, facts)?));
            }
            if pr.draft {
                let on = Target::new(&pr.repo, pr.number);
                return Ok(Verdict::effects(vec![on.comment(texts::DRAFT)]));
            }
            Ok(Verdict {
                runs: build(true)?,
                ..Verdict::default()
            })
        }
        PullRequestAction::ReadyForReview => build_if_trusted(true),
        // People reopen to test again, and another base is another test.
        PullRequestAction::Reopened | PullRequestAction::Edited => build_if_trusted(false),
        PullRequestAction::Synchronize => {
            let mut verdict = build_if_trusted(true)?;
            // Only runs of other heads: a late event must not kill those of a newer one (PLG-TRIGGER-035).
            let head = newer.map_or(&pr.head.sha, |known| &known.head_sha);
            verdict.aborts = abort(live, |job| {
                job.pulls.iter().all(|pull| pull.head_sha != *head)
            });
            Ok(verdict)
        }
        PullRequestAction::Labeled => {
            let label = event.label.as_ref().map_or("", |label| &label.name);
            let approved_stranger =
                label == LGTM && !is_trusted_pull_request(author, &pr.repo, options, bot, facts)?;
            let runs = if approved_stranger || label == OK_TO_TEST {
                build(true)?
            } else {
                None
            };
            Ok(Verdict {
                runs,
                ..Verdict::default()
            })
        }
        PullRequestAction::Closed | PullRequestAction::ConvertedToDraft => {
            // Reopened, or ready, since.
            let is_over = newer.is_none_or(|known| !known.open || known.draft);
            Ok(Verdict {
                aborts: abort(live, |_| is_over),
                ..Verdict::default()
            })
        }
        _ => Ok(Verdict::default()),
    }
}

/// Why nothing starts on a pull request, whatever its jobs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standstill {
    /// It is a draft: nothing starts by itself.
    Draft,
    /// It cannot be merged: nothing starts at all (PLG-TRIGGER-021).
    Conflict,
}

impl Standstill {
    /// For what starts by itself. `mergeable` is none while the forge has not computed it.
    #[must_use]
    pub fn of_event(draft: bool, mergeable: Option<bool>) -> Option<Self> {
        Self::of_command(mergeable).or(draft.then_some(Self::Draft))
    }

    /// For what somebody asks for.
    #[must_use]
    pub fn of_command(mergeable: Option<bool>) -> Option<Self> {
        (mergeable == Some(false)).then_some(Self::Conflict)
    }
}

/// Everything that runs by itself, but never for drafts or what cannot be merged.
fn build<'j>(
    event: &PullRequestEvent,
    jobs: &[&'j Presubmit],
    unless_exists: bool,
    facts: &Facts,
) -> Result<Option<Runs<'j>>, Missing> {
    let pr = &event.pull_request;
    if Standstill::of_event(pr.draft, pr.mergeable).is_some() {
        return Ok(None);
    }
    let chosen = choose(&Filter::TestAll, &pr.base.branch, jobs, facts)?;
    if chosen.is_empty() {
        return Ok(None);
    }
    Ok(Some(Runs {
        pull_request: pr.clone(),
        base_sha: facts.branch_head(&pr.base.branch)?.to_owned(),
        jobs: chosen,
        retest: false,
        unless_exists,
        cause: event
            .label
            .as_ref()
            .map_or_else(String::new, |label| format!("label {}", label.name)),
    }))
}

fn abort(live: &[&Job], which: impl Fn(&Job) -> bool) -> Vec<AbortJob> {
    live.iter()
        .filter(|job| which(job))
        .map(|job| AbortJob {
            id: job.id.clone(),
            reason: texts::ABORTED.to_owned(),
        })
        .collect()
}

fn welcome(
    event: &PullRequestEvent,
    options: &Options,
    facts: &Facts,
) -> Result<Vec<Action>, Missing> {
    let pr = &event.pull_request;
    let on = Target::new(&pr.repo, pr.number);
    let mut effects = Vec::new();
    let mut guidance = Guidance::Plain;
    if !options.ignore_ok_to_test {
        guidance = guide(event, options, facts)?;
        // Other automation may have vouched for it already.
        if !has_label(facts.labels()?, OK_TO_TEST) {
            effects.push(on.add_label(NEEDS_OK_TO_TEST));
        }
    }
    let welcome = Welcome {
        author: &pr.author.login,
        repo: &pr.repo,
        trusted_org: &options.trusted_org,
        join_org_url: &options.join_org_url,
        ignore_ok_to_test: options.ignore_ok_to_test,
        guidance,
    };
    effects.push(on.comment(welcome.text()));
    Ok(effects)
}

/// PLG-TRIGGER-037.
fn guide(event: &PullRequestEvent, options: &Options, facts: &Facts) -> Result<Guidance, Missing> {
    let pr = &event.pull_request;
    let prominent = &options.prominent;
    if prominent.disabled || pr.author.kind == UserKind::Bot {
        return Ok(Guidance::Plain);
    }
    let merged = facts.merged_pull_requests(&pr.repo.org, &pr.author.login)?;
    Ok(if merged >= prominent.merged_threshold {
        Guidance::Prominent(prominent.message.clone())
    } else {
        Guidance::Plain
    })
}

#[cfg(test)]
mod tests {
    use trireme_config::Config;
    use trireme_forge::Label;
    use trireme_proto::state::Pull;

    use super::*;
    use crate::testing::{PRESUBMITS, bot, config, labels, pull_request_event};

    fn live(id: &str, head: &str) -> Job {
        Job {
            id: id.to_owned(),
            pulls: vec![Pull {
                number: 5,
                head_sha: head.to_owned(),
                ..Pull::default()
            }],
            ..Job::default()
        }
    }

    struct World {
        config: std::sync::Arc<Config>,
        options: Options,
        facts: Facts,
    }

    /// The author is a member or not.
    fn world(member: bool, names: &[&str]) -> World {
        World {
            config: config(PRESUBMITS),
            options: Options::default(),
            facts: Facts {
                members: [(("org".to_owned(), "author".to_owned()), member)].into(),
                collaborators: [("author".to_owned(), false)].into(),
                labels: Some(labels(names)),
                files: Some(vec!["docs/a.md".into()]),
                branch_heads: [("main".to_owned(), "base".to_owned())].into(),
                merged_pull_requests: [(("org".to_owned(), "author".to_owned()), 2)].into(),
                ..Facts::default()
            },
        }
    }

    impl World {
        fn sees(&self, event: &PullRequestEvent) -> String {
            self.sees_late(event, None)
        }

        fn sees_late(
            &self,
            event: &PullRequestEvent,
            newer: Option<&state::PullRequest>,
        ) -> String {
            let jobs: Vec<&Presubmit> = self.config.presubmits("org/repo").collect();
            let (old, new) = (live("old", "old"), live("new", &"a".repeat(40)));
            match decide(
                event,
                newer,
                &self.options,
                &bot(),
                &jobs,
                &[&old, &new],
                &self.facts,
            ) {
                Ok(verdict) => verdict.to_string(),
                Err(missing) => format!("asks for {missing}"),
            }
        }

        fn told(&self, action: &str) -> String {
            self.sees(&pull_request_event(action))
        }
    }

    fn labeled(label: &str, sender: &str) -> PullRequestEvent {
        let mut event = pull_request_event("labeled");
        event.label = Some(Label {
            name: label.to_owned(),
            ..Label::default()
        });
        event.sender.login = sender.to_owned();
        event
    }

    #[test]
    fn plg_trigger_030_without_presubmits_nothing_happens() {
        let mut world = world(false, &[]);
        world.config = config("{}");
        assert_eq!(world.told("opened"), "nothing");
    }

    #[test]
    fn plg_trigger_031_opened() {
        assert_eq!(world(true, &[]).told("opened"), "run unit docs once");
        let mut draft = pull_request_event("opened");
        draft.pull_request.draft = true;
        insta::assert_snapshot!(world(true, &[]).sees(&draft), @r"
        comment: Skipping CI for Draft Pull Request.
        If you want CI signal for your change, please convert it to an actual PR.
        You can still manually trigger a test run with `/test all`
        ");
        let mut conflicting = pull_request_event("opened");
        conflicting.pull_request.mergeable = Some(false);
        assert_eq!(world(true, &[]).sees(&conflicting), "nothing");

        let first_line = |world: &World| {
            world
                .told("opened")
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        assert_eq!(first_line(&world(false, &[])), "+needs-ok-to-test");
        assert_eq!(
            first_line(&world(false, &["ok-to-test"])),
            "comment: Hi @author. Thanks for your PR."
        );
        let mut ignoring = world(false, &[]);
        ignoring.options.ignore_ok_to_test = true;
        assert_eq!(
            first_line(&ignoring),
            "comment: Hi @author. Thanks for your PR."
        );
    }

    #[test]
    fn plg_trigger_032_updates_build_what_is_trusted() {
        for action in ["ready_for_review", "synchronize"] {
            let told = world(true, &[]).told(action);
            assert!(told.ends_with("run unit docs once"), "{action}: {told}");
        }
        assert_eq!(world(true, &[]).told("reopened"), "run unit docs");
        assert_eq!(world(false, &[]).told("reopened"), "nothing");
        assert_eq!(
            world(false, &["ok-to-test", "needs-ok-to-test"]).told("reopened"),
            "-needs-ok-to-test\nrun unit docs"
        );
        let mut rebased = pull_request_event("edited");
        assert_eq!(world(true, &[]).sees(&rebased), "nothing");
        rebased.changes.base_branch = Some("old".into());
        assert_eq!(world(true, &[]).sees(&rebased), "run unit docs");
        rebased.pull_request.draft = true;
        assert_eq!(world(true, &[]).sees(&rebased), "nothing");
    }

    #[test]
    fn plg_trigger_033_labels_that_build() {
        let (member, stranger) = (world(true, &[]), world(false, &[]));
        assert_eq!(
            stranger.sees(&labeled("lgtm", "member")),
            "run unit docs once"
        );
        assert_eq!(member.sees(&labeled("lgtm", "member")), "nothing");
        assert_eq!(
            world(false, &["ok-to-test"]).sees(&labeled("lgtm", "member")),
            "nothing"
        );
        assert_eq!(
            stranger.sees(&labeled("ok-to-test", "member")),
            "run unit docs once"
        );
        assert_eq!(
            stranger.sees(&labeled("ok-to-test", "k8s-ci-robot")),
            "nothing"
        );
        assert_eq!(stranger.sees(&labeled("approved", "member")), "nothing");

        let jobs: Vec<&Presubmit> = stranger.config.presubmits("org/repo").collect();
        let event = labeled("lgtm", "member");
        let verdict = decide(
            &event,
            None,
            &stranger.options,
            &bot(),
            &jobs,
            &[],
            &stranger.facts,
        );
        assert_eq!(verdict.unwrap().runs.unwrap().cause, "label lgtm");
    }

    #[test]
    fn plg_trigger_034_what_nobody_waits_for_is_aborted() {
        let both = "abort old: Aborted by trigger plugin.\nabort new: Aborted by trigger plugin.";
        assert_eq!(world(true, &[]).told("closed"), both);
        assert_eq!(world(false, &[]).told("converted_to_draft"), both);
    }

    #[test]
    fn plg_trigger_035_a_push_aborts_runs_of_other_heads_only() {
        assert_eq!(
            world(true, &[]).told("synchronize"),
            "abort old: Aborted by trigger plugin.\nrun unit docs once"
        );
        assert_eq!(
            world(false, &[]).told("synchronize"),
            "abort old: Aborted by trigger plugin."
        );
    }

    /// What comes late starts nothing that would take the place of what runs now, and ends nothing of it.
    #[test]
    fn plg_trigger_035_what_comes_late_leaves_the_newest_head_alone() {
        let now = |head: &str, open, draft| state::PullRequest {
            head_sha: head.to_owned(),
            open,
            draft,
            ..state::PullRequest::default()
        };
        let told = |world: &World, action: &str, newer: &state::PullRequest| {
            world.sees_late(&pull_request_event(action), Some(newer))
        };
        let (member, head) = (world(true, &[]), "a".repeat(40));
        let abort = |id: &str| format!("abort {id}: Aborted by trigger plugin.");
        // "old" is the head of its run.
        let pushed = now("old", true, false);
        for (action, expected) in [
            ("opened", "nothing".to_owned()),
            ("reopened", "nothing".to_owned()),
            ("ready_for_review", "nothing".to_owned()),
            ("synchronize", abort("new")),
            ("closed", "nothing".to_owned()),
            ("converted_to_draft", "nothing".to_owned()),
        ] {
            assert_eq!(told(&member, action, &pushed), expected, "{action}");
        }
        let labeled = labeled("ok-to-test", "member");
        assert_eq!(member.sees_late(&labeled, Some(&pushed)), "nothing");
        // Who is new is welcomed, however late.
        let welcomed = told(&world(false, &[]), "opened", &pushed);
        assert!(welcomed.starts_with("+needs-ok-to-test\n"), "{welcomed}");

        assert_eq!(
            told(&member, "opened", &now(&head, false, false)),
            "nothing"
        );
        assert_eq!(told(&member, "opened", &now(&head, true, true)), "nothing");
        let retitled = now(&head, true, false);
        assert_eq!(told(&member, "opened", &retitled), "run unit docs once");
        let both = format!("{}\n{}", abort("old"), abort("new"));
        assert_eq!(told(&member, "closed", &now(&head, false, false)), both);
        assert_eq!(
            told(&member, "converted_to_draft", &now(&head, true, true)),
            both
        );
    }

    #[test]
    fn plg_trigger_037_who_comes_often_is_asked_to_join() {
        let hint = "We noticed you've done this a few times!";
        let mut world = world(false, &[]);
        assert!(!world.told("opened").contains(hint));
        world.options.prominent.merged_threshold = 2;
        assert!(world.told("opened").contains(hint));
        let mut by_app = pull_request_event("opened");
        by_app.pull_request.author.kind = UserKind::Bot;
        assert!(!world.sees(&by_app).contains(hint));
        world.options.prominent.disabled = true;
        world.facts.merged_pull_requests.clear();
        assert!(!world.told("opened").contains(hint));
    }
}
