//! Secrets out of what is uploaded (POD-085 to POD-092).
//!
//! Files are never changed in place: censored copies are uploaded instead. What cannot be censored is withheld. Thin:
//! files are done one after another, and archives are withheld rather than repacked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use crate::blob_upload::files_inside;
use crate::sidecar::SidecarCensoringOptions;
use crate::ssh::files_below;
use crate::utility_log::UtilityLog;

/// Bytes of a file held at once, unless the options say otherwise or a secret needs more.
const BUFFER: usize = 1024 * 1024;
/// Largest buffer that options may ask for.
const MAX_BUFFER: usize = 64 * 1024 * 1024;
/// Memory for matching all secrets at once; beyond it nothing is uploaded.
const MATCHER_LIMIT: usize = 256 * 1024 * 1024;
/// A larger secret file is an error, in bytes (Kubernetes allows secrets of 1 MiB).
const MAX_SECRET_FILE: u64 = 4 * 1024 * 1024;

/// What may be uploaded in place of which file.
#[derive(Debug, Default)]
pub(crate) struct Censored {
    copies: BTreeMap<PathBuf, PathBuf>,
    withheld: BTreeMap<PathBuf, String>,
    /// Set when nothing at all may be uploaded.
    all_withheld: Option<String>,
    secrets: Option<Secrets>,
    scratch: Option<Scratch>,
}

impl Censored {
    /// No censoring was asked for.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// Nothing may be uploaded, for this reason.
    pub(crate) fn refused(why: String) -> Self {
        Self {
            all_withheld: Some(why),
            ..Self::default()
        }
    }

    /// The file to upload for this one, or why none may be.
    pub(crate) fn source(&self, file: &Path) -> Result<PathBuf, String> {
        if let Some(why) = self
            .all_withheld
            .as_ref()
            .or_else(|| self.withheld.get(file))
        {
            return Err(why.clone());
        }
        Ok(self
            .copies
            .get(file)
            .cloned()
            .unwrap_or_else(|| file.to_owned()))
    }

    /// The same bytes without secrets, or why they may not be uploaded.
    pub(crate) fn bytes(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        if let Some(why) = &self.all_withheld {
            return Err(why.clone());
        }
        if let Some(secrets) = &self.secrets {
            let end = bytes.len();
            secrets.blot(&mut bytes, end);
        }
        Ok(bytes)
    }
}

/// Makes censored copies of logs and of all files of the items.
pub(crate) fn censor(
    options: &SidecarCensoringOptions,
    logs: &[PathBuf],
    items: &[PathBuf],
    log: &UtilityLog,
) -> Censored {
    let prepared = Secrets::load(options).and_then(|secrets| {
        let scratch = Scratch::new().map_err(|e| format!("no room for censored copies: {e}"))?;
        Ok((secrets, scratch, Globs::new(options)?))
    });
    let (secrets, scratch, globs) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => {
            log.error(
                "Secrets cannot be censored, nothing will be uploaded",
                &[("error", why.as_str().into())],
            );
            return Censored::refused(why);
        }
    };
    if secrets.pattern.is_none() {
        return Censored::nothing();
    }
    log.info("Starting to censor data", &[]);
    let mut done = Censored::default();
    let mut one = |file: &Path| {
        let copy = scratch.0.join(done.copies.len().to_string());
        match secrets.censor_file(file, &copy) {
            Ok(()) => drop(done.copies.insert(file.to_owned(), copy)),
            // A log that is not there is reported by the upload.
            Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(refusal) => drop(done.withheld.insert(file.to_owned(), refusal.to_string())),
        }
    };
    for file in logs {
        one(file);
    }
    for item in items {
        if item.is_file() {
            one(item);
            continue;
        }
        for file in files_inside(item, &UtilityLog::new("sidecar", Vec::new())) {
            if file
                .strip_prefix(item)
                .is_ok_and(|below| globs.censors(&below.to_string_lossy()))
            {
                one(&file);
            }
        }
    }
    let counts = [
        ("censored", done.copies.len().into()),
        ("withheld", done.withheld.len().into()),
    ];
    log.info("Finished censoring data", &counts);
    done.secrets = Some(secrets);
    done.scratch = Some(scratch);
    done
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is a compressed archive, which cannot be censored here")]
    Archive,
}

#[derive(Debug)]
struct Secrets {
    /// `None` without secrets.
    pattern: Option<Regex>,
    longest: usize,
    buffer: usize,
}

impl Secrets {
    fn load(options: &SidecarCensoringOptions) -> Result<Self, String> {
        let mut raw: Vec<Vec<u8>> = Vec::new();
        for dir in options.secret_directories.iter().flatten() {
            let files = files_below(Path::new(dir))
                .map_err(|e| format!("could not load secrets: {dir}: {e}"))?;
            for file in files {
                read_secret(&file, options, &mut raw)
                    .map_err(|e| format!("could not load secrets: {}: {e}", file.display()))?;
            }
        }
        let minimum = options
            .minimum_secret_length
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0);
        let words: Vec<Vec<u8>> = raw
            .iter()
            .flat_map(|secret| variants(secret, minimum))
            .collect();
        let longest = words.iter().map(Vec::len).max().unwrap_or(0);
        let asked = options
            .censoring_buffer_size
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(BUFFER);
        let buffer = asked.clamp(1, MAX_BUFFER).max(2 * longest);
        if words.is_empty() {
            return Ok(Self {
                pattern: None,
                longest,
                buffer,
            });
        }
        // The order is kept: at one place the alternative that comes first wins, so a whole file goes before its parts.
        let alternatives: Vec<String> = words.iter().map(|w| escape(w)).collect();
        let pattern = RegexBuilder::new(&alternatives.join("|"))
            .unicode(false)
            .size_limit(MATCHER_LIMIT)
            .build()
            .map_err(|e| format!("could not match secrets: {e}"))?;
        Ok(Self {
            pattern: Some(pattern),
            longest,
            buffer,
        })
    }

    /// Overwrites secrets that begin before `end`. Returns up to where the text is settled.
    fn blot(&self, text: &mut [u8], end: usize) -> usize {
        let mut settled = 0;
        while let Some(found) = self.pattern.as_ref().and_then(|p| p.find_at(text, settled))
            && found.start() < end
        {
            let range = found.range();
            settled = range.end;
            text[range].fill(b'X');
        }
        settled.max(end)
    }

    fn censor_file(&self, from: &Path, to: &Path) -> Result<(), Refusal> {
        let mut input = File::open(from)?;
        let mut output = File::create(to)?;
        let mut text: Vec<u8> = Vec::with_capacity(self.buffer);
        let mut first = true;
        loop {
            let room = (self.buffer - text.len()) as u64;
            let read = Read::by_ref(&mut input).take(room).read_to_end(&mut text)?;
            let at_end = (read as u64) < room;
            if first && is_archive(&text) {
                return Err(Refusal::Archive);
            }
            first = false;
            // A secret that begins further back may not be here in full yet.
            let end = if at_end {
                text.len()
            } else {
                text.len() + 1 - self.longest
            };
            let settled = self.blot(&mut text, end);
            output.write_all(&text[..settled])?;
            text.drain(..settled);
            if at_end {
                return Ok(output.flush()?);
            }
        }
    }
}

fn is_archive(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b]) || start.starts_with(b"PK\x03\x04")
}

fn escape(word: &[u8]) -> String {
    word.iter().map(|b| format!("\\x{b:02x}")).collect()
}

/// The forms of a secret that are blotted out: trimmed, and base64 of the raw and of the trimmed value.
fn variants(raw: &[u8], minimum: usize) -> Vec<Vec<u8>> {
    let secret = raw.trim_ascii();
    let boolean = secret.eq_ignore_ascii_case(b"true") || secret.eq_ignore_ascii_case(b"false");
    if secret.is_empty() || boolean || secret.len() < minimum {
        return Vec::new();
    }
    let mut words = vec![secret.to_vec(), STANDARD.encode(raw).into_bytes()];
    if secret != raw {
        words.push(STANDARD.encode(secret).into_bytes());
    }
    words
}

/// Adds a file's content and, for kinds of files that are known, the secret values inside.
fn read_secret(
    file: &Path,
    options: &SidecarCensoringOptions,
    secrets: &mut Vec<Vec<u8>>,
) -> Result<(), String> {
    if fs::metadata(file).map_err(|e| e.to_string())?.len() > MAX_SECRET_FILE {
        return Err(format!("larger than {MAX_SECRET_FILE} bytes"));
    }
    let raw = fs::read(file).map_err(|e| e.to_string())?;
    let name = file
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let parts = match name.as_str() {
        ".dockercfg" => docker_auths(&parse_docker(&raw)?),
        ".dockerconfigjson" => docker_auths(&parse_docker(&raw)?["auths"]),
        _ if options.ini_filenames.iter().flatten().any(|n| *n == name) => {
            ini_values(&String::from_utf8_lossy(&raw))
        }
        _ => Vec::new(),
    };
    secrets.push(raw);
    secrets.extend(parts.into_iter().map(String::into_bytes));
    Ok(())
}

fn parse_docker(raw: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(raw).map_err(|e| format!("not a docker secret: {e}"))
}

fn docker_auths(entries: &Value) -> Vec<String> {
    let entries = entries.as_object().into_iter().flat_map(|map| map.values());
    let values = entries.flat_map(|entry| [&entry["auth"], &entry["password"]]);
    values
        .filter_map(Value::as_str)
        .filter(|v| !v.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Values of `key = value` and `key: value` lines, without quotes around them.
fn ini_values(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.starts_with([';', '#', '[']));
    let values = lines.filter_map(|line| Some(line.split_once(['=', ':'])?.1.trim()));
    values
        .map(|v| {
            let unquoted = ['"', '\'', '`']
                .iter()
                .find_map(|q| v.strip_prefix(*q)?.strip_suffix(*q));
            unquoted.unwrap_or(v).to_owned()
        })
        .collect()
}

/// Which files below an item are censored (POD-087).
struct Globs {
    include: Vec<Regex>,
    exclude: Vec<Regex>,
}

impl Globs {
    fn new(options: &SidecarCensoringOptions) -> Result<Self, String> {
        let compile = |globs: &Option<Vec<String>>| -> Result<Vec<Regex>, String> {
            globs.iter().flatten().map(|g| glob(g)).collect()
        };
        Ok(Self {
            include: compile(&options.include_directories)?,
            exclude: compile(&options.exclude_directories)?,
        })
    }

    fn censors(&self, path: &str) -> bool {
        let any = |globs: &[Regex]| globs.iter().any(|g| g.is_match(path.as_bytes()));
        !any(&self.exclude) && (self.include.is_empty() || any(&self.include))
    }
}

/// `*` and `?` stay inside one path element, `**/` crosses them, `{a,b}` and `[ab]` choose.
fn glob(glob: &str) -> Result<Regex, String> {
    let mut pattern = String::from("^");
    let mut rest = glob;
    let mut open_braces = 0_u32;
    while let Some(c) = rest.chars().next() {
        let (piece, used) = match c {
            '*' if rest.starts_with("**/") => ("(?:.*/)?".to_owned(), 3),
            '*' if rest.starts_with("**") => (".*".to_owned(), 2),
            '*' => ("[^/]*".to_owned(), 1),
            '?' => ("[^/]".to_owned(), 1),
            '{' => {
                open_braces += 1;
                ("(?:".to_owned(), 1)
            }
            '}' if open_braces > 0 => {
                open_braces -= 1;
                (")".to_owned(), 1)
            }
            ',' if open_braces > 0 => ("|".to_owned(), 1),
            '[' => match rest.find(']') {
                Some(end) => (rest[..=end].replacen("[!", "[^", 1), end + 1),
                None => return Err(format!("censoring glob {glob:?} has no closing bracket")),
            },
            other => (regex::escape(&other.to_string()), other.len_utf8()),
        };
        pattern.push_str(&piece);
        rest = &rest[used..];
    }
    Regex::new(&(pattern + "$")).map_err(|e| format!("censoring glob {glob:?}: {e}"))
}

/// A directory for the copies, removed with its owner.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("censored-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays lies in the temporary directory and holds no secrets.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path) -> SidecarCensoringOptions {
        SidecarCensoringOptions {
            secret_directories: Some(vec![dir.join("secrets").display().to_string()]),
            ..SidecarCensoringOptions::default()
        }
    }

    fn fixture(secrets: &[(&str, &[u8])], artifacts: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (below, files) in [("secrets", secrets), ("artifacts", artifacts)] {
            for (name, content) in files {
                let path = dir.path().join(below).join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
        }
        dir
    }

    fn run(options: &SidecarCensoringOptions, dir: &Path) -> Censored {
        censor(
            options,
            &[dir.join("log")],
            &[dir.join("artifacts")],
            &UtilityLog::new("test", Vec::new()),
        )
    }

    fn text(done: &Censored, file: &Path) -> String {
        String::from_utf8_lossy(&fs::read(done.source(file).unwrap()).unwrap()).into_owned()
    }

    #[test]
    fn pod_085_090_every_form_of_a_secret() {
        let dir = fixture(
            &[
                ("token", b"hunter2\n"),
                ("flag", b"True"),
                ("blank", b" \n"),
                (
                    ".dockerconfigjson",
                    br#"{"auths": {"h": {"auth": "AUTHVALUE", "password": "PASSVALUE"}}}"#,
                ),
                ("aws.ini", b"[default]\nkey = \"inivalue\"\n; no = thing\n"),
            ],
            &[(
                "a.txt",
                b"hunter2 True aHVudGVyMgo= aHVudGVyMg== AUTHVALUE PASSVALUE inivalue thing hunter",
            )],
        );
        let options = SidecarCensoringOptions {
            ini_filenames: Some(vec!["aws.ini".into()]),
            ..options(dir.path())
        };
        let original = dir.path().join("artifacts/a.txt");
        let done = run(&options, dir.path());
        insta::assert_snapshot!(text(&done, &original), @"XXXXXXX True XXXXXXXXXXXX XXXXXXXXXXXX XXXXXXXXX XXXXXXXXX XXXXXXXX thing hunter");
        assert!(
            fs::read_to_string(original).unwrap().contains("hunter2"),
            "files stay as they are"
        );
        assert_eq!(done.bytes(b"a hunter2".to_vec()).unwrap(), b"a XXXXXXX");
    }

    #[test]
    fn pod_086_matches_across_buffers_are_found() {
        let secret = b"0123456789abcdef";
        for before in 0..80 {
            let mut content = vec![b'.'; before];
            content.extend_from_slice(secret);
            content.extend_from_slice(secret);
            content.extend_from_slice(&vec![b'.'; 100 - before]);
            let dir = fixture(&[("s", secret)], &[("a", &content)]);
            let options = SidecarCensoringOptions {
                censoring_buffer_size: Some(2),
                ..options(dir.path())
            };
            let done = run(&options, dir.path());
            let got = text(&done, &dir.path().join("artifacts/a"));
            assert_eq!(got.len(), content.len());
            assert_eq!(got.matches('X').count(), 32, "{before}: {got}");
        }
    }

    #[test]
    fn pod_085_a_secret_need_not_be_text() {
        let dir = fixture(
            &[("s", b"\xff\xfe.*\x00")],
            &[("a", b"a\xff\xfe.*\x00b\xff\xfeab\x00")],
        );
        let done = run(&options(dir.path()), dir.path());
        let copy = fs::read(done.source(&dir.path().join("artifacts/a")).unwrap()).unwrap();
        assert_eq!(copy, b"aXXXXXb\xff\xfeab\x00");
    }

    #[test]
    fn pod_086_short_secrets_stay_when_told_so() {
        let dir = fixture(&[("s", b"abc")], &[("a", b"abc")]);
        let options = SidecarCensoringOptions {
            minimum_secret_length: Some(4),
            ..options(dir.path())
        };
        let done = run(&options, dir.path());
        assert_eq!(text(&done, &dir.path().join("artifacts/a")), "abc");
    }

    #[test]
    fn pod_087_excluded_beats_included() {
        let dir = fixture(
            &[("s", b"abc")],
            &[
                ("in/x", b"abc"),
                ("in/deep/y", b"abc"),
                ("in/out/z", b"abc"),
                ("else", b"abc"),
            ],
        );
        let options = SidecarCensoringOptions {
            include_directories: Some(vec!["in/**/*".into()]),
            exclude_directories: Some(vec!["**/out/*".into()]),
            ..options(dir.path())
        };
        let done = run(&options, dir.path());
        let at = |name: &str| text(&done, &dir.path().join("artifacts").join(name));
        assert_eq!(
            ["in/x", "in/deep/y", "in/out/z", "else"].map(at),
            ["XXX", "XXX", "abc", "abc"]
        );
    }

    #[test]
    fn pod_088_what_cannot_be_censored_is_withheld() {
        let dir = fixture(
            &[("s", b"abc")],
            &[("a.tar.gz", &[0x1f, 0x8b, 8]), ("a", b"abc")],
        );
        let done = run(&options(dir.path()), dir.path());
        insta::assert_snapshot!(done.source(&dir.path().join("artifacts/a.tar.gz")).unwrap_err(), @"it is a compressed archive, which cannot be censored here");
        assert_eq!(text(&done, &dir.path().join("artifacts/a")), "XXX");

        let broken = fixture(&[(".dockercfg", b"{")], &[("a", b"abc")]);
        let done = run(&options(broken.path()), broken.path());
        assert!(done.source(&broken.path().join("artifacts/a")).is_err());
        assert!(done.bytes(Vec::new()).is_err());
    }

    #[test]
    fn without_secrets_everything_is_uploaded_as_it_is() {
        let dir = fixture(&[], &[("a.gz", &[0x1f, 0x8b])]);
        let done = run(&SidecarCensoringOptions::default(), dir.path());
        let file = dir.path().join("artifacts/a.gz");
        assert_eq!(done.source(&file).unwrap(), file);
    }

    #[test]
    fn globs() {
        for (pattern, path, want) in [
            ("*.log", "a.log", true),
            ("*.log", "d/a.log", false),
            ("**/*.log", "a.log", true),
            ("**/*.log", "d/e/a.log", true),
            ("d/**", "d/e/f", true),
            ("{a,b}?.[!x]", "bz.y", true),
            ("{a,b}?.[!x]", "bz.x", false),
        ] {
            assert_eq!(
                glob(pattern).unwrap().is_match(path.as_bytes()),
                want,
                "{pattern} {path}"
            );
        }
        assert!(glob("[a").is_err());
    }
}
