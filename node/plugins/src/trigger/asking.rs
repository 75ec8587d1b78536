//! What trigger makes of a comment before it looks at any job, for those who want to know in advance.

use trireme_config::job::{Contexts, Filter};
use trireme_forge::CombinedStatus;

use crate::facts;
use crate::text::drop_code_blocks;

/// Labels by which trigger remembers whom to trust.
pub use crate::label_names::{NEEDS_OK_TO_TEST, OK_TO_TEST};

/// What a comment asks for, without what stands in code blocks (PLG-TRIGGER-004). `ignore_ok_to_test` is the setting of
/// the repository.
#[must_use]
pub fn filter_for(comment: &str, ignore_ok_to_test: bool, contexts: &Contexts) -> Filter {
    Filter::for_comment(&drop_code_blocks(comment), !ignore_ok_to_test, contexts)
}

/// Whether the statuses of the head have a say in that.
#[must_use]
pub fn wants_contexts(comment: &str) -> bool {
    Filter::wants_contexts(&drop_code_blocks(comment))
}

/// The statuses of a head as retests look at them.
#[must_use]
pub fn contexts(statuses: &CombinedStatus) -> Contexts {
    facts::contexts(statuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plg_trigger_004_code_blocks_ask_for_nothing() {
        assert!(wants_contexts("/retest"));
        assert!(!wants_contexts("```\n/retest\n```"));
    }
}
