//! The sandbox from outside: over HTTP, over git, and through the language of stories.

// `cfg(test)` always holds here; it tells clippy that helpers are tests, too.
#[cfg(test)]
mod faults;
#[cfg(test)]
mod git;
#[cfg(test)]
mod graphql;
#[cfg(test)]
mod plugins;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod support;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod within;
#[cfg(test)]
mod world;
