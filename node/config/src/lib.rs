//! Prow's configuration files: parse, merge, default, validate.
