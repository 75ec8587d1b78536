//! Replicated state: records, commands, apply, indexes, queries.
