//! WAL, snapshots, archive, consensus, transport and membership; the [`Store`] handle over them.
//!
//! [`Store`] is what others use: [`Store::propose`] replicates a command from any node, [`Store::view`] is the state as
//! this node has applied it, [`Store::watch`] follows its changes, [`Store::linearize`] makes a read current. The state
//! itself, and what commands do to it, is `trireme-state`'s; here it is only carried, kept and compared.
//!
//! Of the parts, [`wal`], [`snapshot`], [`archive`] and [`directory`] know their files and nothing of consensus; files
//! are reached through [`disk`] alone (the archive's sled excepted). One private module, `consensus`, names openraft's
//! types.
//!
//! What never stands here: GitHub, Kubernetes, YAML, configuration, and any decision about jobs or merges.

pub mod archive;
mod config;
mod consensus;
pub mod directory;
pub mod disk;
mod fatal;
mod feed;
mod host;
pub mod snapshot;
mod store;
mod transport;
mod view;
pub mod wal;

pub use config::{Limits, PeerListener, PeerTls, StoreConfig, Timing};
pub use consensus::Role;
pub use fatal::{Fatal, FatalKind};
pub use feed::{Changes, FeedOptions, Watch, WatchError};
pub use host::{Host, Pipe, World};
pub use store::{
    Applied, ArchiveReader, JoinError, Leadership, MemberStatus, MembershipError, OpenError,
    ProposeError, ReadError, Status, Store,
};
pub use transport::ListenError;
pub use trireme_proto::raft::Node;
pub use view::View;
