//! What the forge's own record says in the end, against what was to be done: each plugin's deliveries on each pull request,
//! in the order in which the cluster accepted them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::Value;
use trireme_proto::state::{Delivery, DeliveryState, Effect, EffectState, Plan};
use trireme_raft::View;
use trireme_sandbox::forge::{self, Comment, Issue, IssueEvent, IssueEventKind, Refusal, RepoName};
use trireme_state::{Seq, arrival};

use tokio::time::Instant;

use super::{
    github::GitHubHere,
    people::{
        ASSIGN, BOT, HELPER, HOLD, LABEL, LGTM, LGTM_LABEL, Pulls, RETITLE, SWITCHED, Switched,
        UNASSIGN, WIP_LABEL,
    },
};
use crate::sim::{chronicle::Chronicle, cluster::Cluster};

/// Broken promises that are told; the first say most.
const MAX_TOLD: usize = 20;
/// What was said that lately is done without another look, and a write may be on its way for a while: what a person does in
/// between is overwritten.
const UNSEEN_MS: i64 = 45_000;

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) broken: Vec<String>,
    /// Events that the forge told, and those that our own writes caused.
    pub(super) offered: u64,
    pub(super) by_ourselves: u64,
    /// Attempts to bring them that were refused at a bound, that had no answer, and that were asked for again.
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    pub(super) redelivered: u64,
    /// Events that the cluster has, and that are handled.
    pub(super) accepted: u64,
    pub(super) handled: u64,
    /// Writes that the record shows as done, in order, and more than once.
    pub(super) writes: u64,
    pub(super) doubled: u64,
    /// Plans with effects, tries of deciding that failed, effects that were begun more than once, left out, given up.
    pub(super) plans: u64,
    pub(super) failures: u64,
    pub(super) begun_again: u64,
    pub(super) skipped: u64,
    pub(super) dead: u64,
    /// Titles that were asked for and left out for what a person had written meanwhile.
    pub(super) overruled: u64,
}

impl Judged {
    fn broken(&mut self, what: String) {
        if self.broken.len() < MAX_TOLD {
            self.broken.push(what);
        }
    }
}

/// What is to be seen on one pull request, or is; by plugin, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    /// By label: put on or taken off.
    labels: BTreeMap<&'static str, Vec<bool>>,
    assigned: Vec<bool>,
    titles: Vec<String>,
    /// By plugin: the ids of the comments that were answered.
    answers: BTreeMap<&'static str, Vec<u64>>,
}

impl Done {
    fn count(&self) -> u64 {
        let labels: usize = self.labels.values().map(Vec::len).sum();
        let answers: usize = self.answers.values().map(Vec::len).sum();
        (labels + answers + self.assigned.len() + self.titles.len()) as u64
    }

    /// Sets a switch, if it is not so; whether it was not.
    fn switch(history: &mut Vec<bool>, on: bool) -> bool {
        let changes = history.last().copied().unwrap_or(false) != on;
        if changes {
            history.push(on);
        }
        changes
    }
}

/// What matters of an event as it was sent.
#[derive(Debug, Default)]
struct Sent {
    event: String,
    action: String,
    sender: String,
    repo: Option<RepoName>,
    /// Of the issue or pull request.
    number: Option<u64>,
    /// Of the pull request.
    title: String,
    comment: (u64, String),
    /// When the comment was.
    written: Option<Timestamp>,
    /// When that happened which a pull request event tells of.
    updated: Option<Timestamp>,
}

impl Sent {
    fn read(event: &str, payload: &Value) -> Self {
        let text = |at: &str| {
            let text = payload.pointer(at).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let number = |at: &str| payload.pointer(at).and_then(Value::as_u64);
        let owner = text("/repository/owner/login");
        Self {
            event: event.to_owned(),
            action: text("/action"),
            sender: text("/sender/login"),
            repo: (!owner.is_empty()).then(|| RepoName::new(owner, text("/repository/name"))),
            number: number("/pull_request/number").or_else(|| number("/issue/number")),
            title: text("/pull_request/title"),
            comment: (number("/comment/id").unwrap_or(0), text("/comment/body")),
            written: text("/comment/created_at").parse().ok(),
            updated: text("/pull_request/updated_at").parse().ok(),
        }
    }

    fn is_by_bot(&self) -> bool {
        self.sender == BOT
    }

    /// Where and which pull request.
    fn about(&self) -> Option<(RepoName, u64)> {
        Some((self.repo.clone()?, self.number?))
    }

    fn is_push(&self) -> bool {
        self.event == "pull_request" && self.action == "synchronize"
    }

    fn is_new_title(&self) -> bool {
        self.event == "pull_request" && self.action == "edited"
    }

    /// What the plugins make of it.
    fn expect(&self, done: &mut Done) {
        if self.event == "issue_comment" && self.action == "created" && !self.is_by_bot() {
            let (id, body) = &self.comment;
            expect_of_comment(body, *id, done);
        } else if self.is_new_title() {
            Done::switch(
                done.labels.entry(WIP_LABEL).or_default(),
                is_wip(&self.title),
            );
        }
    }
}

fn expect_of_comment(body: &str, id: u64, done: &mut Done) {
    if let Some(title) = body.strip_prefix(RETITLE) {
        done.titles.push(title.to_owned());
    } else if body.starts_with(LABEL) {
        done.answers.entry("label").or_default().push(id);
    } else if body == ASSIGN || body == UNASSIGN {
        Done::switch(&mut done.assigned, body == ASSIGN);
    }
    for Switched {
        plugin,
        label,
        on,
        off,
    } in &SWITCHED
    {
        if body != *on && body != *off {
            continue;
        }
        let turns_on = body == *on;
        let changes = Done::switch(done.labels.entry(label).or_default(), turns_on);
        // What is not there cannot be taken off, and who does not know any more is told so.
        let is_answered = match *plugin {
            "label" => !turns_on && !changes,
            "shrug" => !turns_on && changes,
            _ => false,
        };
        if is_answered {
            done.answers.entry(plugin).or_default().push(id);
        }
    }
}

/// What the forge remembers of our doing.
fn record(issue: &Issue, comments: &[&Comment]) -> Done {
    let mut done = Done::default();
    let known = SWITCHED
        .iter()
        .map(|switched| switched.label)
        .chain([LGTM_LABEL, WIP_LABEL]);
    let known: Vec<&'static str> = known.collect();
    for event in issue.events.iter().filter(|event| event.actor == BOT) {
        let (label, on) = match &event.what {
            IssueEventKind::Labeled(label) => (label, true),
            IssueEventKind::Unlabeled(label) => (label, false),
            IssueEventKind::Assigned(login) if login == HELPER => {
                done.assigned.push(true);
                continue;
            }
            IssueEventKind::Unassigned(login) if login == HELPER => {
                done.assigned.push(false);
                continue;
            }
            IssueEventKind::Renamed { to, .. } => {
                done.titles.push(to.clone());
                continue;
            }
            _ => continue,
        };
        if let Some(label) = known.iter().find(|known| **known == label.name) {
            done.labels.entry(label).or_default().push(on);
        }
    }
    for comment in comments.iter().filter(|comment| comment.author == BOT) {
        let plugin = match comment.body.split("<details>").next() {
            Some(said) if said.contains('ツ') => "shrug",
            // Which of these are said depends on what came when.
            Some(said) if said.contains("New changes") || said.contains("new commits") => "lgtm",
            _ => "label",
        };
        done.answers
            .entry(plugin)
            .or_default()
            .push(answered(&comment.body));
    }
    done
}

/// The id of the comment that an answer links to; 0 for none.
fn answered(body: &str) -> u64 {
    let link = body.split("#issuecomment-").nth(1).unwrap_or_default();
    let digits: String = link.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

pub(super) fn judge(
    cluster: &Cluster,
    github: &GitHubHere,
    pulls: &Pulls,
    chronicle: &Chronicle,
    drained: Option<Instant>,
) -> Judged {
    let mut judged = Judged::default();
    for broken in chronicle.take_broken() {
        judged.broken(broken);
    }
    let Some(up) = cluster.ids().into_iter().find_map(|id| cluster.up(id)) else {
        judged.broken("no node runs".to_owned());
        return judged;
    };
    let view = up.store.view();
    let sent = sent(github, &mut judged);
    let accepted = accepted(&view, &sent, &mut judged);
    if drained.is_none() {
        let open: Vec<String> = view
            .open_deliveries()
            .take(3)
            .map(|open| tell_open(&view, open))
            .collect();
        let count = view.open_deliveries().count();
        judged.broken(format!(
            "{count} deliveries are still open: {}",
            open.join("; ")
        ));
    }
    plans(&view, &sent, &mut judged);
    let retitled = retitled(&view, &sent);
    let pushed = pushed(&sent);
    let mut expected: BTreeMap<(RepoName, u64), Done> = BTreeMap::new();
    for guid in accepted.values() {
        let Some(sent) = sent.get(guid) else {
            continue;
        };
        if let Some(about) = sent.about() {
            sent.expect(expected.entry(about).or_default());
        }
    }
    for (repo, number) in pulls.iter() {
        let about = (repo.clone(), *number);
        let seen: Result<_, Refusal> = github.sandbox().read(|forge| {
            let (of, issue) = forge.issue(repo, *number)?;
            let mut wrong = overwritten(issue, &retitled);
            let comments = comments(of, issue);
            wrong.extend(not_as_said(issue, &comments));
            wrong.extend(not_as_approved(
                issue,
                &comments,
                pushed.get(&about).copied(),
            ));
            Ok((record(issue, &comments), wrong))
        });
        let seen = match seen {
            Ok((seen, wrong)) => {
                for what in wrong {
                    judged.broken(format!("{repo}#{number}: {what}"));
                }
                seen
            }
            Err(refusal) => {
                judged.broken(format!("{repo}#{number}: {refusal:?}"));
                continue;
            }
        };
        let mut expected = expected.remove(&about).unwrap_or_default();
        // One that was left out may have been written before its answer was lost.
        expected.titles.retain(|title| {
            let is_left_out = retitled.get(title).is_some_and(|plan| plan.overruled);
            judged.overruled += u64::from(is_left_out);
            !is_left_out || seen.titles.contains(title)
        });
        compare(&about, expected, seen, &mut judged);
    }
    judged
}

/// Oldest first.
fn comments<'a>(of: &'a forge::Repo, issue: &Issue) -> Vec<&'a Comment> {
    let comments = issue.comments.iter();
    comments.filter_map(|id| of.comments.get(id)).collect()
}

/// Labels that follow the last word and not the last that was heard of: a webhook that comes late undoes nothing.
fn not_as_said(issue: &Issue, comments: &[&Comment]) -> Vec<String> {
    let held = |comment: &&Comment| match comment.body.as_str() {
        body if body == HOLD.on => Some(true),
        body if body == HOLD.off => Some(false),
        _ => None,
    };
    let last_words = [
        (WIP_LABEL, is_wip(&issue.title)),
        (
            HOLD.label,
            comments.iter().rev().find_map(held).unwrap_or(false),
        ),
    ];
    let wrong = last_words.into_iter().filter_map(|(label, said)| {
        let is_on = issue.labels.iter().any(|on| on == label);
        (is_on != said).then(|| format!("{label} is on: {is_on}, the last word says {said}"))
    });
    wrong.collect()
}

/// When each pull request was last pushed to, in whole seconds.
fn pushed(sent: &BTreeMap<String, Sent>) -> BTreeMap<(RepoName, u64), Timestamp> {
    let mut pushed = BTreeMap::new();
    let pushes = sent.values().filter(|sent| sent.is_push());
    for (about, at) in pushes.filter_map(|sent| Some((sent.about()?, sent.updated?))) {
        let last: &mut Timestamp = pushed.entry(about).or_insert(at);
        *last = at.max(*last);
    }
    pushed
}

/// What was pushed last has the label if somebody approved of it after that, and else not. What was said in the second of
/// the push may be for either head.
fn not_as_approved(
    issue: &Issue,
    comments: &[&Comment],
    pushed: Option<Timestamp>,
) -> Option<String> {
    let approves = |comment: &&&Comment| comment.body == LGTM;
    let said = comments.iter().rev().find(approves);
    let said = said.map_or(i64::MIN, |comment| comment.created_at.as_second());
    let pushed = pushed.map_or(0, Timestamp::as_second);
    let is_on = issue.labels.iter().any(|on| on == LGTM_LABEL);
    let is_right = said == pushed || is_on == (said > pushed);
    (!is_right).then(|| {
        format!("{LGTM_LABEL} is on: {is_on}; it was said at {said} and pushed at {pushed} s")
    })
}

fn is_wip(title: &str) -> bool {
    title.starts_with("WIP: ")
}

/// A title that was asked for.
struct Retitled {
    asked: Timestamp,
    /// Left out for what a person wrote meanwhile.
    overruled: bool,
}

/// By title: none is asked for twice.
fn retitled(view: &View, sent: &BTreeMap<String, Sent>) -> BTreeMap<String, Retitled> {
    let asked = sent.iter().filter_map(|(guid, sent)| {
        let title = sent.comment.1.strip_prefix(RETITLE)?;
        let plan = view.plan(guid, "retitle")?;
        let retitled = Retitled {
            asked: sent.written?,
            overruled: plan.effects.iter().any(is_overruled),
        };
        Some((title.to_owned(), retitled))
    });
    asked.collect()
}

fn is_overruled(effect: &Effect) -> bool {
    effect.state() == EffectState::Skipped && effect.error.starts_with("it was renamed to ")
}

/// Titles of a person's that were written over by what had been asked for before them.
fn overwritten(issue: &Issue, retitled: &BTreeMap<String, Retitled>) -> Vec<String> {
    let renames = issue.events.iter().filter_map(|event| match &event.what {
        IssueEventKind::Renamed { from, to } => Some((event, from, to)),
        _ => None,
    });
    let mut theirs: Option<&IssueEvent> = None;
    let mut overwritten = Vec::new();
    for (event, from, to) in renames {
        if event.actor != BOT {
            theirs = Some(event);
            continue;
        }
        let (Some(before), Some(plan)) = (theirs.take(), retitled.get(to)) else {
            continue;
        };
        let is_older = plan.asked < before.at;
        let was_to_be_seen = event.at.as_millisecond() - before.at.as_millisecond() > UNSEEN_MS;
        if is_older && was_to_be_seen {
            let by = &before.actor;
            overwritten.push(format!("{from:?} of {by}'s was overwritten by {to:?}"));
        }
    }
    overwritten
}

/// All events by GUID; counts the attempts to bring them.
fn sent(github: &GitHubHere, judged: &mut Judged) -> BTreeMap<String, Sent> {
    let mut all: BTreeMap<String, Sent> = BTreeMap::new();
    for attempt in github.attempts() {
        judged.redelivered += u64::from(attempt.redelivery);
        match attempt.answer.as_ref().map(|answer| answer.status_code) {
            Some(503) => judged.refused += 1,
            Some(200..=299) => {}
            Some(502 | 504) | None => judged.unanswered += 1,
            Some(other) => judged.broken(format!("{} was answered with {other}", attempt.guid)),
        }
        all.entry(attempt.guid).or_insert_with(|| {
            let payload = serde_json::from_slice(&attempt.payload).unwrap_or_default();
            Sent::read(&attempt.event, &payload)
        });
    }
    judged.offered = all.len() as u64;
    judged.by_ourselves = all.values().filter(|sent| sent.is_by_bot()).count() as u64;
    all
}

/// GUIDs in the order in which they were accepted. Everything that was sent must be there, and handled.
fn accepted(
    view: &View,
    sent: &BTreeMap<String, Sent>,
    judged: &mut Judged,
) -> BTreeMap<Seq, String> {
    let mut accepted = BTreeMap::new();
    for guid in sent.keys() {
        let Some(delivery) = view.delivery(guid) else {
            judged.broken(format!("{guid} was never accepted"));
            continue;
        };
        judged.accepted += 1;
        if delivery.state() == DeliveryState::Handled {
            judged.handled += 1;
        }
        accepted.insert(arrival(delivery), guid.clone());
    }
    accepted
}

fn tell_open(view: &View, delivery: &Arc<Delivery>) -> String {
    let guid = &delivery.guid;
    let waits = delivery
        .plugins
        .iter()
        .filter(|plugin| !delivery.settled.contains(plugin));
    let waits: Vec<String> = waits
        .map(|plugin| match view.plan(guid, plugin) {
            Some(plan) => format!("{plugin} {:?}", plan.effects),
            None => plugin.clone(),
        })
        .collect();
    format!(
        "{guid} of {}#{}: {}",
        delivery.repo,
        delivery.number,
        waits.join(", ")
    )
}

/// The outage has used up no try, and nothing was given up or left out.
fn plans(view: &View, sent: &BTreeMap<String, Sent>, judged: &mut Judged) {
    for guid in sent.keys() {
        for plan in view.plans_of(guid) {
            judged.plans += 1;
            judged.failures += u64::from(plan.failures);
            if plan.failures > 0 || plan.dead {
                judged.broken(format!(
                    "{} of {guid} failed {} times: {}",
                    plan.plugin, plan.failures, plan.error
                ));
            }
            effects(plan, judged);
        }
    }
}

fn effects(plan: &Plan, judged: &mut Judged) {
    for effect in &plan.effects {
        judged.begun_again += u64::from(effect.attempts > 1);
        match effect.state() {
            EffectState::Done => {}
            // Only meant for what its condition says, of an effect before it.
            EffectState::Skipped if effect.condition.is_some() => {}
            EffectState::Skipped if is_overruled(effect) => {}
            // What is for one head is not for the next.
            EffectState::Skipped if plan.plugin == "lgtm" && !effect.head_sha.is_empty() => {}
            EffectState::Dead => {
                judged.dead += 1;
                judged.broken(format!(
                    "{} of {} was given up: {}",
                    plan.plugin, plan.guid, effect.error
                ));
            }
            EffectState::Skipped => {
                judged.skipped += 1;
                judged.broken(format!(
                    "{} of {} was left out: {}",
                    plan.plugin, plan.guid, effect.error
                ));
            }
            other => judged.broken(format!("{} of {} is {other:?}", plan.plugin, plan.guid)),
        }
    }
}

fn compare(
    (repo, number): &(RepoName, u64),
    mut expected: Done,
    mut seen: Done,
    judged: &mut Judged,
) {
    for done in [&mut expected, &mut seen] {
        done.labels.retain(|_, history| !history.is_empty());
        done.answers.retain(|_, history| !history.is_empty());
    }
    judged.writes += seen.count();
    let mut answered = BTreeSet::new();
    let answers = seen.answers.iter();
    for (plugin, id) in answers.flat_map(|(plugin, ids)| ids.iter().map(move |id| (plugin, id))) {
        judged.doubled += u64::from(!answered.insert((plugin, id)));
    }
    let mut titled = BTreeSet::new();
    judged.doubled += seen
        .titles
        .iter()
        .filter(|title| !titled.insert(*title))
        .count() as u64;
    // What these come to in the end is looked at apart; on the way there they are put on and taken off in turns.
    seen.answers.remove("lgtm");
    for label in [LGTM_LABEL, WIP_LABEL, HOLD.label] {
        expected.labels.remove(label);
        let history = seen.labels.remove(label).unwrap_or_default();
        let in_turns = (0..history.len()).all(|n| history[n] == (n % 2 == 0));
        if !in_turns {
            judged.doubled += 1;
            judged.broken(format!("{repo}#{number}: {label} was set {history:?}"));
        }
    }
    if expected != seen {
        judged.broken(format!(
            "{repo}#{number}: expected {expected:?}, the forge shows {seen:?}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn comment(body: &str, id: u64) -> Sent {
        let payload = json!({
            "action": "created",
            "issue": {"number": 5},
            "comment": {"id": id, "body": body},
            "repository": {"name": "repo", "owner": {"login": "org"}},
            "sender": {"login": "member"},
        });
        let sent = Sent::read("issue_comment", &payload);
        assert_eq!(sent.about(), Some((RepoName::new("org", "repo"), 5)));
        sent
    }

    fn expected(sent: &[Sent]) -> Done {
        let mut done = Done::default();
        sent.iter().for_each(|sent| sent.expect(&mut done));
        done
    }

    #[test]
    fn what_is_to_be_done_follows_from_the_order_of_arrival() {
        let done = expected(&[
            comment("/hold", 1),
            comment("Fine.", 2),
            comment("/hold", 3),
            comment("/hold cancel", 4),
            comment("/label unknown-5", 5),
            comment("/remove-kind bug", 6),
            comment("/shrug", 7),
            comment("/unshrug", 8),
            comment("/retitle Title 9", 9),
            comment("/assign @helper", 10),
        ]);
        let labels = [
            ("do-not-merge/hold", vec![true, false]),
            ("kind/bug", vec![]),
            (r"¯\_(ツ)_/¯", vec![true, false]),
        ];
        assert_eq!(done.labels, labels.into());
        assert_eq!(
            done.answers,
            [("label", vec![5, 6]), ("shrug", vec![8])].into()
        );
        assert_eq!(
            (done.titles, done.assigned),
            (vec!["Title 9".to_owned()], vec![true])
        );
    }

    fn judged(expected: Done, seen: Done) -> Judged {
        let mut judged = Judged::default();
        compare(
            &(RepoName::new("org", "repo"), 5),
            expected,
            seen,
            &mut judged,
        );
        judged
    }

    #[test]
    fn what_is_done_twice_or_out_of_order_or_not_is_found() {
        let answers = |ids: &[u64]| Done {
            answers: [("label", ids.to_vec())].into(),
            ..Done::default()
        };
        let fine = judged(answers(&[5, 6]), answers(&[5, 6]));
        assert_eq!((fine.broken.len(), fine.writes, fine.doubled), (0, 2, 0));
        let twice = judged(answers(&[5, 6]), answers(&[5, 5, 6]));
        assert_eq!((twice.broken.len(), twice.doubled), (1, 1));
        for seen in [answers(&[6, 5]), answers(&[5])] {
            assert_eq!(judged(answers(&[5, 6]), seen).broken.len(), 1);
        }
    }

    #[test]
    fn an_answer_names_what_it_answers() {
        let body = "@member: no\n\n<details>\n\nIn response to [this](http://x/org/repo/pull/5#issuecomment-17):";
        assert_eq!((answered(body), answered("hi")), (17, 0));
    }
}
