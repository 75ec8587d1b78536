//! Which contexts count for a pull request (TIDE-040 … TIDE-044). The configuration decides; Tide asks.

use std::collections::BTreeSet;

/// The policy for one branch, presubmits included.
pub trait ContextPolicy: Send + Sync {
    /// Whether the context may be in any state.
    fn is_optional(&self, context: &str) -> bool;
    /// Contexts that must be there and are not, sorted.
    fn missing_required(&self, present: &BTreeSet<&str>) -> Vec<String>;
}
