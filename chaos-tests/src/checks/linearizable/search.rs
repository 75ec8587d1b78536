//! The search for an order of one register's operations.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Kind, Operation, returned};

pub(super) enum Outcome {
    /// The order as indexes of operations. Writes of unknown outcome that nobody saw may be missing.
    Ordered(Vec<usize>),
    Stuck,
    Undecided,
}

/// The end and the beginning of the list of entries.
const HEAD: usize = 0;

/// A call or a return in the list of those whose operation is not placed.
#[derive(Clone, Copy)]
struct Entry {
    action: usize,
    is_call: bool,
    before: usize,
    after: usize,
}

struct Action {
    operation: usize,
    is_write: bool,
    /// Which of the values is written or was seen.
    value: usize,
    call: usize,
    /// None if the outcome is unknown.
    end: Option<usize>,
}

/// A write that was placed, and how to take it back.
struct Choice {
    write: usize,
    /// How many actions were placed before it.
    placed: usize,
    is_final: bool,
}

/// What Lowe's memory holds: the set of placed actions without the full words in front and the empty ones behind, which
/// are nearly all. What the register holds makes no difference: all its reads that can be placed are, so a write must
/// come next.
type State = (usize, Box<[u64]>);

pub(super) struct Search {
    actions: Vec<Action>,
    entries: Vec<Entry>,
    /// By value: how many reads and writes are not placed. The first value is that of a register never written.
    reads: Vec<usize>,
    writes: Vec<usize>,
    /// What the register holds. Not taken back with a write, since another comes in its place.
    held: usize,
    /// The actions in their order.
    order: Vec<usize>,
    /// The same as a set.
    placed: Vec<u64>,
    /// How many actions that returned are not placed.
    missing: usize,
}

impl Search {
    /// The beginning of a history up to the last of `returns`. What had not returned then was of unknown outcome.
    /// `operations` are sorted by their call.
    pub(super) fn new(operations: &[&Operation], returns: &[(u64, usize)]) -> Self {
        let end_ns = returns.last().map_or(0, |(at, _)| *at);
        let mut ended = vec![false; operations.len()];
        for (_, index) in returns {
            ended[*index] = true;
        }
        let is_there = |index: &usize| match operations[*index].kind {
            _ if ended[*index] => true,
            Kind::Write { .. } => operations[*index].called_ns <= end_ns,
            Kind::Read { .. } | Kind::Refused { .. } => false,
        };
        let seen: BTreeSet<u64> = returns
            .iter()
            .filter_map(|(_, index)| match operations[*index].kind {
                Kind::Read { seen } => seen,
                _ => None,
            })
            .collect();
        let mut values: BTreeMap<Option<u64>, usize> = BTreeMap::from([(None, 0)]);
        let (mut reads, mut writes) = (vec![0], vec![0]);
        let mut actions = Vec::new();
        // At the same time calls sort before returns.
        let mut events = Vec::new();
        for index in (0..operations.len()).filter(is_there) {
            let operation = operations[index];
            let (is_write, value) = match operation.kind {
                // Nobody can tell whether it took effect, so it has no place to find.
                Kind::Write { value } if !ended[index] && !seen.contains(&value) => continue,
                Kind::Write { value } | Kind::Refused { value } => (true, Some(value)),
                Kind::Read { seen } => (false, seen),
            };
            let next = values.len();
            let value = *values.entry(value).or_insert(next);
            reads.resize(values.len(), 0);
            writes.resize(values.len(), 0);
            if is_write {
                writes[value] += 1;
            } else {
                reads[value] += 1;
            }
            events.push((operation.called_ns, false, actions.len()));
            if let Some(at) = returned(operation).filter(|_| ended[index]) {
                events.push((at, true, actions.len()));
            }
            actions.push(Action {
                operation: index,
                is_write,
                value,
                call: HEAD,
                end: None,
            });
        }
        events.sort_unstable();
        let last = events.len();
        let mut entries = vec![Entry {
            action: usize::MAX,
            is_call: false,
            before: last,
            after: usize::from(last > 0),
        }];
        for (_, is_return, action) in events {
            let at = entries.len();
            if is_return {
                actions[action].end = Some(at);
            } else {
                actions[action].call = at;
            }
            entries.push(Entry {
                action,
                is_call: !is_return,
                before: at - 1,
                after: if at == last { HEAD } else { at + 1 },
            });
        }
        Self {
            placed: vec![0; actions.len().div_ceil(64)],
            missing: returns.len(),
            held: 0,
            order: Vec::new(),
            actions,
            entries,
            reads,
            writes,
        }
    }

    pub(super) fn run(mut self, max_states: usize) -> Outcome {
        let unwritten = |(reads, writes): (&usize, &usize)| *reads > 0 && *writes == 0;
        if self.reads.iter().zip(&self.writes).skip(1).any(unwritten) {
            return Outcome::Stuck;
        }
        self.place_reads();
        if self.is_dead() {
            return Outcome::Stuck;
        }
        let mut states: HashSet<State> = HashSet::new();
        let mut choices: Vec<Choice> = Vec::new();
        let mut from = self.entries[HEAD].after;
        while self.missing > 0 {
            let Some(write) = self.next_write(from) else {
                let Some(choice) = choices.pop() else {
                    return Outcome::Stuck;
                };
                from = self.take_back(&choice);
                continue;
            };
            let placed = self.order.len();
            self.place(write);
            self.held = self.actions[write].value;
            self.place_reads();
            let choice = Choice {
                write,
                placed,
                is_final: self.reads[self.held] == 0,
            };
            if self.is_dead() || !states.insert(self.state()) {
                from = self.take_back(&choice);
                continue;
            }
            if states.len() > max_states {
                return Outcome::Undecided;
            }
            choices.push(choice);
            from = self.entries[HEAD].after;
        }
        let operation = |action: &usize| self.actions[*action].operation;
        Outcome::Ordered(self.order.iter().map(operation).collect())
    }

    /// The first write from this entry on that was called before anything not placed returned.
    fn next_write(&self, mut at: usize) -> Option<usize> {
        while self.entries[at].is_call {
            let Entry { action, after, .. } = self.entries[at];
            if self.actions[action].is_write {
                return Some(action);
            }
            at = after;
        }
        None
    }

    fn place_reads(&mut self) {
        let mut at = self.entries[HEAD].after;
        while self.entries[at].is_call {
            let action = self.entries[at].action;
            if !self.actions[action].is_write && self.actions[action].value == self.held {
                self.place(action);
            }
            // An entry that was just placed still knows what comes after it.
            at = self.entries[at].after;
        }
    }

    /// What the register holds is still to be read, cannot be now, and will not be written again.
    fn is_dead(&self) -> bool {
        self.reads[self.held] > 0 && self.writes[self.held] == 0
    }

    fn unplaced_mut(&mut self, action: usize) -> &mut usize {
        let Action {
            is_write, value, ..
        } = self.actions[action];
        if is_write {
            &mut self.writes[value]
        } else {
            &mut self.reads[value]
        }
    }

    fn place(&mut self, action: usize) {
        *self.unplaced_mut(action) -= 1;
        self.order.push(action);
        self.placed[action / 64] |= 1 << (action % 64);
        let Action { call, end, .. } = self.actions[action];
        // The return goes first: then the call's entry knows what comes after both.
        if let Some(end) = end {
            self.missing -= 1;
            self.unlink(end);
        }
        self.unlink(call);
    }

    /// Returns the entry from which to look for another choice.
    fn take_back(&mut self, choice: &Choice) -> usize {
        while self.order.len() > choice.placed
            && let Some(action) = self.order.pop()
        {
            *self.unplaced_mut(action) += 1;
            self.placed[action / 64] &= !(1 << (action % 64));
            let Action { call, end, .. } = self.actions[action];
            self.link(call);
            if let Some(end) = end {
                self.missing += 1;
                self.link(end);
            }
        }
        if choice.is_final {
            HEAD
        } else {
            self.entries[self.actions[choice.write].call].after
        }
    }

    fn unlink(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        self.entries[before].after = after;
        self.entries[after].before = before;
    }

    /// Undoes the last `unlink`.
    fn link(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        self.entries[before].after = at;
        self.entries[after].before = at;
    }

    fn state(&self) -> State {
        let full = self.placed.iter().take_while(|word| **word == u64::MAX);
        let start = full.count();
        let used = self.placed.iter().rposition(|word| *word != 0);
        let end = used.map_or(start, |last| start.max(last + 1));
        (start, self.placed[start..end].into())
    }
}
