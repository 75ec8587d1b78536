//! Prow's own JSON and YAML object types.
