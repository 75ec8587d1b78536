//! clonerefs, initupload, entrypoint, sidecar, decoration.
