//! Jobs of one file after defaulting, and what only shows when the jobs of all files stand together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use trireme_prowjob::DecorationConfig;

use super::file::{JobFile, of_job};
use crate::config::{JobConfig, JobList};
use crate::diagnostic::Diagnostic;
use crate::job::expressions::Expressions;
use crate::job::shared::{MAX_GROWTH, bytes_of, presets_too_large};
use crate::job::{self, AnyJob, JobBase, Periodic, Postsubmit, Presubmit, clashes, validate};

/// Errors that are told of the jobs of one file.
const MAX_FOUND: usize = 1000;

/// By repository.
pub(super) type ByRepo<J> = Vec<(String, JobList<J>)>;

/// A file's jobs as they will run.
#[derive(Clone, Debug, Default)]
pub(super) struct DefaultedFile {
    pub(super) presubmits: ByRepo<Presubmit>,
    pub(super) postsubmits: ByRepo<Postsubmit>,
    pub(super) periodics: Vec<Arc<Periodic>>,
    /// To which its jobs upload (CFG-101).
    pub(super) buckets: BTreeSet<String>,
    pub(super) found: Vec<Diagnostic>,
    /// Bytes that presets add to its jobs.
    growth: u64,
}

impl DefaultedFile {
    /// Jobs that nobody else holds are changed in place. `growth` is what presets add to them.
    pub(super) fn new(jobs: JobConfig, growth: u64, defaults: &job::Defaults<'_>) -> Self {
        let mut file = Self {
            presubmits: jobs.presubmits.into_iter().collect(),
            postsubmits: jobs.postsubmits.into_iter().collect(),
            periodics: jobs.periodics,
            growth,
            ..Self::default()
        };
        let mut found = Found::default();
        for (repo, jobs) in &mut file.presubmits {
            for job in Arc::make_mut(jobs) {
                let job = Arc::make_mut(job);
                let wrong = defaults.presubmit(job, repo).into_iter().map(whole);
                let wrong = wrong.chain(validate::presubmit(defaults.prow, job));
                found.add(&job.base, wrong);
                upload(&mut file.buckets, job.base.decoration());
            }
        }
        for (repo, jobs) in &mut file.postsubmits {
            for job in Arc::make_mut(jobs) {
                let job = Arc::make_mut(job);
                let wrong = defaults.postsubmit(job, repo).into_iter().map(whole);
                let wrong = wrong.chain(validate::postsubmit(defaults.prow, job));
                found.add(&job.base, wrong);
                upload(&mut file.buckets, job.base.decoration());
            }
        }
        for job in &mut file.periodics {
            let job = Arc::make_mut(job);
            let wrong = defaults.periodic(job).into_iter().map(whole);
            let wrong: Vec<_> = wrong
                .chain(validate::periodic(defaults.prow, job))
                .collect();
            found.add(&job.base, wrong.into_iter());
            upload(&mut file.buckets, job.base.decoration());
        }
        file.found = found.0;
        file
    }
}

/// What is wrong with the jobs of one file, up to a bound.
#[derive(Default)]
struct Found(Vec<Diagnostic>);

impl Found {
    fn add(&mut self, job: &JobBase, wrong: impl Iterator<Item = validate::Problem>) {
        for (field, message) in wrong {
            match self.0.len() {
                0..MAX_FOUND => self.0.push(of_job(job, field, message)),
                MAX_FOUND => {
                    let message = format!(
                        "more than {MAX_FOUND} errors in the jobs of this file; the rest is not told"
                    );
                    self.0.push(of_job(job, "", message));
                }
                _ => return,
            }
        }
    }
}

impl DefaultedFile {
    fn jobs(&self) -> impl Iterator<Item = AnyJob<'_>> {
        let presubmits = self.presubmits.iter().flat_map(|(_, jobs)| jobs.iter());
        let postsubmits = self.postsubmits.iter().flat_map(|(_, jobs)| jobs.iter());
        presubmits
            .map(|job| AnyJob::Presubmit(job))
            .chain(postsubmits.map(|job| AnyJob::Postsubmit(job)))
            .chain(self.periodics.iter().map(|job| AnyJob::Periodic(job)))
    }
}

/// The first job, in the order of the files, with which the expressions of all are too many.
pub(super) fn too_many_expressions(files: &[Arc<DefaultedFile>]) -> Option<Diagnostic> {
    let mut all = Expressions::default();
    let mut jobs = files.iter().flat_map(|file| file.jobs());
    jobs.find_map(|job| {
        let (field, message) = all.add(job).err()?;
        Some(of_job(job.base(), field, message))
    })
}

/// The first job, in the order of the files, with which presets add too much.
pub(super) fn too_large_presets(
    files: &[Arc<DefaultedFile>],
    defaults: &job::Defaults<'_>,
) -> Option<Diagnostic> {
    let mut grown = 0;
    let mut jobs = files.iter().flat_map(|file| file.jobs());
    jobs.find_map(|job| {
        grown += defaults.growth(job.base());
        let message = || presets_too_large(&job.base().name, MAX_GROWTH);
        (grown > MAX_GROWTH).then(|| of_job(job.base(), "spec", message()))
    })
}

/// Bytes of the decorations and defaults of all jobs, those that are shared counted once.
pub(super) fn bytes_of_layers(files: &[Arc<DefaultedFile>]) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for job in files.iter().flat_map(|file| file.jobs()) {
        let base = job.base();
        if let Some(of) = &base.utility.decoration_config
            && seen.insert(Arc::as_ptr(of).cast::<()>())
        {
            bytes += bytes_of(of.as_ref());
        }
        if let Some(of) = &base.prowjob_defaults
            && seen.insert(Arc::as_ptr(of).cast::<()>())
        {
            bytes += bytes_of(of.as_ref());
        }
    }
    bytes
}

fn upload(buckets: &mut BTreeSet<String>, decoration: Option<&DecorationConfig>) {
    let Some(bucket) = decoration.and_then(bucket) else {
        return;
    };
    if !buckets.contains(bucket) {
        buckets.insert(bucket.to_owned());
    }
}

/// The name of the bucket that a decoration uploads to, without its provider.
pub(super) fn bucket(decoration: &DecorationConfig) -> Option<&str> {
    let bucket = decoration.gcs_configuration.as_ref()?.bucket.as_str();
    Some(match bucket.split_once("://") {
        Some((_, name)) if !name.contains("://") => name,
        _ => bucket,
    })
}

/// Jobs of one kind from all files, by repository.
#[derive(Debug)]
pub(super) struct Merged<J>(HashMap<String, Arc<MergedRepo<J>>>);

#[derive(Debug)]
struct MergedRepo<J> {
    parts: Vec<JobList<J>>,
    jobs: JobList<J>,
    clashes: Vec<Diagnostic>,
}

impl<J> Default for Merged<J> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<J> Merged<J> {
    /// Puts the files' jobs together in the order of the files (CFG-009), and adds what only shows then. A repository whose
    /// files are the same as in a former one is not looked at again.
    pub(super) fn merge<'f>(
        &mut self,
        former: &[&Self],
        files: impl Iterator<Item = &'f ByRepo<J>>,
        find: impl Fn(&[Arc<J>]) -> Vec<Diagnostic>,
        found: &mut Vec<Diagnostic>,
    ) -> BTreeMap<String, JobList<J>>
    where
        J: 'f,
    {
        let mut by_repo: BTreeMap<&str, Vec<&JobList<J>>> = BTreeMap::new();
        for (repo, jobs) in files.flatten() {
            by_repo.entry(repo).or_default().push(jobs);
        }
        let mut merged = BTreeMap::new();
        for (repo, parts) in by_repo {
            let mut known = former.iter().filter_map(|former| former.0.get(repo));
            let known = known.find(|known| same(&known.parts, &parts)).cloned();
            let known = known.unwrap_or_else(|| {
                let jobs: JobList<J> = match parts[..] {
                    [only] => only.clone(),
                    _ => Arc::new(parts.iter().flat_map(|jobs| jobs.iter().cloned()).collect()),
                };
                Arc::new(MergedRepo {
                    clashes: find(&jobs),
                    parts: parts.into_iter().cloned().collect(),
                    jobs,
                })
            });
            found.extend(known.clashes.iter().cloned());
            merged.insert(repo.to_owned(), known.jobs.clone());
            self.0.insert(repo.to_owned(), known);
        }
        merged
    }
}

/// Whether two lists hold the very same lists.
fn same<J>(a: &[JobList<J>], b: &[&JobList<J>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn whole(message: String) -> validate::Problem {
    ("", message)
}

/// JOB-030 for the presubmits of one repository.
pub(super) fn presubmit_clashes(jobs: &[Arc<Presubmit>]) -> Vec<Diagnostic> {
    let jobs: Vec<&Presubmit> = jobs.iter().map(Arc::as_ref).collect();
    let wrong = clashes::presubmit_clashes(&jobs).into_iter();
    wrong
        .map(|found| of_job(&jobs[found.index].base, found.field, found.message))
        .collect()
}

/// JOB-030 for the postsubmits of one repository.
pub(super) fn postsubmit_clashes(jobs: &[Arc<Postsubmit>]) -> Vec<Diagnostic> {
    let jobs: Vec<&Postsubmit> = jobs.iter().map(Arc::as_ref).collect();
    let wrong = clashes::postsubmit_clashes(&jobs).into_iter();
    wrong
        .map(|found| of_job(&jobs[found.index].base, found.field, found.message))
        .collect()
}

/// JOB-030 for all periodics.
pub(super) fn periodic_clashes(jobs: &[Arc<Periodic>]) -> Vec<Diagnostic> {
    let wrong = validate::periodic_clashes(jobs.iter().map(Arc::as_ref)).into_iter();
    wrong
        .map(|found| of_job(&jobs[found.index].base, found.field, found.message))
        .collect()
}

/// What a file became, or has still to become.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// As it was written; gone if it was not to be kept.
    pub(super) written: Arc<JobFile>,
    /// With the defaults of this generation.
    pub(super) defaulted: Option<(u64, Arc<DefaultedFile>)>,
    /// How large the file is.
    pub(super) bytes: usize,
}

impl Known {
    /// Bytes that presets add to its jobs; `defaults` are those of a generation.
    pub(super) fn growth(&self, defaults: &job::Defaults<'_>, generation: u64) -> u64 {
        match &self.defaulted {
            Some((of, defaulted)) if *of == generation => defaulted.growth,
            Some((_, defaulted)) => defaults.growth_of(defaulted.jobs().map(|job| job.base())),
            None => {
                let jobs = self.written.jobs.all();
                defaults.growth_of(jobs.map(|(_, job)| job.base()))
            }
        }
    }

    pub(super) fn with_defaults(&self, generation: u64) -> Option<Arc<DefaultedFile>> {
        let (of, defaulted) = self.defaulted.as_ref()?;
        (*of == generation).then(|| defaulted.clone())
    }

    /// Whether another one is the very same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let defaulted = |of: &Self| of.defaulted.as_ref().map(|(_, file)| Arc::as_ptr(file));
        Arc::ptr_eq(&self.written, &other.written) && defaulted(self) == defaulted(other)
    }
}
