//! The metadata that wrapped processes leave for `finished.json` (POD-084).

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde_json::Value;
use trireme_prowjob::run_files::Metadata;

use crate::go_process;
use crate::utility_log::UtilityLog;
use crate::wrapper::WrapperOptions;

const ERRORS_KEY: &str = "sidecar-errors";
/// A larger metadata file is an error, in bytes.
const MAX_FILE: u64 = 10 * 1024 * 1024;

/// All files' keys, later ones over earlier ones. A missing file is fine; other problems are listed by entry.
pub(crate) fn combine(entries: &[WrapperOptions], log: &UtilityLog) -> Metadata {
    let mut metadata = Metadata::new();
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for (i, entry) in entries.iter().enumerate() {
        match read(&entry.metadata_file) {
            Ok(piece) => metadata.extend(piece),
            Err(why) => {
                log.error(
                    &format!("Failed to read {}", entry.metadata_file),
                    &[("error", why.as_str().into())],
                );
                errors.insert(format!("entry {i}: {}", entry.args.join(" ")), why);
            }
        }
    }
    if !errors.is_empty() {
        metadata.insert(
            ERRORS_KEY.to_owned(),
            errors
                .into_iter()
                .map(|(k, v)| (k, Value::from(v)))
                .collect(),
        );
    }
    metadata
}

fn read(path: &str) -> Result<Metadata, String> {
    match fs::metadata(path) {
        Ok(file) if file.len() > MAX_FILE => {
            return Err(format!("{path} is larger than {MAX_FILE} bytes"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Metadata::new()),
        _ => {}
    }
    let text = fs::read(path).map_err(|e| format!("open {path}: {}", go_process::os_error(&e)))?;
    let piece: Option<Metadata> =
        serde_json::from_slice(&text).map_err(|e| format!("unmarshal {path}: {e}"))?;
    Ok(piece.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_084_later_files_win_and_problems_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |name: &str, content: Option<&str>| {
            let path = dir.path().join(name);
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            WrapperOptions {
                args: vec!["run".into(), name.into()],
                metadata_file: path.display().to_string(),
                ..WrapperOptions::default()
            }
        };
        let entries = [
            entry("a", Some(r#"{"x": 1, "y": {"deep": 1}}"#)),
            entry("b", Some(r#"{"y": "b"}"#)),
            entry("c", None),
            entry("d", Some("[1]")),
            entry("e", Some("null")),
        ];
        let metadata = combine(&entries, &UtilityLog::new("test", Vec::new()));
        let text = serde_json::to_string(&metadata)
            .unwrap()
            .replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(text, @r#"{"sidecar-errors":{"entry 3: run d":"unmarshal DIR/d: invalid type: sequence, expected a map at line 1 column 0"},"x":1,"y":"b"}"#);
    }
}
