//! Forges: GitHub, git mirrors, OWNERS; one trait per capability.
