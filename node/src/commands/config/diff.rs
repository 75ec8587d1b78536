//! What differs between two versions, or between a version and files: first what it means, then the text.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use similar::TextDiff;
use trireme_api::{
    client::Client,
    configs::{LocalFile, compare},
};
use trireme_config::{Config, changes};
use trireme_proto::state::{BlobRef, ConfigFile};

use super::{super::connect, source::SourceArgs};
use crate::{
    cli::Target,
    configuration::{file_set, load},
    exit::{USAGE, coded},
    output::{Format, print, print_json},
    serve::registry,
};

/// Lines of text differences that are shown without `--full`.
const LINES: usize = 2000;
/// Names of a list that are shown without `--full`.
const NAMES: usize = 50;
/// Contents that are fetched at once.
const AT_ONCE: usize = 16;
/// A configuration of more bytes is compared by its changed files alone: the rest need not be fetched and parsed.
const WHOLE_BYTES: u64 = 32 << 20;
/// After this a text's differences are told coarsely.
const DIFF_TIME: Duration = Duration::from_secs(1);

/// `config diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The version before: the one before TO, or the one in force where files are compared with it.
    pub from: Option<u64>,
    /// The version after; the one in force if absent.
    pub to: Option<u64>,
    /// Compare with the files of this directory, found in the customary places.
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Show everything, however long.
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub target: Target,
}

type Sha = Vec<u8>;

/// One of two configurations.
struct Side {
    label: String,
    files: Vec<ConfigFile>,
    /// Where contents are on this machine.
    local: BTreeMap<Sha, Bytes>,
}

/// What came out.
struct Difference {
    from: String,
    to: String,
    /// Only changed files were looked at for jobs.
    partial: bool,
    /// Why it is not known what it means for jobs.
    unknown: Option<String>,
    jobs: changes::JobChanges,
    contexts: Vec<String>,
    config: Vec<String>,
    plugins: Vec<String>,
    files: Vec<FileChange>,
}

struct FileChange {
    role: String,
    path: String,
    what: &'static str,
    text: String,
}

/// # Errors
/// When no node answers, or a side cannot be read.
pub(super) async fn run(args: &DiffArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let (from, to) = sides(args, &client).await?;
    let difference = differ(&client, from, to).await?;
    match args.target.output {
        Format::Json => print_json(&difference.as_json(args.full)),
        Format::Text => Ok(print(&difference.as_text(args.full))?),
    }
}

async fn sides(args: &DiffArgs, client: &Client) -> anyhow::Result<(Side, Side)> {
    if args.source.names_something(args.dir.as_ref()) {
        if args.to.is_some() {
            return Err(coded(
                USAGE,
                "files are compared with one version: leave TO away",
            ));
        }
        let taken = args.source.read(args.dir.as_ref()).await?;
        let from = kept(client, args.from.unwrap_or(0)).await?;
        let label = match taken.source.as_str() {
            "" => "files".to_owned(),
            commit => format!("commit {commit}"),
        };
        return Ok((from, local(label, &taken.files)));
    }
    let to = kept(client, args.to.unwrap_or(0)).await?;
    let from = match args.from {
        Some(from) => from,
        None => {
            let (version, _) = client.config_version(args.to.unwrap_or(0)).await?;
            anyhow::ensure!(
                version.number > 1,
                coded(USAGE, "there is no version before the first")
            );
            version.number - 1
        }
    };
    Ok((kept(client, from).await?, to))
}

async fn kept(client: &Client, version: u64) -> anyhow::Result<Side> {
    let (version, files) = client.config_version(version).await?;
    Ok(Side {
        label: format!("version {}", version.number),
        files,
        local: BTreeMap::new(),
    })
}

fn local(label: String, files: &[LocalFile]) -> Side {
    let named: Vec<ConfigFile> = files.iter().map(LocalFile::named).collect();
    let contents = named.iter().zip(files).filter_map(|(name, file)| {
        let sha = name.blob.as_ref()?.sha256.to_vec();
        Some((sha, file.content.clone()))
    });
    Side {
        label,
        local: contents.collect(),
        files: named,
    }
}

async fn differ(client: &Client, from: Side, to: Side) -> anyhow::Result<Difference> {
    let changed = compare(&from.files, &to.files);
    let size = |side: &Side| {
        let blobs = side.files.iter().filter_map(|file| file.blob.as_ref());
        blobs.map(|blob| blob.size).sum::<u64>()
    };
    let partial = size(&from).max(size(&to)) > WHOLE_BYTES;
    let is_wanted = |file: &ConfigFile| {
        let is_changed = || changed.contains_key(&(file.role.clone(), file.path.clone()));
        !partial || file.role != "job" || is_changed()
    };
    let mut contents: BTreeMap<Sha, Bytes> = to.local.clone();
    let mut lacking: BTreeMap<Sha, BlobRef> = BTreeMap::new();
    // Without a difference nothing is worth reading.
    if !changed.is_empty() {
        for file in from.files.iter().chain(&to.files) {
            let Some(blob) = file.blob.as_ref().filter(|_| is_wanted(file)) else {
                continue;
            };
            let sha = blob.sha256.to_vec();
            if !contents.contains_key(&sha) {
                lacking.insert(sha, blob.clone());
            }
        }
    }
    let fetched: Vec<(Sha, Bytes)> = stream::iter(lacking)
        .map(|(sha, blob)| async move {
            let content = client.config_content(&blob).await?;
            Ok::<_, tonic::Status>((sha, content))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    contents.extend(fetched);

    let mut difference = Difference {
        from: from.label.clone(),
        to: to.label.clone(),
        partial,
        unknown: None,
        jobs: changes::JobChanges::default(),
        contexts: Vec::new(),
        config: Vec::new(),
        plugins: Vec::new(),
        files: Vec::new(),
    };
    if changed.is_empty() {
        return Ok(difference);
    }
    let parsed = |side: &Side| {
        let wanted = side.files.iter().filter(|file| is_wanted(file));
        parse(wanted, &contents).with_context(|| side.label.clone())
    };
    match (parsed(&from), parsed(&to)) {
        (Ok(before), Ok(after)) => {
            difference.jobs = changes::jobs(&before, &after);
            let gone = changes::retired(&before, &after).contexts;
            difference.contexts = gone
                .iter()
                .map(|(repo, context)| format!("{repo}: {context}"))
                .collect();
        }
        (Err(why), _) | (_, Err(why)) => difference.unknown = Some(format!("{why:#}")),
    }
    let text = |blob: &Option<BlobRef>| {
        let content = blob
            .as_ref()
            .and_then(|blob| contents.get(&blob.sha256[..]));
        content.cloned().unwrap_or_default()
    };
    let main = |side: &Side, role: &str| {
        let file = side.files.iter().find(|file| file.role == role);
        text(&file.and_then(|file| file.blob.clone()))
    };
    difference.config = changes::sections(&main(&from, "main"), &main(&to, "main"));
    difference.plugins = changes::sections(&main(&from, "plugins"), &main(&to, "plugins"));
    for ((role, path), (before, after)) in changed {
        let what = match (&before, &after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let text = unified(&path, &text(&before), &text(&after));
        difference.files.push(FileChange {
            role,
            path,
            what,
            text,
        });
    }
    Ok(difference)
}

fn parse<'a>(
    files: impl Iterator<Item = &'a ConfigFile>,
    contents: &BTreeMap<Sha, Bytes>,
) -> anyhow::Result<Arc<Config>> {
    let mut read = Vec::new();
    for file in files {
        let blob = file.blob.as_ref();
        let content = blob.and_then(|blob| contents.get(&blob.sha256[..]));
        let content = content.with_context(|| format!("{}: no content", file.path))?;
        read.push((file.role.as_str(), file.path.as_str(), &content[..]));
    }
    let loaded = load(&file_set(read.into_iter()), &registry());
    let (config, _) = loaded.accepted().map_err(|errors| {
        let first = errors.first().map(ToString::to_string);
        anyhow::anyhow!(
            "{} errors, the first: {}",
            errors.len(),
            first.unwrap_or_default()
        )
    })?;
    Ok(config)
}

fn unified(path: &str, before: &[u8], after: &[u8]) -> String {
    let (Ok(before), Ok(after)) = (std::str::from_utf8(before), std::str::from_utf8(after)) else {
        return format!("{path}: not text\n");
    };
    TextDiff::configure()
        .timeout(DIFF_TIME)
        .diff_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(&format!("a/{path}"), &format!("b/{path}"))
        .to_string()
}

impl Difference {
    fn as_text(&self, full: bool) -> String {
        if self.files.is_empty() {
            return format!("{} and {} have the same files\n", self.from, self.to);
        }
        let mut text = format!("from {} to {}\n", self.from, self.to);
        if let Some(why) = &self.unknown {
            text.push_str(&format!("what it means for jobs is not known: {why}\n"));
        }
        if self.partial {
            text.push_str("a large configuration: only changed files were looked at for jobs\n");
        }
        let mut list = |what: &str, names: Vec<String>| {
            if names.is_empty() {
                return;
            }
            text.push_str(&format!("{what}: {}\n", names.len()));
            let shown = if full { names.len() } else { NAMES };
            for name in names.iter().take(shown) {
                text.push_str(&format!("  {name}\n"));
            }
            if names.len() > shown {
                text.push_str(&format!("  and {} more: --full\n", names.len() - shown));
            }
        };
        let names = |names: &[changes::JobName]| names.iter().map(ToString::to_string).collect();
        list("jobs added", names(&self.jobs.added));
        list("jobs removed", names(&self.jobs.removed));
        list("jobs changed", names(&self.jobs.changed));
        list("contexts retired", self.contexts.clone());
        list("sections of config.yaml changed", self.config.clone());
        list("sections of plugins.yaml changed", self.plugins.clone());
        let files = self
            .files
            .iter()
            .map(|file| format!("{} {}", file.what, file.path));
        list("files", files.collect());
        text.push('\n');
        let mut lines = 0;
        for (at, file) in self.files.iter().enumerate() {
            let more = file.text.lines().count();
            if !full && lines > 0 && lines + more > LINES {
                text.push_str(&format!(
                    "the differences of {} more files are left out: --full\n",
                    self.files.len() - at
                ));
                break;
            }
            for line in file.text.lines().take(if full { more } else { LINES }) {
                text.push_str(line);
                text.push('\n');
            }
            if !full && more > LINES {
                text.push_str(&format!("{} more lines: --full\n", more - LINES));
            }
            lines += more;
        }
        text
    }

    fn as_json(&self, full: bool) -> Value {
        let mut lines = 0;
        let file = |file: &FileChange| {
            lines += file.text.lines().count();
            let shown = full || lines <= LINES;
            json!({
                "role": file.role, "path": file.path, "change": file.what,
                "diff": shown.then_some(&file.text),
            })
        };
        let files: Vec<Value> = self.files.iter().map(file).collect();
        json!({
            "from": self.from, "to": self.to, "same": self.files.is_empty(),
            "jobs": {"added": self.jobs.added, "removed": self.jobs.removed, "changed": self.jobs.changed},
            "contexts_retired": self.contexts,
            "sections": {"config": self.config, "plugins": self.plugins},
            "changed_files_only": self.partial, "unknown": self.unknown,
            "files": files,
        })
    }
}
