//! Plugins: what a webhook makes happen.
