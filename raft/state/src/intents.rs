//! Merge intents: committed before the merge call, settled after it. At most one is open per branch, hence per pull
//! request, and none is opened for a head that was merged.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use trireme_proto::state::{Done, IntentState, MergeIntent, OpenIntent, SettleIntent};

use crate::{
    State,
    apply::Entry,
    archive,
    change::{Change, RecordKey},
    digest::Sum,
    limits::{
        INTENT_MEMORY, INTENT_MEMORY_MS, MAX_OPEN_INTENTS, MAX_PULLS_PER_JOB, PRUNE_PER_ENTRY,
    },
    reject::{
        Verdict, already_exists, at_most, conflict, cut, exhausted, invalid, name, not_found,
        optional_name, record_size,
    },
    table::{Record, Table},
};

/// The level from which a branch has one open intent at most, and not each pull request.
const BRANCH_LEVEL: u32 = 3;

/// (org, repo, number)
type PullKey = (String, String, u64);
/// (org, repo, branch)
type BranchKey = (String, String, String);

impl Record for MergeIntent {
    const KIND: u8 = 8;
    type Key = String;

    fn key(&self) -> String {
        self.id.clone()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Intents {
    rows: Table<MergeIntent>,
    of_pull: OrdSet<(PullKey, i64, String)>,
    open: OrdMap<PullKey, String>,
    /// Open ones by branch; more than one of a branch only from before [`BRANCH_LEVEL`].
    open_on: OrdSet<(BranchKey, String)>,
    /// Heads that were merged.
    merged: OrdMap<(PullKey, String), String>,
    settled: OrdSet<(i64, String)>,
}

fn pull_of(intent: &MergeIntent) -> PullKey {
    (intent.org.clone(), intent.repo.clone(), intent.number)
}

fn branch_of(intent: &MergeIntent) -> BranchKey {
    (
        intent.org.clone(),
        intent.repo.clone(),
        intent.branch.clone(),
    )
}

fn has_merged(state: IntentState) -> bool {
    matches!(state, IntentState::Merged | IntentState::Observed)
}

impl Intents {
    pub(crate) fn put(
        &mut self,
        digest: &mut Sum,
        intent: Arc<MergeIntent>,
    ) -> Option<Arc<MergeIntent>> {
        let former = self.rows.put(digest, intent.clone());
        if let Some(former) = &former {
            self.unindex(former);
        }
        let pull = pull_of(&intent);
        self.of_pull
            .insert((pull.clone(), intent.opened_ms, intent.id.clone()));
        if intent.state() == IntentState::Open {
            self.open.insert(pull, intent.id.clone());
            self.open_on.insert((branch_of(&intent), intent.id.clone()));
            return former;
        }
        self.settled.insert((intent.settled_ms, intent.id.clone()));
        if has_merged(intent.state()) {
            self.merged
                .insert((pull, intent.head_sha.clone()), intent.id.clone());
        }
        former
    }

    fn remove(&mut self, digest: &mut Sum, id: &str) -> Option<Arc<MergeIntent>> {
        let former = self.rows.remove(digest, &id.to_owned())?;
        self.unindex(&former);
        Some(former)
    }

    fn unindex(&mut self, intent: &MergeIntent) {
        let pull = pull_of(intent);
        self.of_pull
            .remove(&(pull.clone(), intent.opened_ms, intent.id.clone()));
        if intent.state() == IntentState::Open {
            self.open.remove(&pull);
            self.open_on.remove(&(branch_of(intent), intent.id.clone()));
            return;
        }
        self.settled.remove(&(intent.settled_ms, intent.id.clone()));
        if has_merged(intent.state()) {
            self.merged.remove(&(pull, intent.head_sha.clone()));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<MergeIntent>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }

    /// An open intent of a branch.
    fn open_on(&self, branch: &BranchKey) -> Option<&String> {
        let from = (branch.clone(), String::new());
        let (of, id) = self.open_on.get_next(&from)?;
        (of == branch).then_some(id)
    }

    pub(crate) fn open_len(&self) -> usize {
        self.open.len()
    }
}

pub(crate) fn open(state: &mut State, entry: &mut Entry, command: &OpenIntent) -> Verdict {
    let Some(asked) = &command.intent else {
        return Err(invalid("no intent"));
    };
    name("intent.id", &asked.id)?;
    name("org", &asked.org)?;
    name("repo", &asked.repo)?;
    name("branch", &asked.branch)?;
    name("head_sha", &asked.head_sha)?;
    optional_name("base_sha", &asked.base_sha)?;
    optional_name("method", &asked.method)?;
    if asked.number == 0 {
        return Err(invalid("an intent without a pull request"));
    }
    at_most(
        "pull requests of one batch",
        asked.batch.len(),
        MAX_PULLS_PER_JOB,
    )?;
    record_size("the intent", asked)?;
    let pull = pull_of(asked);
    if let Some(former) = state.intent(&asked.id) {
        let same = former.state() == IntentState::Open
            && pull_of(former) == pull
            && former.head_sha == asked.head_sha
            && former.opened_epoch == entry.epoch;
        return if same {
            Ok(Done {
                duplicate: true,
                existing: vec![asked.id.clone()],
                ..Done::default()
            })
        } else {
            Err(already_exists(format!("intent {:?}", asked.id)))
        };
    }
    let named = format!("{}/{}#{}", asked.org, asked.repo, asked.number);
    if let Some(other) = state.intents.open.get(&pull) {
        return Err(conflict(format!("{named} has an open intent: {other}")));
    }
    if state.feature_level() >= BRANCH_LEVEL
        && let Some(other) = state.intents.open_on(&branch_of(asked))
    {
        return Err(conflict(format!(
            "{}/{}:{} has an open intent: {other}",
            asked.org, asked.repo, asked.branch
        )));
    }
    if let Some(other) = state.intents.merged.get(&(pull, asked.head_sha.clone())) {
        return Err(conflict(format!(
            "{named} was merged at {} by intent {other}",
            asked.head_sha
        )));
    }
    if state.intents.open_len() >= MAX_OPEN_INTENTS {
        return Err(exhausted("open intents", MAX_OPEN_INTENTS));
    }
    let intent = MergeIntent {
        state: IntentState::Open.into(),
        opened_ms: entry.stamp_ms,
        opened_epoch: entry.epoch,
        settled_ms: 0,
        settled_epoch: 0,
        merge_sha: String::new(),
        refusal: String::new(),
        message: String::new(),
        ..asked.clone()
    };
    let created = vec![intent.id.clone()];
    state.put_intent(entry, intent);
    Ok(Done {
        created,
        ..Done::default()
    })
}

pub(crate) fn settle(state: &mut State, entry: &mut Entry, command: &SettleIntent) -> Verdict {
    let intent = state
        .intent(&command.id)
        .cloned()
        .ok_or_else(|| not_found("intent", &command.id))?;
    let result = command.state();
    if !matches!(
        result,
        IntentState::Merged | IntentState::Refused | IntentState::Observed | IntentState::Withdrawn
    ) {
        return Err(invalid(
            "an intent settles as merged, refused, observed or withdrawn",
        ));
    }
    optional_name("merge_sha", &command.merge_sha)?;
    if intent.state() == result {
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    }
    if intent.state() != IntentState::Open {
        return Err(conflict(format!("intent {:?} is settled", command.id)));
    }
    let next = MergeIntent {
        state: result.into(),
        settled_ms: entry.stamp_ms,
        settled_epoch: entry.epoch,
        merge_sha: command.merge_sha.clone(),
        refusal: cut(&command.refusal),
        message: cut(&command.message),
        ..(*intent).clone()
    };
    state.put_intent(entry, next);
    Ok(Done::default())
}

impl State {
    fn put_intent(&mut self, entry: &mut Entry, mut intent: MergeIntent) {
        intent.version = entry.index;
        let intent = Arc::new(intent);
        self.intents.put(&mut self.digest, intent.clone());
        entry.changed(Change::Intent(intent));
    }

    /// Settled intents move to the archive when their time is over, or when there are too many.
    pub(crate) fn forget_intents(&mut self, entry: &mut Entry) {
        let before = entry.stamp_ms.saturating_sub(INTENT_MEMORY_MS);
        for _ in 0..PRUNE_PER_ENTRY {
            let crowded = self.intents.settled.len() > INTENT_MEMORY;
            match self.intents.settled.get_min() {
                Some((settled_ms, id)) if *settled_ms < before || crowded => {
                    let id = id.clone();
                    if let Some(intent) = self.intents.remove(&mut self.digest, &id) {
                        archive::intent(entry, &intent);
                    }
                    entry.changed(Change::Removed(RecordKey::Intent { id }));
                }
                _ => break,
            }
        }
    }

    pub fn intent(&self, id: &str) -> Option<&Arc<MergeIntent>> {
        self.intents.rows.get(id)
    }

    /// All intents in memory, by id.
    pub fn intents(&self) -> impl Iterator<Item = &Arc<MergeIntent>> {
        self.intents.iter()
    }

    /// Settled intents, settled last first.
    pub fn settled_intents_newest_first(&self) -> impl Iterator<Item = &Arc<MergeIntent>> {
        self.intents
            .settled
            .iter()
            .rev()
            .filter_map(|(_, id)| self.intent(id))
    }

    /// By pull request.
    pub fn open_intents(&self) -> impl Iterator<Item = &Arc<MergeIntent>> {
        self.intents.open.values().filter_map(|id| self.intent(id))
    }

    pub fn open_intent(&self, org: &str, repo: &str, number: u64) -> Option<&Arc<MergeIntent>> {
        self.intent(
            self.intents
                .open
                .get(&(org.to_owned(), repo.to_owned(), number))?,
        )
    }

    /// A pull request's intents, opened first first.
    pub fn intents_of(
        &self,
        org: &str,
        repo: &str,
        number: u64,
    ) -> impl Iterator<Item = &Arc<MergeIntent>> {
        let pull = (org.to_owned(), repo.to_owned(), number);
        let from = (pull.clone(), i64::MIN, String::new());
        self.intents
            .of_pull
            .range(from..)
            .take_while(move |(of, _, _)| *of == pull)
            .filter_map(|(_, _, id)| self.intent(id))
    }
}
