use trireme_config::Config;
use trireme_forge::{CheckRun, CommitStatus, RepoId, StatusState};

use super::asked::asked;
use super::decide::{Denied, Head, Known, Targets, Verdict, all_known, decide};
use super::{Override, Settings};
use crate::testing::{PRESUBMITS, comment, comment_event, config};

fn status(context: &str, state: StatusState, description: &str) -> CommitStatus {
    CommitStatus {
        context: context.to_owned(),
        state,
        description: description.to_owned(),
        target_url: format!("https://ci/{context}"),
    }
}

fn check(name: &str, status: &str, conclusion: &str) -> CheckRun {
    CheckRun {
        name: name.to_owned(),
        status: status.to_owned(),
        conclusion: conclusion.to_owned(),
        app: "github-actions".to_owned(),
    }
}

/// `ci/foreign` failed, `unit` is pending, `lint` is green.
fn head() -> Head {
    Head {
        sha: "a".repeat(40),
        statuses: vec![
            status("unit", StatusState::Pending, "Job triggered."),
            status("lint", StatusState::Success, "Job succeeded."),
            status("ci/foreign", StatusState::Failure, "no"),
        ],
        checks: vec![],
        app: "prow".to_owned(),
    }
}

fn targets(config: &Config) -> Targets<'_> {
    Targets {
        presubmits: config.presubmits("org/repo").collect(),
        required: vec!["cla".to_owned()],
        base_sha: Some(Ok("b".repeat(40))),
        branch: "main".to_owned(),
    }
}

/// Without what every reply ends in, and with `~` for what looks like a space.
fn told(verdict: &Verdict<'_>) -> String {
    let mut lines = Vec::new();
    let text = verdict.decision.to_string().replace('\u{2001}', "~");
    let mut in_details = false;
    for line in text.lines() {
        in_details |= line == "<details>";
        if !in_details {
            lines.push(line.to_owned());
        }
        in_details &= line != "</details>";
    }
    lines.retain(|line| !line.is_empty());
    for (context, description) in &verdict.reverted {
        lines.push(format!("revert {context}: {description}"));
    }
    for (job, description) in &verdict.passed {
        lines.push(format!("store {}: {description}", job.base.name));
    }
    lines.join("\n")
}

fn decided(body: &str, head: Head) -> String {
    let config = config(PRESUBMITS);
    let known = Known {
        head: Ok(head),
        targets: Ok(targets(&config)),
    };
    let comment = comment("boss", body);
    told(&decide(&comment, &asked(body), &known))
}

#[test]
fn plg_override_001_only_new_texts_on_open_pull_requests_concern_it() {
    assert!(crate::testing::concerns(
        &Override,
        &comment_event("a", "/override unit")
    ));
    assert!(!crate::testing::concerns(
        &Override,
        &comment_event("a", "override unit")
    ));
    let trireme_forge::webhook::Event::IssueComment(event) = comment_event("a", "/override unit")
    else {
        unreachable!()
    };
    let concerns = |change: &dyn Fn(&mut trireme_forge::webhook::IssueCommentEvent)| {
        let mut event = event.clone();
        change(&mut event);
        crate::testing::concerns(
            &Override,
            &trireme_forge::webhook::Event::IssueComment(event),
        )
    };
    assert!(concerns(&|_| ()));
    assert!(!concerns(&|event| event.action = "edited".into()));
    assert!(!concerns(&|event| event.issue.is_pull_request = false));
    assert!(!concerns(
        &|event| event.issue.state = trireme_forge::State::Closed
    ));
}

#[test]
fn plg_override_002_who_may_is_told_to_who_may_not() {
    let settings = Settings {
        allow_top_level_owners: true,
        allowed_github_teams: [
            ("org/repo", vec!["leads", "leads2"]),
            ("org", vec!["all"]),
            ("other", vec!["x"]),
        ]
        .map(|(key, teams)| {
            (
                key.to_owned(),
                teams.into_iter().map(str::to_owned).collect(),
            )
        })
        .into(),
    };
    let repo = RepoId::new("org", "repo");
    let who = settings.who_can_use(Some(&repo));
    insta::assert_snapshot!(who, @"Repo administrators, approvers in top level OWNERS file, and the following github teams:org/repo: leads leads2, org: all.");
    insta::assert_snapshot!(settings.who_can_use(None), @"Repo administrators, approvers in top level OWNERS file, and the following github teams:org/repo: leads leads2, org: all, other: x.");
    insta::assert_snapshot!(Settings::default().who_can_use(Some(&repo)), @"Repo administrators.");
    let slugs: Vec<&String> = settings.teams(&repo).collect();
    assert_eq!(slugs, ["leads", "leads2", "all"]);

    let body = "/override unit\n/override-cancel";
    let known = Known {
        head: Err(Denied::Unauthorized("Repo administrators.".to_owned())),
        targets: Ok(Targets::default()),
    };
    let verdict = decide(&comment("eve", body), &asked(body), &known);
    insta::assert_snapshot!(told(&verdict), @r"
    comment: @eve: eve unauthorized: /override-cancel is restricted to Repo administrators.
    comment: @eve: eve unauthorized: /override is restricted to Repo administrators.
    ");
}

#[test]
fn plg_override_003_what_is_unknown_is_told_with_what_is_known() {
    let body = "/override ci/foreign nothing lint";
    let config = config(PRESUBMITS);
    let mut head = head();
    head.checks = vec![
        check("build", "COMPLETED", "FAILURE"),
        check("slow", "IN_PROGRESS", ""),
        check("fine", "COMPLETED", "NEUTRAL"),
    ];
    let known = Known {
        head: Ok(head.clone()),
        targets: Ok(targets(&config)),
    };
    let verdict = decide(&comment("boss", body), &asked(body), &known);
    insta::assert_snapshot!(verdict.decision.to_string(), @r"
    comment: @boss: /override requires failed status contexts, check run or a prowjob name to operate on.
    The following unknown contexts/checkruns were given:
     - `lint`
     - `nothing`

    Only the following failed contexts/checkruns were expected:
     - `build`
     - `ci/foreign`
     - `cla`
     - `unit`

    If you are trying to override a checkrun that has a space in it, you must put a double quote on the context.


    <details>

    In response to [this](https://github.com/org/repo/pull/5#issuecomment-9):

    >/override ci/foreign nothing lint


    Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
    </details>
    ");
    let targets = targets(&config);
    assert!(!all_known(&asked(body), &head, &targets));
    assert!(all_known(&asked("/override unit"), &head, &targets));
    assert!(!all_known(&asked("/override-cancel unit"), &head, &targets));
}

#[test]
fn plg_override_004_of_check_runs_of_one_name_the_best_counts() {
    for (runs, expected) in [
        (vec![("COMPLETED", "FAILURE")], true),
        (vec![("COMPLETED", "SKIPPED")], true),
        (
            vec![("COMPLETED", "FAILURE"), ("COMPLETED", "SUCCESS")],
            false,
        ),
        (
            vec![("COMPLETED", "SUCCESS"), ("COMPLETED", "FAILURE")],
            false,
        ),
        (vec![("COMPLETED", "FAILURE"), ("QUEUED", "")], false),
        (vec![("QUEUED", ""), ("COMPLETED", "FAILURE")], false),
        (
            vec![("COMPLETED", "NEUTRAL"), ("COMPLETED", "ERROR")],
            false,
        ),
        (
            vec![("COMPLETED", "EXPECTED"), ("COMPLETED", "FAILURE")],
            true,
        ),
    ] {
        let mut head = head();
        let of = |(status, conclusion): &(&str, &str)| check("build", status, conclusion);
        head.checks = runs.iter().map(of).collect();
        let done = decided("/override build", head).contains("check run build on");
        assert_eq!(done, expected, "{runs:?}");
    }
}

/// PLG-OVERRIDE-005, PLG-OVERRIDE-006, PLG-OVERRIDE-007
#[test]
fn plg_override_005_contexts_pass_and_their_jobs_are_stored() {
    insta::assert_snapshot!(decided("/override unit ci/foreign", head()), @r"
    status ci/foreign on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: success, Overridden by boss~~~~~~~~~~~~~~~~~~~ BaseSHA:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    if 0 is refused: comment: @boss: Cannot update PR status for context ci/foreign
    if 0 is done: status unit on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: success, Overridden by boss~~~~~~~~~~~~~~~~~~~ BaseSHA:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    if 2 is refused: comment: @boss: Cannot update PR status for context unit
    if 0 is done: comment: @boss: Overrode contexts on behalf of boss: {ci/foreign if 0 is done}, {unit if 2 is done}
    store unit: Overridden by boss
    ");
    // By the name of a job whose context is another.
    let renamed = PRESUBMITS.replace("- name: lint", "- name: lint\n    context: ci/lint");
    let config = config(&renamed);
    let mut failed = head();
    failed.statuses = vec![status("ci/lint", StatusState::Failure, "")];
    let known = Known {
        head: Ok(failed),
        targets: Ok(targets(&config)),
    };
    let verdict = decide(&comment("boss", ""), &asked("/override lint"), &known);
    insta::assert_snapshot!(told(&verdict), @r"
    status ci/lint on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: success, Overridden by boss~~~~~~~~~~~~~~~~~~~ BaseSHA:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    if 0 is refused: comment: @boss: Cannot update PR status for context ci/lint
    if 0 is done: comment: @boss: Overrode contexts on behalf of boss: {ci/lint if 0 is done}
    store lint: Overridden by boss
    ");
    // What only the branch's protection asks for.
    insta::assert_snapshot!(decided("/override cla", head()), @r"
    status cla on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: success, Overridden by boss~~~~~~~~~~~~~~~~~~~ BaseSHA:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    if 0 is refused: comment: @boss: Cannot update PR status for context cla
    if 0 is done: comment: @boss: Overrode contexts on behalf of boss: {cla if 0 is done}
    ");
}

#[test]
fn plg_override_006_sticky_ones_and_check_runs() {
    let mut head = head();
    head.checks = vec![check("test / Unit", "COMPLETED", "FAILURE")];
    let body = "/override-sticky unit \"test / Unit\"\n/override unit";
    insta::assert_snapshot!(decided(body, head), @r"
    status unit on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: success, Overridden by boss [prow:skip-retest]~~~~~~~~~~~~~~ BaseSHA:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    if 0 is refused: comment: @boss: Cannot update PR status for context unit
    if 0 is done: check run test / Unit on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: success, Prow override - test / Unit
    if 2 is refused: comment: @boss: cannot create prow-override CheckRun test / Unit
    if 0 is done: comment: @boss: Overrode contexts on behalf of boss: {test / Unit if 2 is done}, {unit if 0 is done}
    These overrides will persist across retests on the current HEAD SHA. Pushing a new commit will clear them. Use `/override-cancel` to remove them.
    store unit: Overridden by boss [prow:skip-retest]
    ");
}

#[test]
fn plg_override_007_every_failure_has_its_answer() {
    insta::assert_snapshot!(decided("/override", head()), @"comment: @boss: /override requires failed status contexts to operate on, but none was given");
    insta::assert_snapshot!(decided("/override-sticky", head()), @"comment: @boss: /override-sticky requires failed status contexts to operate on, but none was given");
    let body = "/override unit";
    let failed = Known {
        head: Err(Denied::Failed("Cannot get PR #5 in org/repo".to_owned())),
        targets: Ok(Targets::default()),
    };
    insta::assert_snapshot!(told(&decide(&comment("boss", body), &asked(body), &failed)), @"comment: @boss: Cannot get PR #5 in org/repo");
    let config = config(PRESUBMITS);
    let mut no_base = targets(&config);
    no_base.base_sha = Some(Err("Cannot get base ref of PR".to_owned()));
    for targets in [Err("Failed to get presubmits".to_owned()), Ok(no_base)] {
        let answer = match &targets {
            Err(answer) => answer.clone(),
            Ok(_) => "Cannot get base ref of PR".to_owned(),
        };
        let known = Known {
            head: Ok(head()),
            targets,
        };
        let verdict = decide(&comment("boss", body), &asked(body), &known);
        assert_eq!(told(&verdict), format!("comment: @boss: {answer}"));
    }
}

fn overridden() -> Head {
    let mut head = head();
    head.statuses = vec![
        status(
            "unit",
            StatusState::Success,
            "Overridden by boss  BaseSHA:x",
        ),
        status(
            "ci/foreign",
            StatusState::Success,
            "Overridden by eve [prow:skip-retest]",
        ),
        status("lint", StatusState::Success, "Job succeeded."),
    ];
    head
}

#[test]
fn plg_override_008_overrides_are_taken_back() {
    insta::assert_snapshot!(decided("/override-cancel", overridden()), @r"
    status unit on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: failure, Override cancelled by boss
    if 0 is refused: comment: @boss: Cannot update PR status for context unit
    if 0 is done: status ci/foreign on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: failure, Override cancelled by boss
    if 2 is refused: comment: @boss: Cannot update PR status for context ci/foreign
    if 0 is done: comment: @boss: Cancelled overrides on behalf of boss: {ci/foreign if 2 is done}, {unit if 0 is done}
    revert unit: Override cancelled by boss
    revert ci/foreign: Override cancelled by boss
    ");
    let one = decided("/override-cancel unit", overridden());
    assert!(
        one.contains("status unit") && !one.contains("status ci/foreign"),
        "{one}"
    );
    insta::assert_snapshot!(decided("/override-cancel lint", overridden()), @"comment: @boss: No overrides found to cancel");
    insta::assert_snapshot!(decided("/override-cancel", head()), @"comment: @boss: No overrides found to cancel");
}

/// PLG-OVERRIDE-009: what we made to pass as a check run is taken back, what others made is not; and what passed by
/// itself after its override is left alone, as its newest status is no override.
#[test]
fn plg_override_009_only_the_newest_status_counts_and_check_runs_go_back() {
    let mut head = head();
    head.checks = vec![
        check("theirs", "COMPLETED", "SUCCESS"),
        CheckRun {
            app: "prow".to_owned(),
            ..check("ours", "COMPLETED", "SUCCESS")
        },
    ];
    insta::assert_snapshot!(decided("/override-cancel", head), @r"
    check run ours on aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: failure, Prow override cancelled - ours
    if 0 is refused: comment: @boss: cannot create prow-override CheckRun ours
    if 0 is done: comment: @boss: Cancelled overrides on behalf of boss: {ours if 0 is done}
    ");
    // One text may take back and override again.
    let again = decided("/override-cancel unit\n/override unit", overridden());
    assert!(
        again.contains("failure, Override cancelled by boss"),
        "{again}"
    );
    assert!(again.contains("success, Overridden by boss"), "{again}");
    assert!(again.contains("store unit: Overridden by boss"), "{again}");
}
