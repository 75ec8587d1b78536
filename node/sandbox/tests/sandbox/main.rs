//! The sandbox from outside: over HTTP, over git, and through the language of stories.

mod faults;
mod git;
mod graphql;
mod rest;
mod support;
mod webhooks;
mod world;
