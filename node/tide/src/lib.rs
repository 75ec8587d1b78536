//! Tide: pools, batches, merge intents.
