//! Runs from record to result: the [`Scheduler`] leases triggered jobs to agents, [`Periodics`] creates runs when
//! their time comes, [`Sinker`] takes finished ones out of memory, and [`agent`] is the worker process that runs them.
//!
//! The scheduler decides from the replicated state; only when an agent was last heard of is kept in memory, and a new
//! leader grants every lease one full period. Kubernetes is not known here.

pub mod agent;
mod leases;
mod periodics;
mod scheduler;
mod sinker;
mod unfit;
mod waiting;

pub use leases::Leases;
pub use periodics::Periodics;
pub use scheduler::Scheduler;
pub use sinker::Sinker;
