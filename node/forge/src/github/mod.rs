//! GitHub behind the capabilities.

pub(crate) mod wire;
