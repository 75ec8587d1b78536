//! What the nodes hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::History;

/// At an equal revision every node has the same digest, and there is a revision at which all of them were asked.
pub(super) fn agree(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut at: BTreeMap<u64, BTreeMap<u64, &str>> = BTreeMap::new();
    for sample in &history.digests {
        let digests = at.entry(sample.revision).or_default();
        let before = digests.insert(sample.node, &sample.digest);
        if before.is_some_and(|before| before != sample.digest) {
            found.push(format!(
                "node {} has two digests at {}",
                sample.node, sample.revision
            ));
        }
    }
    for (revision, digests) in &at {
        let different: BTreeSet<&&str> = digests.values().collect();
        if different.len() > 1 {
            found.push(format!("the nodes differ at {revision}: {digests:?}"));
        }
    }
    let all: BTreeSet<u64> = history.nodes.iter().copied().collect();
    let met = at
        .values()
        .any(|digests| !all.is_empty() && all.iter().all(|node| digests.contains_key(node)));
    if !met {
        found.push(format!(
            "there is no revision at which all of {all:?} were asked"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{good, judged};

    #[test]
    fn a_different_digest_is_caught() {
        let mut history = good();
        history.digests[1].digest = "other".to_owned();
        assert!(judged(&history).contains("the nodes differ at 9"));
    }

    #[test]
    fn a_node_that_was_not_asked_is_caught() {
        let mut history = good();
        history.digests.pop();
        assert!(judged(&history).contains("there is no revision at which all of {1, 2, 3}"));
    }
}
