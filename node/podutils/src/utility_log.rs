//! The utilities' own log lines: one JSON object each, with the keys of Prow's, because they land in `build-log.txt`
//! and `sidecar-logs.json`, where people and log lenses look for them.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Map, Value};
use trireme_prowjob::{Time, go_json};

/// Writes log lines to all of its sinks; clones share them.
#[derive(Clone)]
pub(crate) struct UtilityLog {
    component: &'static str,
    debug: bool,
    sinks: Arc<Mutex<Vec<Box<dyn Write + Send>>>>,
}

impl UtilityLog {
    pub(crate) fn new(component: &'static str, sinks: Vec<Box<dyn Write + Send>>) -> Self {
        Self {
            component,
            debug: false,
            sinks: Arc::new(Mutex::new(sinks)),
        }
    }

    /// To standard error, as Prow's tools do by default.
    pub(crate) fn to_stderr(component: &'static str) -> Self {
        Self::new(component, vec![Box::new(io::stderr())])
    }

    pub(crate) fn with_debug(mut self) -> Self {
        self.debug = true;
        self
    }

    /// Replaces the sinks, for all clones.
    pub(crate) fn redirect(&self, sinks: Vec<Box<dyn Write + Send>>) {
        *self.lock() = sinks;
    }

    pub(crate) fn debug(&self, message: &str, fields: &[(&str, Value)]) {
        if self.debug {
            self.line("debug", message, fields);
        }
    }

    pub(crate) fn info(&self, message: &str, fields: &[(&str, Value)]) {
        self.line("info", message, fields);
    }

    pub(crate) fn warn(&self, message: &str, fields: &[(&str, Value)]) {
        self.line("warning", message, fields);
    }

    pub(crate) fn error(&self, message: &str, fields: &[(&str, Value)]) {
        self.line("error", message, fields);
    }

    /// What Prow's tools say last before they exit with 1.
    pub(crate) fn fatal(&self, message: &str, fields: &[(&str, Value)]) {
        self.line("fatal", message, fields);
    }

    fn line(&self, level: &str, message: &str, fields: &[(&str, Value)]) {
        let mut line = format_line(self.component, level, message, fields, Timestamp::now());
        line.push('\n');
        for sink in self.lock().iter_mut() {
            // A log line that cannot be written has nowhere else to go, and must not stop the job.
            let _ = sink.write_all(line.as_bytes()).and_then(|()| sink.flush());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<dyn Write + Send>>> {
        // A panic while writing leaves the sinks usable.
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn format_line(
    component: &str,
    level: &str,
    message: &str,
    fields: &[(&str, Value)],
    now: Timestamp,
) -> String {
    let mut line: Map<String, Value> = Map::new();
    line.insert("component".to_owned(), component.into());
    line.insert("severity".to_owned(), level.into());
    for (key, value) in fields {
        line.insert((*key).to_owned(), value.clone());
    }
    line.insert("level".to_owned(), level.into());
    line.insert("msg".to_owned(), message.into());
    line.insert("time".to_owned(), Time::from(now).to_string().into());
    let sorted = go_json::sorted(&Value::Object(line));
    go_json::to_string(&sorted).unwrap_or_else(|e| format!("{{\"msg\":\"log line lost: {e}\"}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_067_lines_look_like_prows() {
        let at = Timestamp::from_second(1_770_091_506).unwrap();
        let line = format_line(
            "entrypoint",
            "error",
            "Process did not finish before 2h0m0s timeout",
            &[("error", "x".into())],
            at,
        );
        insta::assert_snapshot!(line, @r#"{"component":"entrypoint","error":"x","level":"error","msg":"Process did not finish before 2h0m0s timeout","severity":"error","time":"2026-02-03T04:05:06Z"}"#);
    }
}
