//! What this node knows of the forge's budgets (GHC-050): how many requests are left, and when the count begins anew.

use std::sync::Arc;

/// One budget, as the forge told it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetLeft {
    /// The host, or the app and the organisation that it acts in; never a token.
    pub name: String,
    /// The forge's own word: `core`, `graphql`, `search`.
    pub resource: String,
    pub remaining: u64,
    pub limit: u64,
    /// Milliseconds since 1970.
    pub reset_ms: i64,
}

/// Asked whenever the page is shown.
pub type Budgets = Arc<dyn Fn() -> Vec<BudgetLeft> + Send + Sync>;
