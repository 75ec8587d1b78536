//! Plugins: what a webhook makes happen.
//!
//! Here stand the plugins, one module each: a pure decision from the event, the configuration and the facts it asks
//! for, and around it what fetches those facts. Texts that people and tools read are Prow's, byte for byte. And here
//! stands [`PluginsController`], which takes accepted deliveries in, has every plugin decide once, carries its plan out
//! in order and repairs what webhooks missed.
//!
//! Here never stand receiving and checking webhooks (a door's), running jobs, merging, or telling results: plugins and
//! the other controllers meet in the state.

mod approve;
mod controller;
pub mod decision;
mod facts;
pub mod help;
mod hold;
mod label_names;
mod lgtm;
mod mirror;
pub mod plugin;
mod registry;
mod respond;
#[cfg(test)]
mod testing;
mod text;
mod trigger;
mod wip;

pub use controller::{MAX_TRIES, OurHooks, PluginsController, REPAIR_EVERY, SETTLE};
pub use help::PluginHelp;
pub use mirror::MIRROR;
pub use plugin::{PlanError, Planning, Plugin};
pub use registry::Plugins;
pub use trigger::{Standstill, asking};
