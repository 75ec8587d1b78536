//! A GitHub-compatible forge in a box.
