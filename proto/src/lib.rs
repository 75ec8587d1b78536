//! Every message that crosses a wire or lies on disk, generated from `proto/`; no logic.
//!
//! [`state`] holds records, commands and changes of the replicated state, [`raft`] what nodes of one cluster say to
//! each other, [`api`] what clients and agents say to a node.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    reason = "generated code"
)]

// Generated code names its siblings by package path, so the modules nest as the packages do.
mod generated {
    pub mod state {
        pub mod v1 {
            tonic::include_proto!("trireme.state.v1");
        }
    }
    pub mod raft {
        pub mod v1 {
            tonic::include_proto!("trireme.raft.v1");
        }
    }
    pub mod api {
        pub mod v1 {
            tonic::include_proto!("trireme.api.v1");
        }
    }
}

pub use generated::{api::v1 as api, raft::v1 as raft, state::v1 as state};

/// The encoded `FileDescriptorSet` of all the above, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
