//! How loading the configuration went on a node (CFG-095).

use serde_json::{Value, json};
use trireme_proto::api::{ConfigLoad, ConfigStatus};

fn load_json(load: &ConfigLoad) -> Value {
    json!({
        "at_ms": load.at_ms, "took_micros": load.took_micros,
        "error": (!load.error.is_empty()).then_some(&load.error),
        "good_ms": (load.good_ms > 0).then_some(load.good_ms), "failures": load.failures,
    })
}

pub(super) fn to_json(config: &ConfigStatus) -> Value {
    json!({
        "version": (config.version > 0).then_some(config.version), "version_sha": config.version_sha,
        "parsed": config.parsed.as_ref().map(load_json), "followed": config.followed.as_ref().map(load_json),
    })
}

/// HOOK-052: since when it does not go well.
fn standing(load: &ConfigLoad) -> String {
    let times = match load.failures {
        1 => "failed once".to_owned(),
        times => format!("failed {times} times"),
    };
    let good = jiff::Timestamp::from_second(load.good_ms / 1000);
    match good.ok().filter(|_| load.good_ms > 0) {
        Some(good) => format!("{times}, last good at {good}"),
        None => format!("{times}, never good since the node started"),
    }
}

/// What did not go well, one line each.
pub(super) fn errors(config: &ConfigStatus) -> Vec<String> {
    let loads = [
        ("version in force", &config.parsed),
        ("followed configuration", &config.followed),
    ];
    let failed = loads.into_iter().filter_map(|(what, load)| {
        let load = load.as_ref()?;
        let error = &load.error;
        (!error.is_empty()).then(|| {
            let since = standing(load);
            format!("the {what} is not taken, the former configuration stays ({since}): {error}")
        })
    });
    failed.collect()
}

/// What the node that was asked plans with, and what of it failed.
pub(super) fn to_text(config: &ConfigStatus) -> String {
    let mut text = match (config.version, config.version_sha.trim()) {
        (0, _) => "\nconfig   none yet: `trireme config apply` it\n".to_owned(),
        (version, "") => format!("\nconfig   version {version}\n"),
        (version, sha) => format!("\nconfig   version {version} ({sha})\n"),
    };
    for error in errors(config) {
        text.push_str(&format!("         {error}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CFG-095, HOOK-052
    #[test]
    fn cfg_095_the_status_tells_what_is_in_force_and_what_failed() {
        let config = ConfigStatus {
            version: 4,
            version_sha: "abc\n".into(),
            parsed: Some(ConfigLoad::default()),
            followed: Some(ConfigLoad {
                error: "jobs.yaml:4:17: bad".into(),
                good_ms: 1_700_000_000_000,
                failures: 2,
                ..ConfigLoad::default()
            }),
        };
        insta::assert_snapshot!(to_text(&config), @r"
        config   version 4 (abc)
                 the followed configuration is not taken, the former configuration stays (failed 2 times, last good at 2023-11-14T22:13:20Z): jobs.yaml:4:17: bad
        ");
        assert_eq!(
            to_text(&ConfigStatus::default()),
            "\nconfig   none yet: `trireme config apply` it\n"
        );
        let json = to_json(&config);
        assert_eq!(json["followed"]["error"], "jobs.yaml:4:17: bad");
        assert_eq!(json["followed"]["failures"], 2);
        assert_eq!(json["parsed"]["error"], Value::Null);
        assert_eq!(json["parsed"]["good_ms"], Value::Null);
    }
}
