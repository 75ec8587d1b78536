#![no_main]

use std::sync::Arc;

use trireme_config::in_repo::{OwnFiles, ProwYaml};
use trireme_config::{Config, FileSet, Layout, LoadOptions};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut parts: Vec<Vec<u8>> = vec![Vec::new()];
    for line in data.split_inclusive(|b| *b == b'\n') {
        match parts.last_mut() {
            Some(part) if !line.starts_with(b"=====") => part.extend_from_slice(line),
            _ => parts.push(Vec::new()),
        }
    }
    parts.resize(3, Vec::new());
    let mut files = FileSet::new(Layout {
        config: "config.yaml".to_owned(),
        jobs: Some("jobs".to_owned()),
        plugins: Some("plugins.yaml".to_owned()),
        ..Layout::default()
    });
    for (path, bytes) in ["config.yaml", "jobs/a.yaml", "plugins.yaml"]
        .iter()
        .zip(&parts)
    {
        files.insert(*path, bytes.as_slice());
    }
    let loaded = Config::load(&files, LoadOptions::default());
    for found in loaded.errors.iter().chain(&loaded.warnings) {
        assert!(!found.message.is_empty());
    }
    if loaded.errors.is_empty() {
        // What is accepted can be written, and read again with the same outcome.
        let text = serde_json::to_vec(&loaded.config.prow).expect("a configuration is JSON");
        let mut again = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            ..Layout::default()
        });
        again.insert("config.yaml", text);
        let _ = Config::load(&again, LoadOptions::default());
    }
    let own = [(".prow.yaml".to_owned(), Arc::from(parts[1].as_slice()))].into();
    let mut found = Vec::new();
    let own = ProwYaml::read(&OwnFiles::checked_out(&own), &mut found);
    let _ = loaded.config.in_repo_jobs(own, "org/repo");
});
