//! Everything of a configuration but the jobs: the main file, its supplements, the version file (CFG-014).

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::LoadOptions;
use super::cache::{Small, Sources, Unchanged};
use super::file::{decoded, document, place_jobs, place_of, too_many_jobs};
use crate::config::{Config, JobConfig};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::FileSet;
use crate::prow::{Finding, ProwConfig};
use crate::tide;
use crate::yaml::Node;

/// A supplemental file, before it is merged.
#[derive(Debug)]
pub(super) struct Shard {
    prow: Option<ProwConfig>,
    /// Whether it sets only what may be merged.
    mergeable: bool,
    found: Vec<Diagnostic>,
}

impl Shard {
    pub(super) fn parse(path: &str, bytes: &[u8]) -> Self {
        let mut found = Vec::new();
        let root = document(path, bytes, &mut found);
        let prow: Option<ProwConfig> =
            root.map(|root| decoded(path, Some(&root), false, &mut found));
        Self {
            mergeable: prow.as_ref().is_none_or(ProwConfig::is_mergeable),
            prow,
            found,
        }
    }
}

/// The sections in force, and what was found on the way there.
#[derive(Clone, Debug, Default)]
pub(super) struct Sections {
    pub(super) prow: Arc<ProwConfig>,
    /// Jobs of the main file.
    pub(super) jobs: JobConfig,
    /// Of reading the files: if there are errors among these, nothing else is looked at.
    pub(super) read: Vec<Diagnostic>,
    /// Of defaulting and checking.
    pub(super) checked: Vec<Diagnostic>,
}

/// The files that the sections come from, in the order in which they are merged.
pub(super) fn sources(files: &FileSet) -> Sources {
    let main = files.layout.config.as_str();
    let main = files.content(main).map(|content| (main, content));
    let all = main.into_iter().chain(files.supplementals());
    all.chain(files.version())
        .map(|(path, content)| (path.to_owned(), *content.id()))
        .collect()
}

impl Sections {
    /// From a main file that is in the set.
    pub(super) fn load(
        files: &FileSet,
        small: &Small,
        shards: &mut Unchanged<Shard>,
        former: &[&Unchanged<Shard>],
        options: LoadOptions<'_>,
    ) -> Self {
        let main = &files.layout.config;
        let mut read = Vec::new();
        let bytes = small.bytes(files, main, &mut read);
        let root = bytes.and_then(|bytes| document(main, &bytes, &mut read));
        let too_many = root.as_ref().and_then(|root| too_many_jobs(main, root));
        let root = root.filter(|_| too_many.is_none());
        read.extend(too_many);
        let mut config: Config = decoded(main, root.as_deref(), false, &mut read);
        if let Some(root) = &root {
            place_jobs(&mut config.jobs, root, &Arc::from(main.as_str()));
        }
        let Config { jobs, prow } = config;
        let mut prow = Arc::unwrap_or_clone(prow);
        for (path, content) in files.supplementals() {
            let shard = shards.get(former.iter().copied(), path, content.id(), || {
                let bytes = small.bytes(files, path, &mut read).unwrap_or_default();
                Shard::parse(path, &bytes)
            });
            read.extend(shard.found.iter().cloned());
            let Some(additional) = shard.prow.clone() else {
                continue;
            };
            for e in prow.merge(additional, shard.mergeable) {
                let message = format!("failed to merge in config from {path}: {e}");
                read.push(Diagnostic::error(Rule::Invalid, path, message));
            }
        }
        let mut sections = Self {
            jobs,
            read,
            ..Self::default()
        };
        if options.all_phases || !sections.read.iter().any(Diagnostic::is_error) {
            let version = files.version();
            prow.config_version_sha = version
                .and_then(|(path, _)| small.bytes(files, path, &mut sections.read))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or(prow.config_version_sha);
            sections.finish(&mut prow, root.as_deref(), main, options.now);
        }
        sections.prow = Arc::new(prow);
        sections
    }

    fn finish(
        &mut self,
        prow: &mut ProwConfig,
        root: Option<&Node>,
        main: &str,
        now: Option<Timestamp>,
    ) {
        let component = |finding: Finding| {
            let at = root
                .map(|root| place_of(root, finding.field))
                .unwrap_or_default();
            Diagnostic::error(Rule::Invalid, main, finding.message)
                .at(at)
                .field(finding.field)
        };
        self.checked
            .extend(prow.default_and_check().into_iter().map(component));
        let queries = std::mem::take(&mut prow.tide.queries);
        prow.tide.queries = tide::fold_queries(queries, |query| tenants(prow, query));
        if let Err(e) = prow.plank.finalize_decoration_defaults() {
            self.checked.push(Diagnostic::error(Rule::Invalid, main, e));
        }
        self.checked
            .extend(prow.check_components(now).into_iter().map(component));
    }
}

/// The tenants of a query's repositories; queries of different tenants are not folded.
fn tenants(prow: &ProwConfig, query: &tide::TideQuery) -> Vec<String> {
    let all = query.orgs.iter().chain(&query.repos);
    let tenants: BTreeSet<_> = all
        .map(|name| prow.prowjob_default(name, "*", None).tenant_id)
        .collect();
    tenants.into_iter().collect()
}
