//! CFG-027: durations against Go's, as texts and as values of a document.

use serde_json::Value;
use trireme_config::{Config, FileSet, Layout, LoadOptions};
use trireme_prowjob::GoDuration;

use crate::answers;

/// A document with one duration of each kind: Prow's own, and the API machinery's.
fn loaded(scalar: &str) -> [Option<Value>; 2] {
    let own = format!(
        "plank:\n  default_decoration_config_entries:\n  - config:\n      timeout: {scalar}\n"
    );
    let meta = format!("sinker:\n  exclude_clusters: []\nhorologium:\n  tick_interval: {scalar}\n");
    [own, meta].map(|text| {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            ..Layout::default()
        });
        files.insert("config.yaml", text.as_bytes());
        let (config, _) = Config::load(&files, LoadOptions::default())
            .accepted()
            .ok()?;
        let prow = &config.prow;
        let decoration = prow.plank.decoration_defaults.first();
        let own = decoration.and_then(|entry| entry.config.as_ref()?.timeout);
        let meta = prow.horologium.tick_interval;
        Some(
            own.map(|d| d.to_string())
                .or(meta.map(|d| d.to_string()))
                .into(),
        )
    })
}

#[test]
fn cfg_027_durations_are_those_of_go() {
    let Some(cases) = answers::lines("durations.jsonl") else {
        return;
    };
    let (mut texts, mut values, mut wrong) = (0, 0, Vec::new());
    for case in &cases {
        if let Some(text) = case["text"].as_str() {
            texts += 1;
            let found = match text.parse::<GoDuration>() {
                Ok(d) => serde_json::json!({
                    "text": text, "valid": true, "ns": d.as_nanos().to_string(), "string": d.to_string(),
                }),
                Err(e) => serde_json::json!({"text": text, "valid": false, "error": e.to_string()}),
            };
            wrong.extend(answers::difference(case, &found, text));
        }
        if let Some(scalar) = case["yaml_value"].as_str() {
            values += 1;
            let keys = ["decoration_duration", "meta_duration"];
            for (key, found) in keys.iter().zip(loaded(scalar)) {
                if found.as_ref() != case.get(*key) {
                    wrong.push(format!(
                        "{scalar:?}: {key} {:?}, got {found:?}",
                        case.get(*key)
                    ));
                }
            }
        }
    }
    assert!(
        texts >= 170 && values >= 20,
        "{texts} texts, {values} values"
    );
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
