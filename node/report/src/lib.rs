//! Reporters: the outbox to forges.
