//! Scheduler, periodics, agent executor.
