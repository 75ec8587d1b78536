//! Histories that are good, and the violations that are told of others.

use super::*;

const MS: u64 = 1_000_000;

fn operation(client: u64, called: u64, returned: impl Into<Option<u64>>, kind: Kind) -> Operation {
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
