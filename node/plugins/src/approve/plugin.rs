//! The plugin around the decision.
