//! Whether what clients were told of independent registers could have come from one copy of each.
//!
//! The search is that of Wing and Gong with Lowe's memory of the states it has seen: from all operations that were
//! called before any other returned, one is taken to be next. Registers allow two short cuts that lose no order. A read
//! of what the register holds is placed at once, since it changes nothing. A write after which nobody is still to read
//! its value is not taken back, since it and its reads could be moved here from wherever else they are. So only values
//! that were written more than once make the search branch.

mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::search::{Outcome, Search};

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

#[cfg(test)]
mod tests;
