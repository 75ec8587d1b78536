//! Feature levels: which commands a cluster may hold.

use trireme_proto::state::{Command, command::Body};

/// The highest level that this build understands.
pub const FEATURE_LEVEL: u32 = 2;

/// The level of a cluster that has never raised it.
pub const BASE_LEVEL: u32 = 1;

/// The lowest level of a cluster that may hold this command: what it says, and what its kind needs.
pub fn min_level_of(command: &Command) -> u32 {
    // All kinds so far belong to the base level; a later kind gets its own arm here.
    command.min_level.max(BASE_LEVEL)
}

/// Whether this build knows the command's kind. A node stops before it applies one that it does not know.
pub fn is_known(command: &Command) -> bool {
    let known: Option<&Body> = command.body.as_ref();
    known.is_some() && min_level_of(command) <= FEATURE_LEVEL
}
