//! Which job runs when (JOB-013…019).

use trireme_config::job::{Contexts, Filter, Requirements};

use crate::stage::{POD, accepted};

fn config(presubmits: &[&str], postsubmits: &[&str]) -> std::sync::Arc<trireme_config::Config> {
    let list = |jobs: &[&str]| {
        jobs.iter()
            .map(|fields| format!("  - {{{fields}, {POD}}}\n"))
            .collect::<String>()
    };
    let jobs = format!(
        "presubmits:\n  o/r:\n{}postsubmits:\n  o/r:\n{}",
        list(presubmits),
        list(postsubmits)
    );
    accepted(&[("jobs/a.yaml", &jobs)])
}

/// JOB-013: a skipped branch loses, an empty list or a match wins; lists are one unanchored expression.
#[test]
fn job_013_branches() {
    for (fields, branch, expected) in [
        ("name: a", "any", true),
        ("name: a, branches: [master]", "master", true),
        ("name: a, branches: [master]", "master-old", true),
        ("name: a, branches: ['^master$']", "master-old", false),
        ("name: a, branches: [a, 'release-.*']", "release-1", true),
        ("name: a, branches: ['^x', 'z$']", "xz", true),
        ("name: a, skip_branches: [master]", "master", false),
        ("name: a, skip_branches: [master]", "dev", true),
        (
            "name: a, branches: [master], skip_branches: [old]",
            "master-old",
            false,
        ),
        (
            "name: a, branches: [master], skip_branches: [old]",
            "dev",
            false,
        ),
    ] {
        let config = config(&[fields], &[fields]);
        let (pre, post) = (
            &config.jobs.presubmits["o/r"][0],
            &config.jobs.postsubmits["o/r"][0],
        );
        assert_eq!(
            (pre.could_run(branch), post.could_run(branch)),
            (expected, expected),
            "{fields} on {branch}"
        );
    }
}

/// JOB-014, JOB-015: presubmits by branch, changes, force and default.
#[test]
fn job_014_015_presubmits() {
    let none: &[&str] = &[];
    // Fields, branch, files, then the answers for nothing, default, forced.
    for (fields, branch, files, expected) in [
        (
            "name: a, always_run: true",
            "main",
            none,
            [true, true, true],
        ),
        (
            "name: a, always_run: true, branches: [x]",
            "main",
            none,
            [false, false, false],
        ),
        ("name: a", "main", &["f"][..], [false, true, true]),
        (
            "name: a, run_if_changed: '\\.go$'",
            "main",
            &["a.md", "b.go"][..],
            [true, true, true],
        ),
        (
            "name: a, run_if_changed: '\\.go$'",
            "main",
            &["a.md"][..],
            [false, true, true],
        ),
        (
            "name: a, run_if_changed: '\\.go$'",
            "main",
            none,
            [false, true, true],
        ),
        (
            "name: a, skip_if_only_changed: '\\.md$'",
            "main",
            &["a.md"][..],
            [false, true, true],
        ),
        (
            "name: a, skip_if_only_changed: '\\.md$'",
            "main",
            &["a.md", "b"][..],
            [true, true, true],
        ),
        (
            "name: a, skip_if_only_changed: '\\.md$'",
            "main",
            none,
            [false, true, true],
        ),
    ] {
        let config = config(&[fields], &[]);
        let job = &config.jobs.presubmits["o/r"][0];
        let answers = [(false, false), (false, true), (true, false)]
            .map(|(forced, default)| job.should_run(branch, files, forced, default));
        assert_eq!(answers, expected, "{fields} {files:?}");
        // JOB-014: files are wanted only where they decide.
        let wanted = fields.contains("changed") && job.could_run(branch);
        assert_eq!(
            (
                job.wants_changed_files(branch, false),
                job.wants_changed_files(branch, true)
            ),
            (wanted, false),
            "{fields}"
        );
    }
}

/// JOB-016: postsubmits; whether they always run has three values.
#[test]
fn job_016_postsubmits() {
    for (fields, files, expected) in [
        ("name: a", &[][..], true),
        ("name: a, always_run: true", &[], true),
        ("name: a, always_run: false", &["f"], false),
        ("name: a, run_if_changed: f", &["f"], true),
        ("name: a, run_if_changed: f", &["g"], false),
        (
            "name: a, always_run: false, run_if_changed: f",
            &["f"],
            true,
        ),
        ("name: a, skip_if_only_changed: f", &["f"], false),
        ("name: a, branches: [x]", &[], false),
    ] {
        let config = config(&[], &[fields]);
        assert_eq!(
            config.jobs.postsubmits["o/r"][0].should_run("main", files),
            expected,
            "{fields} {files:?}"
        );
    }
}

/// JOB-017, JOB-019: what must be asked for, what must pass.
#[test]
fn job_017_019_required_contexts() {
    let config = config(
        &[
            "name: always, always_run: true",
            "name: changed, run_if_changed: x",
            "name: manual",
            "name: optional, always_run: true, optional: true",
            "name: silent, always_run: true, skip_report: true",
            "name: elsewhere, always_run: true, branches: [dev]",
        ],
        &[],
    );
    let jobs = &config.jobs.presubmits["o/r"];
    let of = |n: usize| {
        (
            jobs[n].needs_explicit_trigger(),
            jobs[n].context_required(),
            jobs[n].triggers_conditionally(),
        )
    };
    assert_eq!(of(0), (false, true, false));
    assert_eq!(of(1), (false, true, true));
    assert_eq!(of(2), (true, true, true));
    assert_eq!(of(3), (false, false, false));
    assert_eq!(of(4), (false, false, false));
    let required = |manual: bool| Requirements::of("main", config.presubmits("o/r"), manual);
    let found = required(false);
    assert_eq!(found.required, ["always"]);
    assert_eq!(found.required_if_present, ["changed", "manual"]);
    assert_eq!(found.optional, ["optional", "silent"]);
    assert_eq!(required(true).required, ["always", "manual"]);
    assert_eq!(required(true).required_if_present, ["changed"]);
}

/// JOB-018: comments, and the jobs that they start.
#[test]
fn job_018_comments() {
    let config = config(
        &[
            "name: always, always_run: true",
            "name: changed, run_if_changed: '^f$'",
            "name: manual",
            "name: spare, optional: true",
            "name: broken, always_run: true, optional: true",
        ],
        &[],
    );
    let jobs: Vec<_> = config.presubmits("o/r").collect();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let contexts = Contexts {
        failed: set(&["always", "broken"]),
        all: set(&["always", "broken", "manual"]),
    };
    let none = Contexts {
        failed: set(&[]),
        all: set(&[]),
    };
    for (comment, contexts, honor_ok, files, expected) in [
        (
            "/test all",
            &none,
            false,
            "f",
            &["always", "changed", "broken"][..],
        ),
        ("/test all", &none, false, "g", &["always", "broken"]),
        ("/test manual", &none, false, "g", &["manual"]),
        (
            "/test manual spare",
            &none,
            false,
            "g",
            &["manual", "spare"],
        ),
        ("/test changed", &none, false, "g", &["changed"]),
        ("/retest", &contexts, false, "g", &["always", "broken"]),
        (
            "/retest",
            &contexts,
            false,
            "f",
            &["always", "changed", "broken"],
        ),
        ("/retest-required", &contexts, false, "g", &["always"]),
        ("/ok-to-test", &none, true, "g", &["always", "broken"]),
        ("/ok-to-test", &none, false, "g", &[]),
        ("nothing", &none, false, "f", &[]),
    ] {
        let filter = Filter::for_comment(comment, honor_ok, contexts);
        let selected = filter.select("main", &[files], jobs.iter().copied());
        let names: Vec<_> = selected.iter().map(|job| job.base.name.as_str()).collect();
        assert_eq!(names, expected, "{comment} with {files}");
    }
}
