//! Administration: controllers that keep a forge in line with the configuration. One module per tool of Prow's; tools that
//! are no controllers stand elsewhere.

pub mod status_reconciler;
