//! What a job gets that it does not say itself (CFG-061…070, JOB-010), and its presets.

use super::{Brancher, ChangeMatcher, JobBase, Periodic, Postsubmit, Preset, Presubmit};
use crate::decode;
use crate::go_regex::GoRegex;
use crate::prow::ProwConfig;

/// Build cluster of jobs that name none.
pub const DEFAULT_CLUSTER: &str = "default";

/// What the defaulting of jobs looks at.
pub(crate) struct Defaults<'a> {
    pub(crate) prow: &'a ProwConfig,
    pub(crate) decorate_all_jobs: bool,
    /// The configuration's presets, then those of the repository itself.
    pub(crate) presets: Vec<&'a Preset>,
}

impl Defaults<'_> {
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
            compile_presubmit(job)
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
            .compile(name)
            .and_then(|()| job.changes.compile(name))
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
            base.utility.decoration_config = Some(self.prow.plank.decoration_for(
                repo,
                &base.cluster,
                own.as_ref(),
            ));
        }
        let own = base.prowjob_defaults.take();
        base.prowjob_defaults = Some(self.prow.prowjob_default(repo, &base.cluster, own.as_ref()));
        self.presets(base).err().into_iter().collect()
    }

    fn presets(&self, base: &mut JobBase) -> Result<(), String> {
        let Some(spec) = &mut base.spec else {
            return Ok(());
        };
        let mut merged = false;
        for preset in self
            .presets
            .iter()
            .filter(|preset| preset.applies_to(&base.labels))
        {
            preset.merge_into(spec).map_err(|e| {
                format!("job {} failed to merge presets for podspec: {e}", base.name)
            })?;
            merged = true;
        }
        if merged {
            decode::in_field_order("PodSpec", &mut spec.0);
        }
        Ok(())
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

fn compile_presubmit(job: &mut Presubmit) -> Result<(), String> {
    let name = &job.base.name;
    let trigger = GoRegex::new(&job.trigger)
        .map_err(|e| format!("could not compile trigger regex for {name}: {e}"))?;
    // The trigger that follows from a plain name matches the command that follows from it; no need to compile it now.
    let generated = job.rerun_command == default_rerun_command(name)
        && job.trigger == default_trigger(name)
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !generated && !trigger.is_match(&job.rerun_command) {
        return Err(format!(
            "for job {name}, rerun command \"{}\" does not match trigger \"{}\"",
            job.rerun_command, job.trigger
        ));
    }
    job.trigger_re = Some(trigger);
    job.brancher.compile(name)?;
    job.changes.compile(name)
}

impl Brancher {
    /// Each list is one alternation (JOB-013).
    pub(crate) fn compile(&mut self, name: &str) -> Result<(), String> {
        let compile = |list: &[String], which: &str| {
            if list.is_empty() {
                return Ok(None);
            }
            let compiled = GoRegex::new(&list.join("|")).map(Some);
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
    pub(crate) fn compile(&mut self, name: &str) -> Result<(), String> {
        let (source, field) = if self.run_if_changed.is_empty() {
            (&self.skip_if_only_changed, "skip_if_only_changed")
        } else {
            (&self.run_if_changed, "run_if_changed")
        };
        if source.is_empty() {
            return Ok(());
        }
        let compiled = GoRegex::new(source);
        let compiled = compiled.map_err(|e| {
            format!("could not set change regexes for {name}: could not compile {field} regex: {e}")
        })?;
        self.re = Some(compiled);
        Ok(())
    }
}
