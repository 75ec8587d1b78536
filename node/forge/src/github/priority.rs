//! Who may spend the last of a budget, and who must leave it to others.

/// How many percent of an hour's quota background work leaves to what merges and to what answers people.
pub const BACKGROUND_LEAVES_PERCENT: u64 = 20;

/// How many requests of background work are under way at once, of [`MAX_IN_FLIGHT`](super::MAX_IN_FLIGHT).
pub const BACKGROUND_IN_FLIGHT: usize = 10;

/// What waits for an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A merge, or a person: goes on until the quota is spent.
    #[default]
    Prompt,
    /// A slow repair: once no more than [`BACKGROUND_LEAVES_PERCENT`] of the hour's quota are left it is told
    /// [`RateLimited`](crate::ForgeError::RateLimited) until the hour is over, without being sent; and no more than
    /// [`BACKGROUND_IN_FLIGHT`] of its requests are under way at once.
    Background,
}
