//! What the demo says while it goes on: one line, or one JSON object, per event.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde_json::{Map, Value, json};

use crate::output::Format;

/// Who an event is about; decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Cluster,
    Person,
    Webhook,
    Plan,
    Job,
    Report,
    Tide,
    Fault,
    Summary,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Person => "person",
            Self::Webhook => "webhook",
            Self::Plan => "plan",
            Self::Job => "job",
            Self::Report => "report",
            Self::Tide => "tide",
            Self::Fault => "fault",
            Self::Summary => "summary",
        }
    }

    const fn colour(self) -> &'static str {
        match self {
            Self::Cluster => "36",
            Self::Person => "1",
            Self::Webhook | Self::Plan => "2",
            Self::Job => "34",
            Self::Report => "35",
            Self::Tide => "32",
            Self::Fault => "31",
            Self::Summary => "1;37",
        }
    }
}

/// Cheap to clone; lines never mix.
#[derive(Clone)]
pub(super) struct Timeline {
    started: Instant,
    format: Format,
    colours: bool,
    out: Arc<Mutex<io::Stdout>>,
}

impl Timeline {
    pub(super) fn new(format: Format) -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            started: Instant::now(),
            format,
            colours,
            out: Arc::new(Mutex::new(io::stdout())),
        }
    }

    pub(super) fn say(&self, kind: Kind, text: impl AsRef<str>) {
        self.tell(kind, text, Map::new());
    }

    /// With fields that only JSON shows.
    pub(super) fn tell(&self, kind: Kind, text: impl AsRef<str>, fields: Map<String, Value>) {
        let line = line(
            self.format,
            self.colours,
            self.started.elapsed().as_millis(),
            kind,
            text.as_ref(),
            fields,
        );
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever closed the pipe wants no more lines; the story still has to end well.
        let _closed = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

fn line(
    format: Format,
    colours: bool,
    millis: u128,
    kind: Kind,
    text: &str,
    fields: Map<String, Value>,
) -> String {
    match format {
        Format::Json => {
            let mut object = Map::new();
            object.insert(
                "ms".to_owned(),
                json!(u64::try_from(millis).unwrap_or(u64::MAX)),
            );
            object.insert("kind".to_owned(), json!(kind.word()));
            object.insert("text".to_owned(), json!(text));
            object.extend(fields);
            Value::Object(object).to_string() + "\n"
        }
        Format::Text => {
            let seconds = format!("{:>3}.{:03}s", millis / 1000, millis % 1000);
            let word = format!("{:<8}", kind.word());
            if colours {
                format!(
                    "\x1b[2m{seconds}\x1b[0m  \x1b[{}m{word}\x1b[0m  {text}\n",
                    kind.colour()
                )
            } else {
                format!("{seconds}  {word}  {text}\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_plain_coloured_or_json() {
        let show =
            |format, colours| line(format, colours, 1_234, Kind::Job, "unit runs", Map::new());
        assert_eq!(show(Format::Text, false), "  1.234s  job       unit runs\n");
        assert!(show(Format::Text, true).contains("\x1b[34mjob     \x1b[0m"));
        assert_eq!(
            show(Format::Json, true),
            "{\"ms\":1234,\"kind\":\"job\",\"text\":\"unit runs\"}\n"
        );
    }
}
