//! Merges and their intents.

use std::collections::BTreeMap;

use trireme_proto::state::IntentState;

use crate::History;

/// No head takes effect twice, every merge was intended first, and every intent that says so has its merge.
pub(super) fn once_per_head(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for merged in &history.merged {
        *times.entry(&merged.head_sha).or_default() += 1;
    }
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    for intent in &history.last.intents {
        match intent.state() {
            IntentState::Merged | IntentState::Observed => {
                *done.entry(&intent.head_sha).or_default() += 1;
            }
            IntentState::Open => found.push(format!(
                "the intent to merge #{} is still open in the end",
                intent.number
            )),
            _ => {}
        }
    }
    for (head, count) in &times {
        if *count > 1 {
            found.push(format!("head {head} was merged {count} times"));
        }
        match done.get(head) {
            None => found.push(format!("head {head} was merged, but no intent says so")),
            Some(intents) if *intents > 1 => {
                found.push(format!("{intents} intents say that head {head} was merged"));
            }
            Some(_) => {}
        }
    }
    for head in done.keys() {
        if !times.contains_key(head) {
            found.push(format!(
                "an intent says that head {head} was merged, the forge does not"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{good, judged};
    use super::*;

    #[test]
    fn a_head_merged_twice_is_caught() {
        let mut history = good();
        let again = history.merged[0].clone();
        history.merged.push(again);
        assert!(judged(&history).contains("head h1 was merged 2 times"));
    }

    #[test]
    fn a_merge_without_an_intent_is_caught() {
        let mut history = good();
        history.last.intents.clear();
        assert!(judged(&history).contains("head h1 was merged, but no intent says so"));
    }

    #[test]
    fn an_intent_without_its_merge_is_caught() {
        let mut history = good();
        history.merged.clear();
        assert!(judged(&history).contains("an intent says that head h1 was merged"));
    }

    #[test]
    fn an_open_intent_is_caught() {
        let mut history = good();
        history.last.intents[0].set_state(IntentState::Open);
        assert!(judged(&history).contains("the intent to merge #1 is still open"));
    }
}
