//! What a node adds to a debug bundle: its settings and its recent log, both without secrets.

use std::{fs, path::Path, sync::LazyLock};

use regex::Regex;
use toml::Value;
use trireme_api::DebugSource;
use trireme_proto::api::DebugFile;

use crate::{recent_log::RecentLog, settings::Settings};

/// Stands where a secret stood.
const REDACTED: &str = "[redacted]";
/// Shorter words of a secret file are no secrets, and would make holes in everything.
const SHORTEST_SECRET: usize = 8;
/// A secret file is not longer; what is beyond is no secret of ours.
const SECRET_FILE_BYTES: usize = 64 << 10;

pub(crate) struct NodeDebug {
    settings: Settings,
    log: RecentLog,
}

impl NodeDebug {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            log: RecentLog::of_process(),
        }
    }
}

impl DebugSource for NodeDebug {
    fn files(&self) -> Vec<DebugFile> {
        let settings = Value::try_from(&self.settings);
        let redactor = Redactor::new(settings.as_ref().ok());
        let settings = match settings {
            Ok(mut value) => {
                redact_keys(&mut value);
                toml::to_string_pretty(&value).unwrap_or_else(|why| format!("# {why}\n"))
            }
            Err(why) => format!("# the settings cannot be shown: {why}\n"),
        };
        let host = format!(
            "trireme {}\nos {} {}\ncpus {}\npid {}\n",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
            std::thread::available_parallelism().map_or(0, usize::from),
            std::process::id(),
        );
        [
            ("settings.toml", redactor.clean(&settings)),
            ("host.txt", host),
            ("log.txt", redactor.clean(&self.log.text())),
        ]
        .map(|(name, content)| DebugFile {
            name: name.to_owned(),
            content: content.into(),
        })
        .into()
    }
}

/// Hides what settings say in clear. Names of files are no secrets.
fn redact_keys(value: &mut Value) {
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                let key = key.to_lowercase();
                let names_a_file = ["_file", "_dir", "_path"]
                    .iter()
                    .any(|end| key.ends_with(end));
                let secret = ["secret", "token", "password", "key", "credential"]
                    .iter()
                    .any(|word| key.contains(word));
                if secret && !names_a_file && !matches!(value, Value::Table(_) | Value::Boolean(_))
                {
                    *value = Value::String(REDACTED.to_owned());
                } else {
                    redact_keys(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact_keys),
        _ => {}
    }
}

/// Takes out of a text what the node's secret files hold, and what looks like a credential.
struct Redactor {
    /// Longest first.
    secrets: Vec<String>,
}

/// User and password in a URL; authorization headers; tokens of forges, by their prefixes.
static CREDENTIALS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"://[^/\s@]+@",
        r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}",
        r"\b(gh[pousr]_|github_pat_|glpat-|xox[abpr]-)[A-Za-z0-9_-]+",
    ]
    .iter()
    .filter_map(|pattern| Regex::new(pattern).ok())
    .collect()
});

impl Redactor {
    fn new(settings: Option<&Value>) -> Self {
        let mut secrets = Vec::new();
        if let Some(settings) = settings {
            gather(settings, &mut secrets);
        }
        secrets.sort_by_key(|secret: &String| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    fn clean(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in &self.secrets {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), REDACTED);
            }
        }
        for pattern in CREDENTIALS.iter() {
            clean = pattern
                .replace_all(&clean, |found: &regex::Captures<'_>| {
                    match found[0].starts_with("://") {
                        true => format!("://{REDACTED}@"),
                        false => REDACTED.to_owned(),
                    }
                })
                .into_owned();
        }
        clean
    }
}

/// The words of all files that settings name with a key that ends in `_file`.
fn gather(value: &Value, secrets: &mut Vec<String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                match value {
                    Value::String(path) if key.ends_with("_file") => {
                        secrets.extend(words(Path::new(path)));
                    }
                    value => gather(value, secrets),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| gather(value, secrets)),
        _ => {}
    }
}

fn words(path: &Path) -> Vec<String> {
    // One that cannot be read now has nothing to hide here; that it cannot is in the log.
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SECRET_FILE_BYTES)]);
    text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','))
        .filter(|word| word.len() >= SHORTEST_SECRET)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_leave_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let hmac = directory.path().join("hmac");
        fs::write(&hmac, "'*':\n- value: very-secret-word\n").unwrap();
        let settings: Value = toml::from_str(&format!(
            "[webhook]\nhmac_secret_file = {hmac:?}\n[other]\napi_token = \"abc\"\nurl = \"https://u:p@h/x\"\n"
        ))
        .unwrap();
        let redactor = Redactor::new(Some(&settings));
        let mut shown = settings;
        redact_keys(&mut shown);
        let shown = redactor.clean(&toml::to_string(&shown).unwrap());
        assert!(shown.contains("api_token = \"[redacted]\""), "{shown}");
        assert!(shown.contains("https://[redacted]@h/x"), "{shown}");
        assert!(shown.contains(hmac.to_str().unwrap()), "{shown}");
        insta::assert_snapshot!(
            redactor.clean("got very-secret-word; Authorization: Bearer abcdefgh12; ghp_AbC123 done"),
            @"got [redacted]; Authorization: [redacted]; [redacted] done"
        );
    }

    #[test]
    fn the_credential_patterns_are_good() {
        assert_eq!(CREDENTIALS.len(), 3);
    }
}
