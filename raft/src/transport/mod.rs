//! Connections between the nodes of one cluster: gRPC on a listener of their own.

mod dial;
mod listen;

pub(crate) use dial::{Client, Dialer, never_sent};
pub use listen::ListenError;
pub(crate) use listen::{Caller, Listener, serve};

/// No message is larger: a replication batch is at most 4 MiB, a snapshot chunk 1 MiB and a row.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// HTTP/2 windows: a replication batch and the next one.
pub(crate) const WINDOW_BYTES: u32 = 8 << 20;
