//! Chaos scenarios on real processes.
