//! Whether what clients were told of independent registers could have come from one copy of each.
//!
//! The search is that of Wing and Gong with Lowe's memory of the states it has seen: from all operations that were
//! called before any other returned, one is taken to be next. Registers allow two short cuts that lose no order. A read
//! of what the register holds is placed at once, since it changes nothing. A write after which nobody is still to read
//! its value is not taken back, since it and its reads could be moved here from wherever else they are. So only values
//! that were written more than once make the search branch.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// How many states of one key the search may enter before it gives up.
pub const MAX_STATES: usize = 1_000_000;

/// How many operations of the order found a violation tells.
const TOLD: usize = 8;

/// What one client asked of one register, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub client: u64,
    pub key: String,
    pub called_ns: u64,
    /// None if the client never learned the outcome: it may take effect at any time after the call, or never.
    pub returned_ns: Option<u64>,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Write {
        value: u64,
    },
    /// None was seen if nothing had been written.
    Read {
        seen: Option<u64>,
    },
    /// The write was certainly refused: it must have had no effect.
    Refused {
        value: u64,
    },
}

/// Why a history was not accepted. Times are told from `first_ns`, the first call of the whole history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A value was read that no write can have left: nobody wrote it, or all who tried were refused.
    NeverWritten {
        key: String,
        first_ns: u64,
        reads: Vec<Operation>,
        refused: Vec<Operation>,
    },
    /// No order explains what was returned.
    NotLinearizable {
        key: String,
        first_ns: u64,
        /// An order of the longest beginning of the history that has one.
        linearized: Vec<Operation>,
        /// What returned next. It is one read, unless the search gave up on a beginning in between.
        unplaced: Vec<Operation>,
    },
    /// The search gave up; the history may be good or bad.
    Undecided { key: String, operations: usize },
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverWritten {
                key,
                first_ns,
                reads,
                refused,
            } => {
                write!(formatter, "key {key}: {}", told(reads, *first_ns))?;
                if refused.is_empty() {
                    write!(formatter, ", but nobody wrote that")
                } else {
                    let refused = told(refused, *first_ns);
                    write!(formatter, ", but that was refused: {refused}")
                }
            }
            Self::NotLinearizable {
                key,
                first_ns,
                linearized,
                unplaced,
            } => {
                let from = beginning_of_interest(linearized, unplaced);
                let unplaced = told(unplaced, *first_ns);
                write!(formatter, "key {key}: no order explains that {unplaced}")?;
                let (earlier, order) = linearized.split_at(from);
                if order.is_empty() {
                    return Ok(());
                }
                write!(formatter, "; what returned before has an order: ")?;
                if !earlier.is_empty() {
                    write!(formatter, "{} earlier, ", earlier.len())?;
                }
                write!(formatter, "{}", told(order, *first_ns))
            }
            Self::Undecided { key, operations } => write!(
                formatter,
                "key {key}: undecided, the search over {operations} operations was given up"
            ),
        }
    }
}

/// Where the order held for the last time what the first unplaced read saw: all that matters came after.
fn beginning_of_interest(linearized: &[Operation], unplaced: &[Operation]) -> usize {
    let seen = unplaced.iter().find_map(|operation| match operation.kind {
        Kind::Read { seen } => seen,
        _ => None,
    });
    seen.and_then(|value| {
        linearized
            .iter()
            .rposition(|operation| operation.kind == Kind::Write { value })
    })
    .unwrap_or_default()
}

/// The operations in words; of many only the first and the last.
fn told(operations: &[Operation], first_ns: u64) -> String {
    let tell = |operation: &Operation| {
        let ms = |ns: u64| {
            let us = ns.saturating_sub(first_ns) / 1_000;
            format!("{}.{:03}", us / 1_000, us % 1_000)
        };
        let did = match operation.kind {
            Kind::Write { value } => format!("wrote {value}"),
            Kind::Read { seen: Some(value) } => format!("read {value}"),
            Kind::Read { seen: None } => "read nothing".to_owned(),
            Kind::Refused { value } => format!("was refused {value}"),
        };
        let called = ms(operation.called_ns);
        let when = operation.returned_ns.map_or_else(
            || format!("from {called} ms, outcome unknown"),
            |returned| format!("{called} to {} ms", ms(returned)),
        );
        format!("client {} {did} ({when})", operation.client)
    };
    if operations.len() <= TOLD {
        return operations.iter().map(tell).collect::<Vec<_>>().join(", ");
    }
    let (start, end) = (TOLD / 2, operations.len() - TOLD / 2);
    let mut words: Vec<String> = operations[..start].iter().map(tell).collect();
    words.push(format!("{} more", end - start));
    words.extend(operations[end..].iter().map(tell));
    words.join(", ")
}

/// Looks for an order of each key's operations in which every read sees the last write before it, and none comes before
/// one that had returned when it was called. Keys are independent, so each has its own order. A call and a return at
/// the same time count as concurrent.
///
/// A history without operations passes: whoever asks has to see to it that something was done.
///
/// # Errors
/// Of several violations, that of the first key is returned; undecided only if no key has another.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    check_within(history, MAX_STATES)
}

fn check_within(history: &[Operation], max_states: usize) -> Result<(), Violation> {
    let called = history.iter().map(|operation| operation.called_ns);
    let first_ns = called.min().unwrap_or_default();
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let mut undecided = Ok(());
    for (key, operations) in keys {
        let found = all_read_was_written(key, &operations, first_ns)
            .and_then(|()| has_an_order(key, operations, first_ns, max_states));
        match found {
            Err(Violation::Undecided { .. }) => undecided = undecided.and(found),
            found => found?,
        }
    }
    undecided
}

/// A refused value may be read if another wrote it too: then it is that write's.
fn all_read_was_written(
    key: &str,
    operations: &[&Operation],
    first_ns: u64,
) -> Result<(), Violation> {
    let written: BTreeSet<u64> = operations
        .iter()
        .filter_map(|operation| match operation.kind {
            Kind::Write { value } => Some(value),
            _ => None,
        })
        .collect();
    let forged = operations
        .iter()
        .filter_map(|operation| match operation.kind {
            Kind::Read { seen: Some(value) } if !written.contains(&value) => {
                Some((operation.returned_ns?, value))
            }
            _ => None,
        })
        .min();
    let Some((_, value)) = forged else {
        return Ok(());
    };
    let all = |kind: Kind| -> Vec<Operation> {
        operations
            .iter()
            .filter(|operation| operation.kind == kind)
            .map(|operation| (*operation).clone())
            .collect()
    };
    let mut reads = all(Kind::Read { seen: Some(value) });
    reads.retain(|read| read.returned_ns.is_some());
    Err(Violation::NeverWritten {
        key: key.to_owned(),
        first_ns,
        reads,
        refused: all(Kind::Refused { value }),
    })
}

fn has_an_order(
    key: &str,
    mut operations: Vec<&Operation>,
    first_ns: u64,
    max_states: usize,
) -> Result<(), Violation> {
    operations.retain(|operation| match operation.kind {
        Kind::Write { .. } => true,
        Kind::Read { .. } => operation.returned_ns.is_some(),
        Kind::Refused { .. } => false,
    });
    operations.sort_by_key(|operation| operation.called_ns);
    let mut returns: Vec<(u64, usize)> = operations
        .iter()
        .enumerate()
        .filter_map(|(index, operation)| Some((returned(operation)?, index)))
        .collect();
    returns.sort_unstable();
    let search = |count| Search::new(&operations, &returns[..count]).run(max_states);
    match search(returns.len()) {
        Outcome::Ordered(_) => return Ok(()),
        Outcome::Undecided => {
            return Err(Violation::Undecided {
                key: key.to_owned(),
                operations: operations.len(),
            });
        }
        Outcome::Stuck => {}
    }
    // Every beginning of a good history is good, so the return that spoils this one can be found by halving.
    let (mut low, mut bad) = (0, returns.len());
    let (mut good, mut linearized) = (0, Vec::new());
    while bad - low > 1 {
        let middle = low + (bad - low) / 2;
        match search(middle) {
            Outcome::Stuck => bad = middle,
            Outcome::Undecided => low = middle,
            Outcome::Ordered(order) => {
                low = middle;
                (good, linearized) = (middle, order);
            }
        }
    }
    let placed: BTreeSet<usize> = linearized.iter().copied().collect();
    let unplaced = returns[good..bad].iter().map(|(_, index)| *index);
    let cloned = |index: usize| operations[index].clone();
    Err(Violation::NotLinearizable {
        key: key.to_owned(),
        first_ns,
        unplaced: unplaced
            .filter(|index| !placed.contains(index))
            .map(cloned)
            .collect(),
        linearized: linearized.into_iter().map(cloned).collect(),
    })
}

/// A clock that went back must not make an operation return before its call.
fn returned(operation: &Operation) -> Option<u64> {
    operation
        .returned_ns
        .map(|returned| returned.max(operation.called_ns))
}

enum Outcome {
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

struct Search {
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
    fn new(operations: &[&Operation], returns: &[(u64, usize)]) -> Self {
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

    fn run(mut self, max_states: usize) -> Outcome {
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn operation(
        client: u64,
        called: u64,
        returned: impl Into<Option<u64>>,
        kind: Kind,
    ) -> Operation {
        Operation {
            client,
            key: "a".to_owned(),
            called_ns: called * MS,
            returned_ns: returned.into().map(|at| at * MS),
            kind,
        }
    }

    fn write(client: u64, called: u64, returned: impl Into<Option<u64>>, value: u64) -> Operation {
        operation(client, called, returned, Kind::Write { value })
    }

    fn read(client: u64, called: u64, returned: u64, seen: impl Into<Option<u64>>) -> Operation {
        operation(client, called, returned, Kind::Read { seen: seen.into() })
    }

    fn refused(client: u64, called: u64, returned: u64, value: u64) -> Operation {
        operation(client, called, returned, Kind::Refused { value })
    }

    #[track_caller]
    fn unplaced(history: &[Operation]) -> Vec<Operation> {
        match check(history) {
            Err(Violation::NotLinearizable { unplaced, .. }) => unplaced,
            other => panic!("{other:?}"),
        }
    }

    struct Xorshift(u64);

    impl Xorshift {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// Every client has one operation at a time; each takes effect at some moment between its call and its return. One
    /// write in `twice` repeats a value, 0 for none.
    fn simulated(seed: u64, clients: u64, count: u64, twice: u64) -> Vec<Operation> {
        let mut random = Xorshift(seed);
        let mut clocks = vec![0; clients as usize];
        let mut effects = Vec::new();
        for _ in 0..count {
            let client = random.below(clients);
            let clock = &mut clocks[client as usize];
            let called = *clock + random.below(1_000);
            let effect = called + random.below(5_000);
            let returned = effect + random.below(5_000);
            *clock = returned + 1;
            effects.push((effect, client, called, returned));
        }
        effects.sort_unstable();
        let mut held = None;
        let mut history = Vec::new();
        for (value, (_, client, called_ns, returned_ns)) in (1..).zip(effects) {
            let mut returned_ns = Some(returned_ns);
            let kind = match random.below(20) {
                0 => Kind::Refused { value },
                dice @ 1..10 => {
                    let again = twice > 0 && random.below(twice) == 0;
                    let value = if again { value / 10 + 1 } else { value };
                    // Of the unknown, one never takes effect.
                    if dice != 1 {
                        held = Some(value);
                    }
                    if dice <= 3 {
                        returned_ns = None;
                    }
                    Kind::Write { value }
                }
                10 => {
                    returned_ns = None;
                    Kind::Read { seen: Some(0) }
                }
                _ => Kind::Read { seen: held },
            };
            history.push(Operation {
                client,
                key: "a".to_owned(),
                called_ns,
                returned_ns,
                kind,
            });
        }
        history
    }

    /// What one of the last reads saw is replaced by the first acknowledged value.
    fn with_one_stale_read(mut history: Vec<Operation>) -> (Vec<Operation>, Operation) {
        let old = history.iter().find_map(|operation| match operation.kind {
            Kind::Write { value } if operation.returned_ns.is_some() => Some(value),
            _ => None,
        });
        let read = history.iter_mut().rev().skip(100).find(|operation| {
            matches!(operation.kind, Kind::Read { .. }) && operation.returned_ns.is_some()
        });
        let read = read.unwrap();
        read.kind = Kind::Read { seen: old };
        let read = read.clone();
        (history, read)
    }

    #[test]
    fn one_after_the_other_passes() {
        let history = [
            read(1, 0, 1, None),
            write(1, 2, 3, 1),
            read(2, 4, 5, 1),
            write(2, 6, 7, 2),
            read(1, 8, 9, 2),
        ];
        assert_eq!(check(&history), Ok(()));
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn a_read_beside_a_write_may_see_it_or_not() {
        for seen in [1, 2] {
            let history = [write(1, 0, 1, 1), write(1, 2, 9, 2), read(2, 3, 4, seen)];
            assert_eq!(check(&history), Ok(()));
        }
    }

    #[test]
    fn what_one_reader_saw_the_next_must_see() {
        let early = [
            write(1, 0, 1, 1),
            write(1, 2, 9, 2),
            read(2, 3, 4, 2),
            read(3, 5, 6, 1),
        ];
        assert_eq!(unplaced(&early), [early[3].clone()]);
    }

    #[test]
    fn a_stale_read_is_caught() {
        let history = [
            write(1, 10, 11, 1),
            write(1, 12, 13, 2),
            read(2, 14, 15, 2),
            read(3, 16, 17, 1),
            write(1, 18, 19, 3),
        ];
        let violation = check(&history).unwrap_err();
        assert_eq!(
            violation.to_string(),
            "key a: no order explains that client 3 read 1 (6.000 to 7.000 ms); what returned before has an order: \
             client 1 wrote 1 (0.000 to 1.000 ms), client 1 wrote 2 (2.000 to 3.000 ms), \
             client 2 read 2 (4.000 to 5.000 ms)"
        );
    }

    #[test]
    fn a_lost_write_is_caught() {
        let none = [write(1, 0, 1, 1), read(2, 2, 3, None)];
        assert_eq!(unplaced(&none), [none[1].clone()]);
        let older = [write(1, 0, 1, 1), write(2, 2, 3, 2), read(2, 4, 5, 1)];
        assert_eq!(unplaced(&older), [older[2].clone()]);
    }

    #[test]
    fn a_value_from_nowhere_is_caught() {
        let history = [write(1, 0, 1, 1), read(2, 2, 3, 7)];
        assert_eq!(
            check(&history).unwrap_err().to_string(),
            "key a: client 2 read 7 (2.000 to 3.000 ms), but nobody wrote that"
        );
    }

    #[test]
    fn a_value_from_the_future_is_caught() {
        let history = [read(2, 0, 1, 1), write(1, 2, 3, 1)];
        assert_eq!(unplaced(&history), [history[0].clone()]);
    }

    #[test]
    fn an_unknown_write_may_take_effect_later() {
        let history = [
            write(1, 0, None, 1),
            write(2, 1, 2, 2),
            read(2, 3, 4, 2),
            read(2, 5, 6, 1),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn an_unknown_write_takes_effect_once() {
        let history = [
            write(1, 0, None, 1),
            read(2, 1, 2, 1),
            write(2, 3, 4, 2),
            read(2, 5, 6, 1),
        ];
        assert_eq!(unplaced(&history), [history[3].clone()]);
        // Unless it was sent again.
        let mut again = history.to_vec();
        again.push(write(3, 3, None, 1));
        assert_eq!(check(&again), Ok(()));
    }

    #[test]
    fn an_unknown_write_may_never_take_effect() {
        let history = [write(1, 0, None, 1), write(2, 1, 2, 2), read(2, 3, 4, 2)];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_read_without_an_answer_says_nothing() {
        let mut history = [write(1, 0, 1, 1), read(2, 2, 3, 7)];
        history[1].returned_ns = None;
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_refused_value_that_is_read_is_caught() {
        let history = [write(1, 0, 1, 1), refused(2, 2, 3, 2), read(3, 4, 5, 2)];
        assert_eq!(
            check(&history).unwrap_err().to_string(),
            "key a: client 3 read 2 (4.000 to 5.000 ms), but that was refused: \
             client 2 was refused 2 (2.000 to 3.000 ms)"
        );
        // Somebody else wrote it.
        let mut written = history.to_vec();
        written.push(write(4, 2, 3, 2));
        assert_eq!(check(&written), Ok(()));
    }

    #[test]
    fn keys_are_independent() {
        let other = |mut operation: Operation| {
            operation.key = "b".to_owned();
            operation
        };
        let mut history = vec![
            write(1, 0, 1, 1),
            other(write(1, 2, 3, 2)),
            read(2, 4, 5, 1),
            other(read(2, 6, 7, 2)),
        ];
        assert_eq!(check(&history), Ok(()));
        history.push(other(read(2, 8, 9, 1)));
        let violation = check(&history).unwrap_err();
        assert!(violation.to_string().starts_with("key b: "), "{violation}");
    }

    #[test]
    fn a_real_register_passes_and_one_stale_read_is_caught() {
        for (seed, clients, twice) in [(1, 8, 0), (2, 64, 0), (3, 8, 5), (4, 64, 50)] {
            let history = simulated(seed, clients, 5_000, twice);
            assert_eq!(check(&history), Ok(()), "seed {seed}");
            if twice == 0 {
                let (history, stale) = with_one_stale_read(history);
                assert_eq!(unplaced(&history), [stale], "seed {seed}");
            }
        }
    }

    /// Tries every order, without any short cut.
    fn any_order(left: &mut Vec<&Operation>, held: Option<u64>) -> bool {
        let Some(first) = left.iter().filter_map(|other| other.returned_ns).min() else {
            return true;
        };
        (0..left.len()).any(|index| {
            let next = left[index];
            let after = match next.kind {
                Kind::Write { value } => Some(value),
                Kind::Read { seen } if seen == held && next.returned_ns.is_some() => held,
                _ => return false,
            };
            if next.called_ns > first {
                return false;
            }
            left.remove(index);
            let found = any_order(left, after);
            left.insert(index, next);
            found
        })
    }

    #[test]
    fn short_cuts_lose_no_order_and_find_none() {
        let mut random = Xorshift(7);
        let mut counts = [0, 0];
        for _ in 0..30_000 {
            let count = 2 + random.below(7);
            let history: Vec<Operation> = (0..count)
                .map(|client| {
                    let called = random.below(12);
                    let returned = called + random.below(8);
                    let value = 1 + random.below(3);
                    let unknown = random.below(4) == 0;
                    match random.below(8) {
                        0..4 if unknown => write(client, called, None, value),
                        0..4 => write(client, called, returned, value),
                        4 => read(client, called, returned, None),
                        _ => read(client, called, returned, value),
                    }
                })
                .collect();
            let expected = any_order(&mut history.iter().collect(), None);
            let found = check(&history);
            assert_eq!(found.is_ok(), expected, "{found:?} {history:?}");
            if let Err(Violation::NotLinearizable { unplaced, .. }) = &found {
                assert_eq!(unplaced.len(), 1, "{history:?}");
            }
            counts[usize::from(expected)] += 1;
        }
        assert!(counts.iter().all(|count| *count > 3_000), "{counts:?}");
    }

    /// The last read is stale, but before that shows, the values that were written twice allow very many orders.
    fn with_many_orders() -> Vec<Operation> {
        let mut history = Vec::new();
        for value in 0..12 {
            history.push(write(value, 0, 10, value));
            history.push(write(value + 100, 0, 100, value));
            history.push(read(value + 200, 20, 65, value));
        }
        history.extend([
            write(300, 0, 10, 20),
            read(301, 40, 41, 20),
            write(302, 50, 75, 21),
            read(303, 60, 61, 21),
            read(304, 70, 71, 20),
        ]);
        history
    }

    #[test]
    fn a_search_that_is_too_long_is_given_up() {
        let history = with_many_orders();
        let violation = check_within(&history, 1_000).unwrap_err();
        assert_eq!(
            violation.to_string(),
            "key a: undecided, the search over 41 operations was given up"
        );
    }

    /// That nothing was read is wrong at once; what came before cannot be decided.
    #[test]
    fn a_violation_is_told_where_a_beginning_is_undecided() {
        let mut history = with_many_orders();
        history.push(read(305, 80, 81, None));
        let Err(Violation::NotLinearizable {
            linearized,
            unplaced,
            ..
        }) = check_within(&history, 1_000)
        else {
            panic!("accepted or undecided");
        };
        assert!(linearized.contains(&history[38]));
        assert!(unplaced.ends_with(&history[40..]), "{unplaced:?}");
        assert!(!unplaced.iter().any(|other| linearized.contains(other)));
    }
}
