//! What a loader remembers from one configuration to the next, so that only changed files are read again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::jobs::{Known, Merged};
use super::plugin_sources;
use super::sections::{Sections, Shard, sources};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::{Content, ContentId, FileSet, Files, IGNORE_FILE};
use crate::job::{Postsubmit, Presubmit, Shared};
use crate::plugins::{Identity, PluginConfig};
use crate::yaml::Node;

/// Bytes of the files that only the last good configuration has, and of those whose jobs have other defaults there; beyond
/// this it is forgotten. The largest known configuration has 174 MB.
const MAX_KEPT_BYTES: usize = 512 << 20;

/// Loads one configuration after the other. What is the same by path and content in the next one is neither parsed nor
/// defaulted nor checked again, and its jobs are shared by both.
///
/// It holds what the last configuration consists of, and what the last good one before it does: whether that was refused,
/// or another one altogether, the next of the former kind is read as fast. Options may differ from one to the next; what
/// depends on them is made for them.
#[derive(Debug, Default)]
pub struct ConfigCache {
    last: Memory,
    /// Good, and other files than those of the last.
    before: Option<Memory>,
    /// How often the defaults of jobs changed.
    pub(super) generation: u64,
}

/// What a configuration became.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Whether there was no error.
    pub(super) good: bool,
    /// Files with other things than jobs.
    pub(super) small: Small,
    pub(super) sections: Option<Arc<KnownSections>>,
    pub(super) plugins: Option<Arc<KnownPlugins>>,
    pub(super) job_files: HashMap<String, (ContentId, Known), RandomState>,
    pub(super) defaults: KnownDefaults,
    pub(super) presubmits: Merged<Presubmit>,
    pub(super) postsubmits: Merged<Postsubmit>,
}

/// What defaulting looks at besides the job, and what was made from it.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownDefaults {
    /// As text; none if it is not to be used again.
    pub(super) depends_on: Option<String>,
    pub(super) generation: u64,
    pub(super) shared: Arc<Shared>,
}

/// Files in the order in which they are merged.
pub(super) type Sources = Vec<(String, ContentId)>;

#[derive(Debug)]
pub(super) struct KnownSections {
    pub(super) sources: Sources,
    /// The option of this name, with which they were made.
    pub(super) all_phases: bool,
    pub(super) shards: Unchanged<Shard>,
    pub(super) sections: Sections,
}

/// What the plugins' files became.
#[derive(Debug)]
pub(super) struct KnownPlugins {
    pub(super) sources: Sources,
    /// Of the registry with which they were read.
    pub(super) registry: Option<Identity>,
    /// Whether unknown names were errors then.
    pub(super) refuse_unknown: bool,
    pub(super) roots: Unchanged<PluginRoot>,
    pub(super) plugins: Arc<PluginConfig>,
    pub(super) found: Vec<Diagnostic>,
}

/// A file for plugins, parsed.
pub(super) type PluginRoot = (Option<Arc<Node>>, Vec<Diagnostic>);

impl ConfigCache {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The newest first.
    pub(super) fn memories(&self) -> impl Iterator<Item = &Memory> {
        std::iter::once(&self.last).chain(&self.before)
    }

    pub(super) fn remember(&mut self, next: Memory) {
        let last = std::mem::replace(&mut self.last, next);
        if last.good && !last.has_the_files_of(&self.last) {
            self.before = Some(last);
        }
        let last = &self.last;
        self.before.take_if(|before| {
            before.bytes() > MAX_KEPT_BYTES && before.bytes_besides(last) > MAX_KEPT_BYTES
        });
    }

    /// Paths of the files whose bytes a load of this set needs, and which are neither in it nor known from former ones. A
    /// file that is known as something else, a job file that has become a supplement, say, is not known.
    #[must_use]
    pub fn missing(&self, files: &FileSet) -> Vec<String> {
        self.lacking(files, &Reading::of(files))
    }

    pub(super) fn lacking(&self, files: &FileSet, reading: &Reading<'_>) -> Vec<String> {
        let sources = reading.sections.iter().chain(&reading.plugins);
        let small = sources
            .filter(|(path, id)| {
                let known = || self.memories().any(|of| of.small.get(path, id).is_some());
                files.get(path).is_none() && !known()
            })
            .map(|(path, _)| path.as_str());
        let bare = |content: &Content| content.bytes().is_none();
        let jobs = reading.jobs.iter().flatten();
        let jobs = jobs
            .filter(|(path, content)| {
                let known = || {
                    self.memories()
                        .any(|of| of.job_file(path, content.id()).is_some())
                };
                bare(content) && !known()
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

impl Memory {
    pub(super) fn job_file(&self, path: &str, id: &ContentId) -> Option<&Known> {
        let (of, known) = self.job_files.get(path)?;
        (of == id).then_some(known)
    }

    fn has_the_files_of(&self, other: &Self) -> bool {
        fn sections(of: &Memory) -> Option<&Sources> {
            of.sections.as_ref().map(|known| &known.sources)
        }
        fn plugins(of: &Memory) -> Option<&Sources> {
            of.plugins.as_ref().map(|known| &known.sources)
        }
        self.job_files.len() == other.job_files.len()
            && sections(self) == sections(other)
            && plugins(self) == plugins(other)
            && (self.job_files.iter()).all(|(path, (id, _))| other.job_file(path, id).is_some())
    }

    fn bytes(&self) -> usize {
        let small = self.small.0.values().map(|(_, bytes)| bytes.len());
        let jobs = self.job_files.values().map(|(_, known)| known.bytes);
        small.chain(jobs).sum()
    }

    /// Bytes of the files that are not in another one with the same jobs.
    fn bytes_besides(&self, other: &Self) -> usize {
        let jobs = self.job_files.iter().filter(|(path, (id, known))| {
            let other = other.job_file(path, id);
            other.is_none_or(|other| !other.is_same(known))
        });
        let small = self
            .small
            .0
            .iter()
            .filter(|(path, (id, _))| other.small.get(path, id).is_none());
        jobs.map(|(_, (_, known))| known.bytes)
            .chain(small.map(|(_, (_, bytes))| bytes.len()))
            .sum()
    }
}

/// Values made from files, by path, as long as the content stays the same.
#[derive(Debug)]
pub(super) struct Unchanged<T>(HashMap<String, (ContentId, Arc<T>)>);

impl<T> Default for Unchanged<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Unchanged<T> {
    /// Made before, or now.
    pub(super) fn get<'k>(
        &mut self,
        mut known: impl Iterator<Item = &'k Self>,
        path: &str,
        id: &ContentId,
        make: impl FnOnce() -> T,
    ) -> Arc<T>
    where
        T: 'k,
    {
        if let Some(value) = self.known(path, id) {
            return value.clone();
        }
        let known = known.find_map(|known| known.known(path, id).cloned());
        let value = known.unwrap_or_else(|| Arc::new(make()));
        self.0.insert(path.to_owned(), (*id, value.clone()));
        value
    }

    fn known(&self, path: &str, id: &ContentId) -> Option<&Arc<T>> {
        let (of, value) = self.0.get(path)?;
        (of == id).then_some(value)
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

    /// Of those that are in the set or were in former ones.
    pub(super) fn of<'s>(
        cache: &ConfigCache,
        files: &FileSet,
        sources: impl Iterator<Item = &'s (String, ContentId)>,
    ) -> Self {
        let found = sources.filter_map(|(path, id)| {
            let known = || cache.memories().find_map(|of| of.small.get(path, id));
            let bytes = files.get(path).or_else(known)?;
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
