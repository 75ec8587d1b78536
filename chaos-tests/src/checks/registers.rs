//! What clients of registers were told.

use std::collections::BTreeMap;

use super::linearizable::{self, Kind, Operation};
use crate::{
    History,
    registers::{ABORTED, Asked, CREATED, Outcome, Verb},
};

/// As the checker of registers wants it. Creating what is there already writes nothing, so only the first of a
/// register's creations can be its write: the request that creates it is one, however often it is sent.
fn operations(history: &History) -> Vec<Operation> {
    let mut creations: BTreeMap<&str, Operation> = BTreeMap::new();
    let mut operations = Vec::new();
    for asked in &history.asked {
        let (kind, returned_ns) = match (asked.verb, &asked.outcome) {
            (Verb::Read, Outcome::Done { seen, .. }) => {
                (Kind::Read { seen: *seen }, Some(asked.returned_ns))
            }
            (Verb::Abort, Outcome::Done { .. }) => {
                (Kind::Write { value: ABORTED }, Some(asked.returned_ns))
            }
            (Verb::Abort, Outcome::Unknown { .. }) => (Kind::Write { value: ABORTED }, None),
            (Verb::Create, Outcome::Done { .. }) => {
                (Kind::Write { value: CREATED }, Some(asked.returned_ns))
            }
            (Verb::Create, Outcome::Unknown { .. }) => (Kind::Write { value: CREATED }, None),
            (Verb::Create, Outcome::Refused { .. }) => {
                (Kind::Refused { value: CREATED }, Some(asked.returned_ns))
            }
            (Verb::Abort, Outcome::Refused { .. }) => {
                (Kind::Refused { value: ABORTED }, Some(asked.returned_ns))
            }
            (Verb::Read | Verb::ReadAtLeast { .. }, _) => continue,
        };
        let operation = Operation {
            client: asked.client,
            key: asked.key.clone(),
            called_ns: asked.called_ns,
            returned_ns,
            kind,
        };
        if asked.verb != Verb::Create || matches!(kind, Kind::Refused { .. }) {
            operations.push(operation);
            continue;
        }
        // Acknowledged at the latest when the first acknowledgement came; called when the first call was.
        let first = creations
            .entry(&asked.key)
            .or_insert_with(|| operation.clone());
        first.called_ns = first.called_ns.min(operation.called_ns);
        first.returned_ns = match (first.returned_ns, operation.returned_ns) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    operations.extend(creations.into_values());
    operations
}

/// Every register by itself.
pub(super) fn are_linearizable(history: &History) -> Vec<String> {
    let mut by_key: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for operation in operations(history) {
        by_key
            .entry(operation.key.clone())
            .or_default()
            .push(operation);
    }
    by_key
        .values()
        .filter_map(|operations| linearizable::check(operations).err())
        .map(|violation| violation.to_string())
        .collect()
}

/// A node that was asked for at least a revision shows everything up to it, and says so.
pub(super) fn are_as_new_as_asked(history: &History) -> Vec<String> {
    let mut writes: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for asked in &history.asked {
        let value = match asked.verb {
            Verb::Create => CREATED,
            Verb::Abort => ABORTED,
            Verb::Read | Verb::ReadAtLeast { .. } => continue,
        };
        if let Outcome::Done { revision, .. } = asked.outcome {
            writes
                .entry(&asked.key)
                .or_default()
                .push((revision, value));
        }
    }
    let mut found = Vec::new();
    for asked in &history.asked {
        let (Verb::ReadAtLeast { revision: least }, Outcome::Done { revision, seen }) =
            (asked.verb, &asked.outcome)
        else {
            continue;
        };
        // Registers only rise.
        let written = writes.get(asked.key.as_str()).into_iter().flatten();
        let must = written
            .filter(|(at, _)| *at <= least)
            .map(|(_, value)| *value)
            .max();
        let Asked { key, node, .. } = asked;
        if *seen < must {
            let word = seen.map_or("nothing".to_owned(), |seen| seen.to_string());
            found.push(format!(
                "register {key}: node {node} was asked for revision {least} and showed {word}, not {}",
                must.unwrap_or_default()
            ));
        } else if seen.is_some() && *revision < least {
            found.push(format!(
                "register {key}: node {node} was asked for revision {least} and answered at {revision}"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{good, judged};
    use super::*;

    fn done(asked: &mut Asked) -> (&mut u64, &mut Option<u64>) {
        match &mut asked.outcome {
            Outcome::Done { revision, seen } => (revision, seen),
            other => panic!("{other:?}"),
        }
    }

    fn find(history: &mut History, verb: fn(Verb) -> bool) -> &mut Asked {
        let mut asked = history.asked.iter_mut().rev();
        asked.find(|asked| verb(asked.verb)).unwrap()
    }

    #[test]
    fn a_stale_linearizable_read_is_caught() {
        let mut history = good();
        *done(find(&mut history, |verb| verb == Verb::Read)).1 = Some(CREATED);
        let judged = judged(&history);
        assert!(
            judged.contains("registers are linearizable: key r1: no order explains"),
            "{judged}"
        );
    }

    #[test]
    fn a_register_that_is_gone_is_caught() {
        let mut history = good();
        *done(find(&mut history, |verb| verb == Verb::Read)).1 = None;
        let judged = judged(&history);
        assert!(judged.contains("read nothing"), "{judged}");
    }

    #[test]
    fn a_refused_write_that_took_effect_is_caught() {
        let mut history = good();
        find(&mut history, |verb| verb == Verb::Abort).outcome = Outcome::Refused {
            why: "Unavailable: no leader is known".to_owned(),
        };
        let judged = judged(&history);
        assert!(judged.contains("but that was refused"), "{judged}");
    }

    #[test]
    fn a_creation_that_takes_effect_again_is_caught() {
        let mut history = good();
        let last = history.asked.last().unwrap().returned_ns;
        // The request is sent again after the register was aborted, which must change nothing.
        let mut again = history.asked[0].clone();
        (again.called_ns, again.returned_ns) = (last + 1, last + 2);
        history.asked.push(again);
        assert_eq!(are_linearizable(&history), Vec::<String>::new());
        let mut read = find(&mut history, |verb| verb == Verb::Read).clone();
        (read.called_ns, read.returned_ns) = (last + 3, last + 4);
        *done(&mut read).1 = Some(CREATED);
        history.asked.push(read);
        assert!(judged(&history).contains("no order explains"));
    }

    #[test]
    fn a_state_that_nobody_asked_for_is_caught() {
        let mut history = good();
        *done(find(&mut history, |verb| verb == Verb::Read)).1 =
            Some(crate::registers::UNASKED + 5);
        assert!(judged(&history).contains("read 105"));
    }

    #[test]
    fn a_read_older_than_asked_for_is_caught() {
        let mut history = good();
        let at_least = |verb| matches!(verb, Verb::ReadAtLeast { .. });
        *done(find(&mut history, at_least)).1 = None;
        let judged = judged(&history);
        assert!(
            judged.contains(
                "register r1: node 2 was asked for revision 10 and showed nothing, not 1"
            ),
            "{judged}"
        );
    }

    #[test]
    fn an_answer_at_an_older_revision_is_caught() {
        let mut history = good();
        let at_least = |verb| matches!(verb, Verb::ReadAtLeast { .. });
        *done(find(&mut history, at_least)).0 = 9;
        let judged = judged(&history);
        assert!(
            judged.contains("was asked for revision 10 and answered at 9"),
            "{judged}"
        );
    }

    #[test]
    fn what_has_no_answer_may_have_happened_or_not() {
        for seen in [Some(CREATED), Some(ABORTED)] {
            let mut history = good();
            find(&mut history, |verb| verb == Verb::Abort).outcome = Outcome::Unknown {
                why: "no answer".to_owned(),
            };
            *done(find(&mut history, |verb| verb == Verb::Read)).1 = seen;
            assert_eq!(are_linearizable(&history), Vec::<String>::new());
        }
    }
}
