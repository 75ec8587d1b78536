//! What a job gets that it does not say itself (CFG-061…070, JOB-010), and its presets.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::shared::{bytes_of, presets_too_large};
use super::{
    Brancher, ChangeMatcher, JobBase, Periodic, PodSpec, Postsubmit, Preset, Presubmit, Shared,
};
use crate::decode;
use crate::prow::ProwConfig;

/// Build cluster of jobs that name none.
pub const DEFAULT_CLUSTER: &str = "default";

/// What the defaulting of jobs looks at.
pub(crate) struct Defaults<'a> {
    pub(crate) prow: &'a ProwConfig,
    decorate_all_jobs: bool,
    /// The configuration's presets, then those of the repository itself; with their bytes.
    presets: Vec<(&'a Preset, u64)>,
    /// Of one configuration, or of what stays the same of it.
    shared: &'a Shared,
}

impl<'a> Defaults<'a> {
    pub(crate) fn new(
        prow: &'a ProwConfig,
        decorate_all_jobs: bool,
        presets: impl Iterator<Item = &'a Preset>,
        shared: &'a Shared,
    ) -> Self {
        Self {
            prow,
            decorate_all_jobs,
            presets: presets.map(|preset| (preset, bytes_of(preset))).collect(),
            shared,
        }
    }

    /// Bytes that presets add to some jobs.
    pub(crate) fn growth_of<'j>(&self, jobs: impl Iterator<Item = &'j JobBase>) -> u64 {
        match self.presets.is_empty() {
            true => 0,
            false => jobs.map(|base| self.growth(base)).sum(),
        }
    }

    /// Bytes that presets add to a job.
    pub(crate) fn growth(&self, base: &JobBase) -> u64 {
        let Some(spec) = &base.spec else {
            return 0;
        };
        let applying = self.applying(&base.labels);
        added(spec, applying.map(|(_, bytes)| bytes))
    }

    /// The presets that are meant for a job with these labels, with their bytes.
    fn applying<'l>(
        &'l self,
        labels: &'l BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'a Preset, u64)> + 'l {
        let presets = self.presets.iter().copied();
        presets.filter(|(preset, _)| preset.applies_to(labels))
    }

    /// Problems are returned in upstream's words; the job keeps what could be set.
    pub(crate) fn presubmit(&self, job: &mut Presubmit, repo: &str) -> Vec<String> {
        self.base(&mut job.base);
        if job.reporter.context.is_empty() {
            job.reporter.context.clone_from(&job.base.name);
        }
        if job.trigger.is_empty() && job.rerun_command.is_empty() {
            job.trigger = default_trigger(&job.base.name);
            job.rerun_command = default_rerun_command(&job.base.name);
        }
        let mut wrong = self.layers(&mut job.base, repo);
        wrong.extend(
            compile_presubmit(job, self.shared)
                .err()
                .map(|e| format!("could not set regex: {e}")),
        );
        wrong
    }

    pub(crate) fn postsubmit(&self, job: &mut Postsubmit, repo: &str) -> Vec<String> {
        self.base(&mut job.base);
        if job.reporter.context.is_empty() {
            job.reporter.context.clone_from(&job.base.name);
        }
        let mut wrong = self.layers(&mut job.base, repo);
        let name = &job.base.name;
        let compiled = job
            .brancher
            .compile(name, self.shared)
            .and_then(|()| job.changes.compile(name, self.shared))
            .map_err(|e| format!("could not set regex: {e}"));
        wrong.extend(compiled.err());
        wrong
    }

    pub(crate) fn periodic(&self, job: &mut Periodic) -> Vec<String> {
        self.base(&mut job.base);
        let repo = job.base.first_extra_repo().unwrap_or_default();
        self.layers(&mut job.base, &repo)
    }

    fn base(&self, base: &mut JobBase) {
        if base.agent.is_empty() {
            "kubernetes".clone_into(&mut base.agent);
        }
        if base.namespace.as_ref().is_none_or(String::is_empty) {
            base.namespace = Some(self.prow.pod_namespace.clone());
        }
        if base.cluster.is_empty() {
            DEFAULT_CLUSTER.clone_into(&mut base.cluster);
        }
    }

    fn layers(&self, base: &mut JobBase, repo: &str) -> Vec<String> {
        if *base.utility.decorate.get_or_insert(self.decorate_all_jobs) {
            let own = base.utility.decoration_config.take();
            let key = key(repo, &base.cluster, own.as_deref());
            base.utility.decoration_config = Some(self.shared.decoration(&key, || {
                let plank = &self.prow.plank;
                plank.decoration_for(repo, &base.cluster, own.as_deref())
            }));
        }
        let own = base.prowjob_defaults.take();
        let key = key(repo, &base.cluster, own.as_deref());
        base.prowjob_defaults = Some(self.shared.prowjob_default(&key, || {
            let prow = self.prow;
            prow.prowjob_default(repo, &base.cluster, own.as_deref())
        }));
        self.presets(base).err().into_iter().collect()
    }

    fn presets(&self, base: &mut JobBase) -> Result<(), String> {
        let Some(spec) = &mut base.spec else {
            return Ok(());
        };
        let applying: Vec<_> = self.applying(&base.labels).collect();
        if applying.is_empty() {
            return Ok(());
        }
        let growth = added(spec, applying.iter().map(|(_, bytes)| *bytes));
        (self.shared.grow(growth)).map_err(|most| presets_too_large(&base.name, most))?;
        let mut merged = spec.value();
        for (preset, _) in applying {
            preset.merge_into(&mut merged).map_err(|e| {
                format!("job {} failed to merge presets for podspec: {e}", base.name)
            })?;
        }
        // Presets are in order themselves, and add to the pod and its containers only.
        decode::in_field_order("PodSpec", &mut merged, 2);
        *spec = PodSpec::from(&merged);
        Ok(())
    }
}

/// What presets of so many bytes add to a pod: most of it goes to every container.
fn added(spec: &PodSpec, presets: impl Iterator<Item = u64>) -> u64 {
    presets.sum::<u64>() * u64::from(spec.containers().max(1))
}

/// All that the layers of a job depend on, given a configuration.
fn key(repo: &str, cluster: &str, own: Option<&impl Debug>) -> String {
    match own {
        None => format!("{repo}\n{cluster}"),
        // Not its JSON, which leaves out what is set and empty (CFG-064).
        Some(own) => format!("{repo}\n{cluster}\n{own:?}"),
    }
}

/// JOB-010: the name is inserted as it is.
#[must_use]
pub(crate) fn default_trigger(name: &str) -> String {
    format!(r"(?m)^/test( | .* ){name},?($|\s.*)")
}

#[must_use]
pub(crate) fn default_rerun_command(name: &str) -> String {
    format!("/test {name}")
}

fn compile_presubmit(job: &mut Presubmit, shared: &Shared) -> Result<(), String> {
    let name = &job.base.name;
    let trigger = shared
        .regex(&job.trigger)
        .map_err(|e| format!("could not compile trigger regex for {name}: {e}"))?;
    if !is_generated(&job.trigger, &job.rerun_command)
        && !shared.matches(&job.trigger, &job.rerun_command)
    {
        return Err(format!(
            "for job {name}, rerun command \"{}\" does not match trigger \"{}\"",
            job.rerun_command, job.trigger
        ));
    }
    job.trigger_re = Some(trigger);
    job.brancher.compile(name, shared)?;
    job.changes.compile(name, shared)
}

/// Whether trigger and command are those that follow from one plain name: then they match, without a look.
fn is_generated(trigger: &str, rerun_command: &str) -> bool {
    let name = rerun_command.strip_prefix("/test ").unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.bytes().all(plain) && trigger == default_trigger(name)
}

impl Brancher {
    /// Each list is one alternation (JOB-013).
    pub(crate) fn compile(&mut self, name: &str, shared: &Shared) -> Result<(), String> {
        let compile = |list: &[String], which: &str| {
            if list.is_empty() {
                return Ok(None);
            }
            let compiled = shared.regex(&list.join("|")).map(Some);
            compiled.map_err(|e| {
                format!("could not set branch regexes for {name}: could not compile {which} branch regex: {e}")
            })
        };
        self.re = compile(&self.branches, "positive")?;
        self.re_skip = compile(&self.skip_branches, "negative")?;
        Ok(())
    }
}

impl ChangeMatcher {
    /// The one that counts, with its field.
    pub(super) fn expression(&self) -> (&'static str, &str) {
        if self.run_if_changed.is_empty() {
            ("skip_if_only_changed", &self.skip_if_only_changed)
        } else {
            ("run_if_changed", &self.run_if_changed)
        }
    }

    pub(crate) fn compile(&mut self, name: &str, shared: &Shared) -> Result<(), String> {
        let (field, source) = self.expression();
        if source.is_empty() {
            return Ok(());
        }
        let compiled = shared.regex(source);
        let compiled = compiled.map_err(|e| {
            format!("could not set change regexes for {name}: could not compile {field} regex: {e}")
        })?;
        self.re = Some(compiled);
        Ok(())
    }
}
