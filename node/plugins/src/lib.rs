//! Plugins: what a webhook makes happen.
//!
//! Here stand the plugins, one module each: a pure decision from the event, the configuration and the facts it asks
//! for, and around it what fetches those facts. Texts that people and tools read are Prow's, byte for byte. And here
//! stands [`PluginsController`], which takes accepted deliveries in, has every plugin decide once, carries its plan out
//! in order and repairs what webhooks missed.
//!
//! Here never stand receiving and checking webhooks (a door's), running jobs, merging, or telling results: plugins and
//! the other controllers meet in the state.

mod controller;
pub mod decision;
mod facts;
pub mod help;
mod label_names;
mod metrics;
mod mirror;
mod outside;
pub mod plugin;
mod registry;
mod respond;
#[cfg(test)]
mod testing;
mod text;

pub use controller::{Equipment, MAX_TRIES, OurHooks, PluginsController, REPAIR_EVERY, SETTLE};
pub use help::PluginHelp;
pub use metrics::PluginMetrics;
pub use mirror::MIRROR;
pub use outside::{NoClient, Outside, OutsideAnswer, OutsideError};
pub use plugin::{EventKind, PlanError, Planning, Plugin};
pub use registry::Plugins;
pub use trigger::{Standstill, asking};

/// The list of plugins: of each its module and in it the plugin.
macro_rules! plugins {
    ($($module:ident::$plugin:ident,)*) => {
        $(mod $module;)*

        fn built_in() -> Vec<std::sync::Arc<dyn Plugin>> {
            vec![$(std::sync::Arc::new($module::$plugin),)*]
        }
    };
}

plugins! {
    approve::Approve,
    hold::Hold,
    lgtm::Lgtm,
    trigger::Trigger,
    wip::Wip,
}
