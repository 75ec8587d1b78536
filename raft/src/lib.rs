//! WAL, snapshots, archive, consensus, transport and membership; the [`Store`] handle over them.
//!
//! [`Store`] is what others use: [`Store::propose`] replicates a command from any node, [`Store::view`] is the state as
//! this node has applied it, [`Store::watch`] follows its changes, [`Store::linearize`] makes a read current. The state
//! itself, and what commands do to it, is `trireme-state`'s; here it is only carried, kept and compared.
//!
//! Of the parts, [`wal`], [`snapshot`], [`archive`] and [`directory`] know their files and nothing of consensus; files
//! are reached through [`disk`] alone (the archive's sled excepted). One private module, `consensus`, names openraft's
//! types. [`offline`] makes data directories of clusters that do not run.
//!
//! What never stands here: GitHub, Kubernetes, YAML, configuration, and any decision about jobs or merges.

pub mod archive;
mod config;
mod consensus;
mod costs;
pub mod directory;
pub mod disk;
mod fatal;
mod feed;
mod host;
pub mod offline;
mod queues;
mod sealed;
pub mod snapshot;
mod store;
pub mod tls;
mod transport;
mod view;
pub mod wal;

pub use archive::ArchiveReader;
pub use config::{Limits, PeerListener, PeerTls, SpaceOptions, StoreConfig, Tamper, Timing};
pub use consensus::Role;
pub use costs::{Cost, Stage};
pub use fatal::{Fatal, FatalKind};
pub use feed::{Changes, FeedOptions, Watch, WatchError};
pub use host::{Host, Pipe, World};
pub use queues::{QueueDepth, QueueGauge, Queues};
pub use store::{
    Applied, CompactionError, DiskUse, DoorCalls, Handover, JoinError, Leadership, MemberStatus,
    MembershipError, OpenError, ProposeError, ReadError, SaveError, Saving, ScrubError, Scrubbed,
    Status, Store,
};
pub use transport::ListenError;
pub use trireme_proto::raft::Node;
pub use view::View;
