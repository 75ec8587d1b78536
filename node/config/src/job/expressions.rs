//! The expressions of all jobs of a configuration, and how much memory they take together: each is bounded by itself, and
//! compiled when it is first used; a configuration may have as many as it has bytes for.

use std::borrow::Cow;
use std::collections::HashSet;

use super::shared::{MAX_EXPRESSIONS, too_many, weight};
use super::{AnyJob, Brancher, ChangeMatcher};
use crate::go_regex::GoRegex;

/// Expressions with the bytes that they take once they are compiled, equal ones counted once.
#[derive(Debug, Default)]
pub(crate) struct Expressions<'j> {
    seen: HashSet<Cow<'j, str>>,
    bytes: u64,
}

impl<'j> Expressions<'j> {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds those of a job.
    ///
    /// # Errors
    /// The field of the first that is too much, and a message.
    pub(crate) fn add(&mut self, job: AnyJob<'j>) -> Result<(), (&'static str, String)> {
        for (field, source, compiled) in expressions(job) {
            if source.is_empty() || self.seen.contains(&source) {
                continue;
            }
            self.bytes += match compiled.filter(|regex| regex.as_str() == source) {
                Some(regex) => regex.weight(),
                None => weight(&GoRegex::new(&source)),
            };
            if self.bytes > MAX_EXPRESSIONS {
                let error = too_many(&source, MAX_EXPRESSIONS);
                let message = format!("could not set regex for {}: {error}", job.base().name);
                return Err((field, message));
            }
            self.seen.insert(source);
        }
        Ok(())
    }
}

type Expression<'j> = (&'static str, Cow<'j, str>, Option<&'j GoRegex>);

fn expressions(job: AnyJob<'_>) -> Vec<Expression<'_>> {
    match job {
        AnyJob::Presubmit(job) => {
            let trigger = Cow::from(&job.trigger);
            let mut all = vec![("trigger", trigger, job.trigger_re.as_ref())];
            all.extend(of_branches(&job.brancher));
            all.push(of_changes(&job.changes));
            all
        }
        AnyJob::Postsubmit(job) => {
            let mut all = of_branches(&job.brancher).to_vec();
            all.push(of_changes(&job.changes));
            all
        }
        AnyJob::Periodic(_) => Vec::new(),
    }
}

fn of_branches(of: &Brancher) -> [Expression<'_>; 2] {
    [
        ("branches", joined(&of.branches), of.re.as_ref()),
        (
            "skip_branches",
            joined(&of.skip_branches),
            of.re_skip.as_ref(),
        ),
    ]
}

fn joined(list: &[String]) -> Cow<'_, str> {
    match list {
        [only] => Cow::from(only),
        list => Cow::from(list.join("|")),
    }
}

fn of_changes(of: &ChangeMatcher) -> Expression<'_> {
    let (field, source) = of.expression();
    (field, Cow::from(source), of.re.as_ref())
}
