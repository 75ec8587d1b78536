//! What a loader remembers from one configuration to the next, so that only changed files are read again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::jobs::{Known, Merged};
use super::plugin_sources;
use super::sections::{Sections, Shard, sources};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::{Content, ContentId, FileSet, Files, IGNORE_FILE};
use crate::job::{Postsubmit, Presubmit, Shared};
use crate::plugins::PluginConfig;
use crate::yaml::Node;

/// Loads one configuration after the other. What is the same by path and content in the next one is neither parsed nor
/// defaulted nor checked again, and its jobs are shared by both.
///
/// It holds what the last configuration consists of, nothing older. One cache serves one set of options.
#[derive(Debug, Default)]
pub struct ConfigCache {
    /// Files with other things than jobs.
    pub(super) small: Small,
    pub(super) sections: Option<(Sources, Sections)>,
    pub(super) shards: Unchanged<Shard>,
    pub(super) plugins: Option<(Sources, KnownPlugins)>,
    pub(super) plugin_roots: Unchanged<PluginRoot>,
    pub(super) job_files: HashMap<String, (ContentId, Known)>,
    /// What defaulting looks at besides the job, as text, and how often it changed.
    pub(super) defaults: (String, u64),
    pub(super) shared: Arc<Shared>,
    pub(super) presubmits: Merged<Presubmit>,
    pub(super) postsubmits: Merged<Postsubmit>,
}

/// Files in the order in which they are merged.
pub(super) type Sources = Vec<(String, ContentId)>;

/// What the plugins' files became.
pub(super) type KnownPlugins = (Arc<PluginConfig>, Vec<Diagnostic>);

/// A file for plugins, parsed.
pub(super) type PluginRoot = (Option<Arc<Node>>, Vec<Diagnostic>);

impl ConfigCache {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Paths of the files whose bytes a load of this set needs, and which are neither in it nor known from the former one. A
    /// file that is known as something else, a job file that has become a supplement, say, is not known.
    #[must_use]
    pub fn missing(&self, files: &FileSet) -> Vec<String> {
        self.lacking(files, &Reading::of(files))
    }

    pub(super) fn lacking(&self, files: &FileSet, reading: &Reading<'_>) -> Vec<String> {
        let sources = reading.sections.iter().chain(&reading.plugins);
        let small = sources
            .filter(|(path, id)| files.get(path).is_none() && self.small.get(path, id).is_none())
            .map(|(path, _)| path.as_str());
        let bare = |content: &Content| content.bytes().is_none();
        let jobs = reading.jobs.iter().flatten();
        let jobs = jobs
            .filter(|(path, content)| {
                let known = self.job_files.get(*path);
                bare(content) && known.is_none_or(|(id, _)| id != content.id())
            })
            .map(|(path, _)| *path);
        // What hides job files is read whenever these are listed.
        let hiding = files
            .all()
            .filter(|(path, content)| bare(content) && path.rsplit('/').next() == Some(IGNORE_FILE))
            .map(|(path, _)| path);
        let missing: BTreeSet<&str> = small.chain(jobs).chain(hiding).collect();
        missing.into_iter().map(str::to_owned).collect()
    }
}

/// Which files of a set a load reads as what, listed once.
pub(super) struct Reading<'f> {
    pub(super) sections: Sources,
    pub(super) plugins: Sources,
    /// None if there is no such tree.
    pub(super) jobs: Option<Files<'f>>,
}

impl<'f> Reading<'f> {
    pub(super) fn of(files: &'f FileSet) -> Self {
        Self {
            sections: sources(files),
            plugins: plugin_sources(files),
            jobs: files.job_files(),
        }
    }
}

/// Values made from files, by path, as long as the content stays the same.
#[derive(Debug)]
pub(super) struct Unchanged<T> {
    now: HashMap<String, (ContentId, Arc<T>)>,
    /// Of the configuration before; what is not asked for again is dropped.
    before: HashMap<String, (ContentId, Arc<T>)>,
}

impl<T> Default for Unchanged<T> {
    fn default() -> Self {
        Self {
            now: HashMap::new(),
            before: HashMap::new(),
        }
    }
}

impl<T> Unchanged<T> {
    /// Another round begins.
    pub(super) fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    pub(super) fn get(&mut self, path: &str, id: &ContentId, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some((known, value)) = self.now.get(path)
            && known == id
        {
            return value.clone();
        }
        let value = match self.before.remove(path) {
            Some((known, value)) if known == *id => value,
            _ => Arc::new(make()),
        };
        self.now.insert(path.to_owned(), (*id, value.clone()));
        value
    }
}

/// Bytes of the files that are not job files: few and small.
#[derive(Debug, Default)]
pub(super) struct Small(HashMap<String, (ContentId, Arc<[u8]>)>);

impl Small {
    fn get(&self, path: &str, id: &ContentId) -> Option<&Arc<[u8]>> {
        let (known, bytes) = self.0.get(path)?;
        (known == id).then_some(bytes)
    }

    /// Of those that are in the set or were in the former one.
    pub(super) fn of<'s>(
        &self,
        files: &FileSet,
        sources: impl Iterator<Item = &'s (String, ContentId)>,
    ) -> Self {
        let found = sources.filter_map(|(path, id)| {
            let bytes = files.get(path).or_else(|| self.get(path, id))?;
            Some((path.clone(), (*id, bytes.clone())))
        });
        Self(found.collect())
    }

    /// The bytes of a file; without them there is an error.
    pub(super) fn bytes(
        &self,
        files: &FileSet,
        path: &str,
        found: &mut Vec<Diagnostic>,
    ) -> Option<Arc<[u8]>> {
        let bytes = files
            .content(path)
            .and_then(|content| self.get(path, content.id()));
        if bytes.is_none() {
            found.push(absent(path));
        }
        bytes.cloned()
    }
}

/// A file that is named without content, and was never read.
pub(super) fn absent(path: &str) -> Diagnostic {
    let message = format!("error reading {path}: its content is not at hand");
    Diagnostic::error(Rule::File, path, message)
}
