//! What has changed since that happened which a plan was decided for. A plan may have waited, its webhook may have come late
//! or tell of a former head: its effects must not undo what somebody else did since.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use trireme_forge::{BotUser, Change, ForgeError, RecordedChange, RepoId, norm_login};
use trireme_office::Work;
use trireme_proto::state::effect::Action;
use trireme_proto::state::{Delivery, Effect, EffectState, Plan};
use trireme_state::{EFFECTS_LEVEL, State};

use super::Session;
use super::effects::{millis, subject};
use crate::decision::sha256_of;
use crate::plugin::{is_late, outage};

/// A plan that is older than this when an effect's turn comes has waited: what it was decided on is looked at again.
const FRESH: Duration = Duration::from_secs(10);

/// What was read of one subject while a plan is carried out.
pub(super) struct ReadRecord {
    of: (RepoId, u64),
    at: Instant,
    bot: BotUser,
    record: Vec<RecordedChange>,
}

impl Session {
    /// Why the effect of a plan must not be sent any more: the pull request has another head, or, if the plan waited or is
    /// for what happened long ago, somebody else has changed since what it would change. People whom somebody else took
    /// off or put on are left out of it. `looked` is kept from one effect of the plan to the next.
    pub(super) async fn outdated(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        effect: &Effect,
        action: &mut Action,
        looked: &mut Option<ReadRecord>,
    ) -> Result<Option<String>, Work> {
        let view = self.office.view();
        if view.feature_level() < EFFECTS_LEVEL {
            return Ok(None);
        }
        let now_ms = self.office.now_ms();
        let happened = self.happened(&view, delivery, action);
        let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::MAX);
        let is_long_ago = happened.is_some_and(|happened| is_late(happened, now));
        let is_old = now_ms.saturating_sub(plan.planned_ms) > millis(FRESH);
        let waited = effect.attempts > 0 || is_old || is_long_ago;
        let head = head_of(plan, effect);
        // A webhook that comes late makes a fresh plan for a former head. What was begun for a head that goes away
        // meanwhile is brought to its end: half of it would stay for good.
        let has_moved = || {
            let known = view.pull_request(&delivery.org, &delivery.repo, delivery.number);
            let mut done = plan
                .effects
                .iter()
                .filter(|done| done.state() == EffectState::Done);
            known.is_some_and(|known| known.head_sha != head)
                && !done.any(|done| head_of(plan, done) == head)
        };
        if !head.is_empty() && delivery.number > 0 && (waited || has_moved()) {
            let repo = RepoId::new(&delivery.org, &delivery.repo);
            match self.tools.forge.pull_request(&repo, delivery.number).await {
                Ok(pr) if pr.head.sha != head => {
                    return Ok(Some(format!(
                        "it was decided for {head}, the head is {} now",
                        pr.head.sha
                    )));
                }
                Ok(_) => {}
                Err(error) => return unless_outage(&error, "cannot see the head"),
            }
        }
        if !waited {
            return Ok(None);
        }
        if let Some(why) = self.rewritten(action).await? {
            return Ok(Some(why));
        }
        // By the forge's clock, if it told.
        let planned = Timestamp::from_millisecond(plan.planned_ms).unwrap_or(Timestamp::MAX);
        let since = happened.unwrap_or(planned);
        self.overruled(since, action, looked).await
    }

    /// When that happened which the delivery tells of, for an action that may undo what followed.
    fn happened(&self, state: &State, delivery: &Delivery, action: &Action) -> Option<Timestamp> {
        on_record(action)?;
        self.events.get(state, delivery).ok()?.event.happened()
    }

    /// Why a text must not be replaced: it is gone, or is neither what the new one was made from nor the new one.
    async fn rewritten(&self, action: &Action) -> Result<Option<String>, Work> {
        let forge = self.tools.forge.as_ref();
        let (now, was, made) = match action {
            Action::EditComment(edit) if !edit.was_sha256.is_empty() => {
                let (repo, _) = subject(edit.subject.as_ref());
                let now = forge.comment(&repo, edit.comment_id).await;
                (
                    now.map(|comment| comment.body),
                    &edit.was_sha256,
                    &edit.body,
                )
            }
            Action::EditIssue(edit) if !edit.was_sha256.is_empty() => {
                let Some(made) = &edit.body else {
                    return Ok(None);
                };
                let (repo, number) = subject(edit.subject.as_ref());
                let now = forge.issue(&repo, number).await;
                (now.map(|issue| issue.body), &edit.was_sha256, made)
            }
            _ => return Ok(None),
        };
        match now {
            Ok(now) if now == *made || sha256_of(&now) == *was => Ok(None),
            Ok(_) => Ok(Some("the text was changed since it was decided".to_owned())),
            Err(error) if error.is_not_found() => Ok(Some("the text is gone".to_owned())),
            Err(error) => unless_outage(&error, "cannot see the text"),
        }
    }

    /// Whether somebody else has changed since then what the action would change, by the forge's record.
    async fn overruled(
        &self,
        since: Timestamp,
        action: &mut Action,
        looked: &mut Option<ReadRecord>,
    ) -> Result<Option<String>, Work> {
        let Some(of) = on_record(action) else {
            return Ok(None);
        };
        let known = looked.take();
        let known = known.filter(|looked| looked.of == of && looked.at.elapsed() < FRESH);
        let looked = looked.insert(match known {
            Some(known) => known,
            None => match self.read_record(of).await {
                Ok(looked) => looked,
                Err(error) => return unless_outage(&error, "cannot see who changed it since"),
            },
        });
        let since = looked.record.iter().filter(|line| line.at > since);
        let meanwhile = Meanwhile {
            since: since.collect(),
            bot: &looked.bot,
        };
        Ok(meanwhile.overrules(action))
    }

    async fn read_record(&self, of: (RepoId, u64)) -> Result<ReadRecord, ForgeError> {
        let forge = self.tools.forge.as_ref();
        let at = Instant::now();
        let bot = forge.bot_user(&of.0.org).await?;
        let record = forge.record(&of.0, of.1).await?;
        Ok(ReadRecord {
            of,
            at,
            bot,
            record,
        })
    }
}

/// The head that an effect is for; empty for any.
fn head_of<'a>(plan: &'a Plan, effect: &'a Effect) -> &'a str {
    match effect.head_sha.as_str() {
        "" => &plan.head_sha,
        head => head,
    }
}

/// The issue or pull request whose record tells of such changes; none if there is no such record, or nothing to overwrite.
fn on_record(action: &Action) -> Option<(RepoId, u64)> {
    let of = match action {
        Action::AddLabel(effect) | Action::RemoveLabel(effect) => effect.subject.as_ref(),
        Action::Assign(effect)
        | Action::Unassign(effect)
        | Action::RequestReview(effect)
        | Action::UnrequestReview(effect) => effect.subject.as_ref(),
        Action::EditIssue(effect) if effect.title.is_some() => effect.subject.as_ref(),
        Action::Milestone(effect) => effect.subject.as_ref(),
        Action::Close(effect) => effect.subject.as_ref(),
        Action::Reopen(effect) => effect.subject.as_ref(),
        Action::PinIssue(effect) => effect.subject.as_ref(),
        _ => return None,
    };
    Some(subject(of)).filter(|(_, number)| *number > 0)
}

/// What was done since a plan was decided, oldest first.
struct Meanwhile<'a> {
    since: Vec<&'a RecordedChange>,
    bot: &'a BotUser,
}

impl Meanwhile<'_> {
    /// Why the action must not be done, if so. Takes those people out of it whom somebody else has put on or taken off.
    fn overrules(&self, action: &mut Action) -> Option<String> {
        match action {
            Action::AddLabel(effect) | Action::RemoveLabel(effect) => {
                let same = |label: &str| label.eq_ignore_ascii_case(&effect.label);
                self.by_another(|change| match change {
                    Change::Labeled(label) | Change::Unlabeled(label) => same(label),
                    _ => false,
                })
            }
            Action::EditIssue(effect) if effect.title.is_some() => {
                self.by_another(|change| matches!(change, Change::Renamed(_)))
            }
            Action::Milestone(_) => self.by_another(|change| {
                matches!(change, Change::Milestoned(_) | Change::Demilestoned(_))
            }),
            Action::Close(_) | Action::Reopen(_) => {
                self.by_another(|change| matches!(change, Change::Closed | Change::Reopened))
            }
            Action::PinIssue(_) => {
                self.by_another(|change| matches!(change, Change::Pinned | Change::Unpinned))
            }
            Action::Assign(effect) | Action::Unassign(effect) => {
                self.spare(&mut effect.logins, |change| match change {
                    Change::Assigned(login) | Change::Unassigned(login) => Some(login),
                    _ => None,
                })
            }
            Action::RequestReview(effect) | Action::UnrequestReview(effect) => {
                self.spare(&mut effect.logins, |change| match change {
                    Change::ReviewRequested(login) | Change::ReviewRequestRemoved(login) => {
                        Some(login)
                    }
                    _ => None,
                })
            }
            _ => None,
        }
    }

    /// The last of these changes, if it is not ours.
    fn by_another(&self, is_such: impl Fn(&Change) -> bool) -> Option<String> {
        let last = self.since.iter().rev().find(|line| is_such(&line.change))?;
        let by = &last.actor.login;
        let is_ours = by.is_empty() || self.bot.is(by);
        (!is_ours).then(|| format!("{} by {by} since it was decided", told(&last.change)))
    }

    /// Takes out those whom somebody else has changed; why, if nobody is left.
    fn spare(
        &self,
        logins: &mut Vec<String>,
        who: impl Fn(&Change) -> Option<&String>,
    ) -> Option<String> {
        let mut why = Vec::new();
        logins.retain(|login| {
            let overruled = self.by_another(|change| {
                who(change).is_some_and(|changed| norm_login(changed) == norm_login(login))
            });
            let stays = overruled.is_none();
            why.extend(overruled);
            stays
        });
        (logins.is_empty() && !why.is_empty()).then(|| why.join("; "))
    }
}

fn told(change: &Change) -> String {
    match change {
        Change::Labeled(label) => format!("{label} was put on"),
        Change::Unlabeled(label) => format!("{label} was taken off"),
        Change::Assigned(login) => format!("{login} was assigned"),
        Change::Unassigned(login) => format!("{login} was unassigned"),
        Change::ReviewRequested(login) => format!("{login} was asked for a review"),
        Change::ReviewRequestRemoved(login) => {
            format!("the request for a review of {login}'s was taken back")
        }
        Change::Renamed(title) => format!("it was renamed to {title:?}"),
        Change::Milestoned(milestone) => format!("milestone {milestone:?} was set"),
        Change::Demilestoned(milestone) => format!("milestone {milestone:?} was taken off"),
        Change::Closed => "it was closed".to_owned(),
        Change::Reopened => "it was reopened".to_owned(),
        Change::Pinned => "it was pinned".to_owned(),
        Change::Unpinned => "it was unpinned".to_owned(),
    }
}

/// What cannot be looked at is left to the write itself, which will be refused for the same reason.
fn unless_outage(error: &ForgeError, what: &str) -> Result<Option<String>, Work> {
    match outage(error) {
        Some(pause) => Err(Work::Outage(format!("{what}: {error}"), pause)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use trireme_forge::User;
    use trireme_proto::state::{
        CloseEffect, EditIssueEffect, LabelEffect, MilestoneEffect, PeopleEffect,
    };

    use super::*;
    use crate::testing::bot;

    /// Why an action is left out, or for whom it is done, after these changes.
    fn after(changes: &[(&str, Change)], mut action: Action) -> String {
        let record: Vec<RecordedChange> = changes
            .iter()
            .map(|(login, change)| RecordedChange {
                change: change.clone(),
                actor: User::new(*login),
                at: Timestamp::UNIX_EPOCH,
            })
            .collect();
        let meanwhile = Meanwhile {
            since: record.iter().collect(),
            bot: &bot(),
        };
        match (meanwhile.overrules(&mut action), action) {
            (Some(why), _) => why,
            (None, Action::Assign(effect) | Action::RequestReview(effect)) => {
                format!("done for {}", effect.logins.join(", "))
            }
            (None, _) => "done".to_owned(),
        }
    }

    fn retitle() -> Action {
        Action::EditIssue(EditIssueEffect {
            title: Some("Ours".to_owned()),
            ..EditIssueEffect::default()
        })
    }

    fn people(logins: &[&str]) -> PeopleEffect {
        PeopleEffect {
            logins: logins.iter().map(|login| (*login).to_owned()).collect(),
            ..PeopleEffect::default()
        }
    }

    const OURS: &str = "k8s-ci-robot";

    #[test]
    fn the_last_word_of_somebody_else_counts() {
        let renamed = |to: &str| Change::Renamed(to.to_owned());
        let theirs = [(OURS, renamed("Ours")), ("ann", renamed("Hers"))];
        assert_snapshot!(after(&theirs, retitle()), @r#"it was renamed to "Hers" by ann since it was decided"#);
        let ours = [("ann", renamed("Hers")), (OURS, renamed("Ours"))];
        assert_snapshot!(after(&ours, retitle()), @"done");
        assert_snapshot!(after(&[("ann", Change::Closed)], retitle()), @"done");
        let body = Action::EditIssue(EditIssueEffect::default());
        assert_snapshot!(after(&theirs, body), @"done");

        let close = || Action::Close(CloseEffect::default());
        assert_snapshot!(after(&[("ann", Change::Reopened)], close()), @"it was reopened by ann since it was decided");
        assert_snapshot!(after(&[(OURS, Change::Reopened)], close()), @"done");
        let milestone = Action::Milestone(MilestoneEffect::default());
        let demilestoned = [("ann", Change::Demilestoned("v1".to_owned()))];
        assert_snapshot!(after(&demilestoned, milestone), @r#"milestone "v1" was taken off by ann since it was decided"#);
        let label = Action::AddLabel(LabelEffect {
            label: "Hold".to_owned(),
            ..LabelEffect::default()
        });
        let unlabeled = |label: &str| [("ann", Change::Unlabeled(label.to_owned()))];
        assert_snapshot!(after(&unlabeled("hold"), label.clone()), @"hold was taken off by ann since it was decided");
        assert_snapshot!(after(&unlabeled("lgtm"), label), @"done");
    }

    #[test]
    fn each_of_several_people_for_themselves() {
        let unassigned = [("ann", Change::Unassigned("Bob".to_owned()))];
        let assign = |logins: &[&str]| Action::Assign(people(logins));
        assert_snapshot!(after(&unassigned, assign(&["bob", "eve"])), @"done for eve");
        assert_snapshot!(after(&unassigned, assign(&["bob"])), @"Bob was unassigned by ann since it was decided");
        assert_snapshot!(after(&unassigned, assign(&["eve"])), @"done for eve");
        assert_snapshot!(after(&[], assign(&[])), @"done for");
        let ask = Action::RequestReview(people(&["bob"]));
        assert_snapshot!(after(&unassigned, ask.clone()), @"done for bob");
        let removed = [("ann", Change::ReviewRequestRemoved("bob".to_owned()))];
        assert_snapshot!(after(&removed, ask), @"the request for a review of bob's was taken back by ann since it was decided");
    }
}
