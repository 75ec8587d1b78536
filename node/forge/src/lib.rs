//! The product's view of forges: what GitHub knows and can do, in the product's words.
//!
//! Here stand the capabilities ([`forge`], one trait each, and the data they speak of: [`types`] and [`search`] for what
//! a forge tells, [`drafts`] and [`merge`] for what it is asked to make), GitHub behind them
//! ([`github`]), the payloads of its webhooks ([`webhook`]), bare git mirrors with what is read and merged in them
//! ([`git`]), and OWNERS files ([`owners`]).
//!
//! Here never stand decisions: who may do what, what is tested or merged, when to try again after an outage. Neither
//! does the receiving of webhooks (headers, signatures): that is a door's.

pub mod delivery;
pub mod drafts;
mod error;
pub mod forge;
pub mod git;
pub mod github;
pub mod merge;
pub mod mergeable;
pub mod owners;
pub mod search;
pub mod types;
pub mod webhook;

pub use delivery::{Hook, HookDelivery, HookOwner, HookScope};
pub use drafts::*;
pub use error::{ForgeError, Result};
pub use forge::{
    Actions, Assignees, Branches, Comments, Contents, Deliveries, Forge, Forks, Hooks, Identity,
    IssueMoves, Issues, Labels, Membership, Merges, Milestones, People, PullRequests, Reactions,
    Repositories, Reviewers, Search, Statuses, Teams,
};
pub use merge::{MergeError, MergeRefused, MergeRequest, Merged, Refusal};
pub use mergeable::Mergeability;
pub use search::{SearchRequest, SearchedPullRequest};
pub use types::*;
