//! Stories of runs: a cluster of one node behind real doors, real agents, and real processes around the real pod
//! utilities.
//!
//! This program is also those utilities, and an agent that can be killed: it starts itself again for both.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod aborting;
mod attaching;
mod fake_agent;
mod logs;
mod periodics;
mod proxy;
mod restarting;
mod running;
mod silence;
mod sinking;
mod stage;

use std::process::{ExitCode, exit};

use trireme_jobs::agent;

/// Names a directory to whoever is to be an agent; see [`agent_process`].
const AGENT_DIRECTORY: &str = "TRIREME_TEST_AGENT_DIRECTORY";
/// Names the node that it is to attach to.
const AGENT_NODE: &str = "TRIREME_TEST_AGENT_NODE";

/// No test when it is started with the name of a utility: then it is that utility.
#[test]
fn pod_utility() {
    let Some(name) = std::env::args_os().next_back() else {
        return;
    };
    if !["clonerefs", "initupload", "entrypoint", "sidecar"].contains(&&*name.to_string_lossy()) {
        return;
    }
    let ended = trireme_podutils::main(["podutils".into(), name]);
    let code = (0..=u8::MAX).find(|code| ExitCode::from(*code) == ended);
    exit(code.map_or(1, i32::from));
}

/// No test when it is started with a directory: then it is an agent until it is killed.
#[test]
fn agent_process() {
    let (Ok(directory), Ok(node)) = (std::env::var(AGENT_DIRECTORY), std::env::var(AGENT_NODE))
    else {
        return;
    };
    let options = stage::agent_options(directory.into(), node, 4);
    let ended = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(agent::run(options, Default::default()));
    panic!("{ended:?}");
}
