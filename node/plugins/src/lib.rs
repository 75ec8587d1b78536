//! Plugins: what a webhook makes happen.
//!
//! Here stand the plugins, one module each: a pure decision from the event, the configuration and the facts it asks
//! for, and around it what fetches those facts. Texts that people and tools read are Prow's, byte for byte. And here
//! stands [`PluginsController`], which takes accepted deliveries in, has every plugin decide once, carries its plan out
//! in order and repairs what webhooks missed.
//!
//! Here never stand receiving and checking webhooks (a door's), running jobs, merging, or telling results: plugins and
//! the other controllers meet in the state.
//!
//! # Writing a plugin
//!
//! A plugin is one module: its help, its section of `plugins.yaml`, the events it takes, and a handler that makes of an
//! event, the state and the forge a [`decision::Decision`]: what is to be done, as values. It changes nothing itself. The
//! decision is committed once per delivery and carried out from there, so that a crash neither loses nor doubles an
//! effect, and a test of a plugin is a test of a function. What it needs from the forge it reads through
//! [`Planning::forge`]; an error there is handed on with `?`, and the event waits or is tried again. The one line to add
//! elsewhere is that of the list at the end of this file.
//!
//! ```
//! //! `farewell`: thanks the author of a pull request that was merged.
//!
//! use async_trait::async_trait;
//! use serde::Deserialize;
//! use trireme_config::plugins::{Problem, Section};
//! use trireme_forge::webhook::{Event, PullRequestAction};
//! use trireme_plugins::decision::{Decision, Target};
//! use trireme_plugins::help::{HelpScope, PluginHelp};
//! use trireme_plugins::{Configured, EventKind, PlanError, Planning, Plugin};
//!
//! pub struct Farewell;
//!
//! #[derive(Default, Deserialize)]
//! #[serde(default)]
//! struct Settings {
//!     words: String,
//! }
//!
//! #[async_trait]
//! impl Plugin for Farewell {
//!     fn name(&self) -> &'static str {
//!         "farewell"
//!     }
//!
//!     fn events(&self) -> &'static [EventKind] {
//!         &[EventKind::PullRequest]
//!     }
//!
//!     fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
//!         matches!(event, Event::PullRequest(event)
//!             if event.action == PullRequestAction::Closed && event.pull_request.merged)
//!     }
//!
//!     async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
//!         let Event::PullRequest(event) = event else {
//!             return Ok(Decision::nothing());
//!         };
//!         let pr = &event.pull_request;
//!         let settings: &Settings = cx.section("farewell")?;
//!         Ok(thank(&Target::new(&pr.repo, pr.number), &pr.author.login, &settings.words))
//!     }
//!
//!     fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
//!         PluginHelp {
//!             description: "The farewell plugin thanks whose pull request was merged.".into(),
//!             ..PluginHelp::default()
//!         }
//!     }
//!
//!     fn section(&self) -> Option<Section> {
//!         Some(Section::new("farewell", |settings: &mut Settings| match settings.words.len() {
//!             0..=100 => vec![],
//!             _ => vec![Problem::error("words", "more than 100 bytes")],
//!         }))
//!     }
//! }
//!
//! fn thank(on: &Target, login: &str, words: &str) -> Decision {
//!     vec![on.comment(format!("@{login}: thank you. {words}"))].into()
//! }
//! # let on = Target::new(&trireme_forge::RepoId::new("org", "repo"), 7);
//! # assert_eq!(thank(&on, "ann", "Come again!").to_string(), "comment: @ann: thank you. Come again!");
//! # let plugins = trireme_plugins::Plugins::built_in().with(Farewell);
//! # let mut files = trireme_config::FileSet::new(trireme_config::Layout {
//! #     config: "config.yaml".to_owned(),
//! #     plugins: Some("plugins.yaml".to_owned()),
//! #     ..Default::default()
//! # });
//! # files.insert("config.yaml", *b"{}");
//! # let registry = plugins.config_registry();
//! # let read = |text: String| {
//! #     let mut files = files.clone();
//! #     files.insert("plugins.yaml", text.as_bytes());
//! #     let options = trireme_config::LoadOptions { plugins: Some(&registry), ..Default::default() };
//! #     trireme_config::Config::load(&files, options).accepted().map(|(_, plugins)| plugins)
//! # };
//! # let yaml = "plugins: {org: {plugins: [farewell]}}\nfarewell: {words: Come again!}";
//! # let read_back = read(yaml.to_owned()).unwrap();
//! # assert_eq!(read_back.section::<Settings>("farewell").unwrap().words, "Come again!");
//! # assert!(read(format!("farewell: {{words: {}}}", "x".repeat(101))).is_err());
//! ```
//!
//! What Prow's own texts and patterns need is at hand: `commands!` for regular expressions as Go reads them,
//! `respond::reply_to` for answers, [`decision::Decision::push_if`] for what depends on the forge's answer,
//! [`decision::Decision::for_head`] for what holds for one head alone, [`Planning::settled_for`] for what has to wait.

mod changes;
mod config_maps;
mod controller;
pub mod decision;
mod enablement;
mod facts;
mod fun;
pub mod help;
mod label_names;
mod metrics;
mod mirror;
mod options;
mod payload;
pub mod plugin;
mod registry;
mod respond;
#[cfg(test)]
mod testing;
mod text;

#[cfg(feature = "cost")]
pub use approve::cost;
pub use config_maps::{ClusterError, ConfigMapId, ConfigMaps, Values};
pub use controller::{
    Equipment, ForgeOfPlugin, MAX_TRIES, OurHooks, PluginsController, REPAIR_EVERY, ROUND, SETTLE,
};
pub use enablement::{Enablement, EnablementError};
pub use help::PluginHelp;
pub use metrics::PluginMetrics;
pub use mirror::MIRROR;
pub use options::{
    CherrypickerOptions, FunOptions, JiraOptions, NeedsRebaseOptions, PluginOptions, SlackOptions,
};
pub use plugin::{Configured, EventKind, PlanError, Planning, Plugin};
pub use registry::Plugins;
pub use trigger::{Standstill, asking};

/// The list of plugins: of each its module and in it the plugin. `cargo fmt` does not see modules that are declared so:
/// `rustfmt --edition 2024 <file>` formats one, `.ci/run` looks at all.
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
    assign::Assign,
    blockade::Blockades,
    blunderbuss::Blunderbuss,
    branch_cleaner::BranchCleaner,
    cat::Cat,
    cherry_pick_approved::CherryPickApproved,
    cherry_pick_unapproved::CherryPickUnapproved,
    cherrypicker::Cherrypicker,
    cla::Cla,
    config_updater::ConfigUpdater,
    dco::Dco,
    dog::Dog,
    golint::Golint,
    goose::Goose,
    heart::Heart,
    help_wanted::HelpWanted,
    hold::Hold,
    invalid_commit_msg::InvalidCommitMsg,
    issue_management::IssueManagement,
    jira::Jira,
    label::Label,
    lgtm::Lgtm,
    lifecycle::Lifecycle,
    merge_commit_blocker::MergeCommitBlocker,
    merge_method_comment::MergeMethodComment,
    milestone::Milestone,
    milestone_applier::MilestoneApplier,
    milestone_status::MilestoneStatus,
    needs_rebase::NeedsRebase,
    overrides::Override,
    owners_label::OwnersLabel,
    pony::Pony,
    refresh::Refresh,
    release_note::ReleaseNote,
    require_matching_label::RequireMatchingLabel,
    retitle::Retitle,
    shrug::Shrug,
    sigmention::SigMention,
    size::Size,
    skip::Skip,
    slackevents::SlackEvents,
    stage::Stage,
    transfer_issue::TransferIssue,
    trigger::Trigger,
    verify_owners::VerifyOwners,
    welcome::Welcome,
    wip::Wip,
    yuks::Yuks,
}
