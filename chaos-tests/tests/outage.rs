//! The forge away, in small: what `outage` tells of an hour is so of five minutes with a few hundred webhooks.

#![allow(
    clippy::unwrap_used,
    reason = "a test that does not get what it needs has failed"
)]

use std::process::{Command, Output};

use serde_json::Value;

fn outage(seconds: &str, minutes: &str, seed: &str) -> Output {
    let arguments = "--rate 20 --pulls 40 --away-after 6 --output json";
    Command::new(env!("CARGO_BIN_EXE_outage"))
        .args(arguments.split(' '))
        .args(["--seconds", seconds, "--away-minutes", minutes])
        .args(["--seed", seed])
        .output()
        .unwrap()
}

/// HOOK-027, HOOK-043, GHC-006: while the forge is away lanes stand still, and nothing is lost, doubled or given up by that.
#[test]
fn a_forge_that_is_away_costs_no_webhook_and_no_try() {
    let output = outage("30", "5", "1");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{told}");
    let account: Value = serde_json::from_str(&said).unwrap();
    let number = |name: &str| account[name].as_u64().unwrap();
    assert_eq!(account["broken"], Value::Array(vec![]), "{account:#}");
    assert_eq!(number("by_people"), 600, "{account:#}");
    assert_eq!(number("accepted"), number("offered"), "{account:#}");
    assert_eq!(number("handled"), number("offered"), "{account:#}");
    assert!(number("writes") > 300, "{account:#}");
    for none in ["doubled", "failures", "skipped", "dead"] {
        assert_eq!(number(none), 0, "{none}: {account:#}");
    }
    assert_eq!(number("leaders_killed"), 2, "{account:#}");
    // What people wrote meanwhile was in the way of some titles.
    assert!(number("overruled") > 0, "{account:#}");
    // Two leaders find out by ten calls each and what is under way then; a probe each quarter of a minute; a limit is found
    // out anew each minute.
    assert!(number("calls_while_away") < 300, "{account:#}");
    let worked_off = account["worked_off_s"].as_f64().unwrap();
    assert!(worked_off < 90.0, "{account:#}");
}

#[test]
fn a_seed_means_one_run() {
    let trace = || {
        let output = outage("10", "1", "7");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let account: Value = serde_json::from_slice(&output.stdout).unwrap();
        (account["lines"].clone(), account["trace"].clone())
    };
    assert_eq!(trace(), trace());
}
