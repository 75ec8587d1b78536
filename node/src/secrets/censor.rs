//! Secrets out of everything that this process logs (CFG-097, CFG-098, CFG-100).
//!
//! Each byte of a secret becomes an `X`, so that nothing changes its length. All places of all secrets are blotted out, also
//! where they overlap: one that is part of another leaves no remnants.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::SystemTime,
};

use aho_corasick::AhoCorasick;
use arc_swap::ArcSwapOption;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tracing_subscriber::fmt::MakeWriter;

/// Former values of one source that stay censored after they were replaced: a line about them may still come.
const MAX_FORMER: usize = 4;
/// Short-lived tokens at once; the one that ends first is let go of. An app has one for each of its installations.
const MAX_SHORT_LIVED: usize = 10_000;

static OF_PROCESS: OnceLock<Censor> = OnceLock::new();

/// Knows all secrets of a process. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Censor(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: Mutex<Known>,
    /// None while there is nothing to hide.
    matcher: ArcSwapOption<AhoCorasick>,
}

#[derive(Default)]
struct Known {
    /// Shorter secrets are shown.
    minimum: usize,
    /// The values of each source, the present ones first.
    sources: BTreeMap<String, VecDeque<Vec<Vec<u8>>>>,
    short_lived: BTreeMap<String, SystemTime>,
}

impl Censor {
    /// The one that this process's log goes through.
    pub(crate) fn of_process() -> Self {
        OF_PROCESS.get_or_init(Self::default).clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows secrets that are shorter than this, in bytes.
    pub(crate) fn show_shorter_than(&self, minimum: usize) {
        let mut known = self.known();
        known.minimum = minimum;
        self.rebuild(&known);
    }

    /// The present values of a source, untrimmed, in the place of its former ones.
    pub(crate) fn hide(&self, source: &str, values: Vec<Vec<u8>>) {
        let mut known = self.known();
        let held = known.sources.entry(source.to_owned()).or_default();
        if held.front() == Some(&values) {
            return;
        }
        held.push_front(values);
        held.truncate(1 + MAX_FORMER);
        self.rebuild(&known);
    }

    /// A token that is worth nothing afterwards. One that is empty or has no end is none.
    pub(crate) fn hide_until(&self, token: &str, expires: SystemTime) {
        if token.is_empty() || expires <= SystemTime::UNIX_EPOCH {
            return;
        }
        let mut known = self.known();
        known.short_lived.insert(token.to_owned(), expires);
        if known.short_lived.len() > MAX_SHORT_LIVED {
            let first = known.short_lived.iter().min_by_key(|(_, until)| **until);
            if let Some(token) = first.map(|(token, _)| token.clone()) {
                known.short_lived.remove(&token);
            }
        }
        self.rebuild(&known);
    }

    /// Lets go of tokens that have ended.
    pub(crate) fn refresh(&self, now: SystemTime) {
        let mut known = self.known();
        let before = known.short_lived.len();
        known.short_lived.retain(|_, until| *until > now);
        if known.short_lived.len() != before {
            self.rebuild(&known);
        }
    }

    fn rebuild(&self, known: &Known) {
        let lasting = known.sources.values().flatten().flatten();
        let short_lived = known.short_lived.keys().map(String::as_bytes);
        let words: BTreeSet<Vec<u8>> = lasting
            .map(Vec::as_slice)
            .chain(short_lived)
            .flat_map(|value| forms(value, known.minimum))
            .collect();
        if words.is_empty() {
            self.0.matcher.store(None);
            return;
        }
        match AhoCorasick::new(words) {
            Ok(matcher) => self.0.matcher.store(Some(Arc::new(matcher))),
            // What was hidden stays hidden.
            Err(why) => tracing::error!(%why, "new secrets cannot be kept out of the log"),
        }
    }

    /// The same text with an `X` for each byte of a secret.
    pub(crate) fn clean<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let matcher = self.0.matcher.load();
        let Some(matcher) = matcher.as_ref().filter(|matcher| matcher.is_match(text)) else {
            return Cow::Borrowed(text);
        };
        let mut clean = text.to_vec();
        for found in matcher.find_overlapping_iter(text) {
            clean[found.range()].fill(b'X');
        }
        Cow::Owned(clean)
    }

    /// [`Self::clean`] of words for people.
    pub(crate) fn clean_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.clean(text.as_bytes())).into_owned()
    }
}

/// How a secret may look in a log: trimmed, as base64 of what it is and of what its file holds, and as Rust writes it between
/// quotes.
fn forms(raw: &[u8], minimum: usize) -> Vec<Vec<u8>> {
    let secret = raw.trim_ascii();
    let is_word = secret.eq_ignore_ascii_case(b"true") || secret.eq_ignore_ascii_case(b"false");
    if secret.is_empty() || is_word || secret.len() < minimum {
        return Vec::new();
    }
    let mut forms = vec![
        secret.to_vec(),
        STANDARD.encode(secret).into_bytes(),
        STANDARD.encode(raw).into_bytes(),
    ];
    if let Ok(text) = std::str::from_utf8(secret) {
        forms.push(text.escape_debug().to_string().into_bytes());
    }
    forms
}

/// Writes what the censor leaves.
#[derive(Clone)]
pub(crate) struct Censored<M> {
    censor: Censor,
    inner: M,
}

impl<M> Censored<M> {
    pub(crate) fn new(censor: Censor, inner: M) -> Self {
        Self { censor, inner }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Censored<M> {
    type Writer = Censored<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Censored::new(self.censor.clone(), self.inner.make_writer())
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        Censored::new(self.censor.clone(), self.inner.make_writer_for(meta))
    }
}

/// An event comes in one piece, so no secret is cut in two.
impl<W: io::Write> io::Write for Censored<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_all(&self.censor.clean(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hiding(values: &[&str]) -> Censor {
        let censor = Censor::default();
        for (number, value) in values.iter().enumerate() {
            censor.hide(&number.to_string(), vec![value.as_bytes().to_vec()]);
        }
        censor
    }

    /// CFG-097
    #[test]
    fn cfg_097_every_form_of_a_secret_becomes_as_many_x() {
        let censor = hiding(&["hunter2\n", "True", " ", "", "line one\nline two"]);
        for (text, clean) in [
            ("a hunter2 b", "a XXXXXXX b"),
            // base64 of the file's content, and of the secret.
            ("aHVudGVyMgo= aHVudGVyMg==", "XXXXXXXXXXXX XXXXXXXXXXXX"),
            ("True true TRUE", "True true TRUE"),
            ("line one\nline two", "XXXXXXXXXXXXXXXXX"),
            (r#""line one\nline two""#, r#""XXXXXXXXXXXXXXXXXX""#),
            ("hunter", "hunter"),
        ] {
            assert_eq!(censor.clean_text(text), clean);
            assert_eq!(text.len(), clean.len());
        }
        let untouched = "nothing to hide";
        assert!(matches!(
            censor.clean(untouched.as_bytes()),
            Cow::Borrowed(_)
        ));
        assert!(matches!(
            Censor::default().clean(b"hunter2"),
            Cow::Borrowed(_)
        ));
    }

    /// CFG-100: neither a shorter secret inside of a longer one nor one that begins in another leaves anything.
    #[test]
    fn cfg_100_secrets_in_secrets_leave_no_remnants() {
        let censor = hiding(&["pass", "password-of-mine", "mine-too"]);
        assert_eq!(censor.clean_text("password-of-mine"), "X".repeat(16));
        assert_eq!(censor.clean_text("password"), "XXXXword");
        assert_eq!(
            censor.clean_text("password-of-mine-too."),
            format!("{}.", "X".repeat(20))
        );
    }

    /// CFG-098
    #[test]
    fn cfg_098_short_secrets_are_shown_when_asked_to() {
        let censor = hiding(&["abc", "abcd"]);
        assert_eq!(
            censor.clean_text("abc abcd YWJj YWJjZA=="),
            "XXX XXXX XXXX XXXXXXXX"
        );
        censor.show_shorter_than(4);
        assert_eq!(censor.clean_text("abc abcd YWJj"), "abc XXXX YWJj");
    }

    /// CFG-098
    #[test]
    fn cfg_098_short_lived_tokens_are_hidden_until_they_end() {
        let censor = Censor::default();
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        censor.hide_until("token-a", now + hour);
        censor.hide_until("", now + hour);
        censor.hide_until("token-b", SystemTime::UNIX_EPOCH);
        assert_eq!(censor.clean_text("token-a token-b"), "XXXXXXX token-b");
        // It has ended, and is still hidden until somebody looks.
        censor.refresh(now + hour / 2);
        assert_eq!(censor.clean_text("token-a"), "XXXXXXX");
        censor.refresh(now + hour);
        assert_eq!(censor.clean_text("token-a"), "token-a");
    }

    /// CFG-099: the former value stays hidden for a while, the present one is hidden at once.
    #[test]
    fn cfg_099_a_rotated_secret_and_its_former_values_are_hidden() {
        let censor = Censor::default();
        let rotate = |number: usize| {
            censor.hide("f", vec![format!("value-{number}").into_bytes()]);
        };
        (0..=MAX_FORMER + 1).for_each(rotate);
        assert_eq!(censor.clean_text("value-0"), "value-0");
        assert_eq!(censor.clean_text("value-1 value-5"), "XXXXXXX XXXXXXX");
    }

    /// CFG-097: as the log writes it.
    #[test]
    fn cfg_097_log_lines_are_censored_whole() {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let written = lines.clone();
        let censor = hiding(&["hunter2"]);
        let writer = Censored::new(censor, move || lines.clone());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(writer)
            .without_time()
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(url = "https://u:hunter2@h", "login with {:?}", "hunter2");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(
            text.ends_with("login with \"XXXXXXX\" url=\"https://u:XXXXXXX@h\"\n"),
            "{text}"
        );
    }
}
