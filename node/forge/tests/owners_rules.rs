//! The rules of OWNERS, one by one, on small trees (parity OWN-…).

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

use std::collections::BTreeSet;

use trireme_forge::owners::{Draw, LayeredSet, OwnersFile, OwnersOptions, RepoOwners};

fn read(files: &[(&str, &str)], options: &OwnersOptions) -> RepoOwners {
    let files = files.iter().map(|(path, text)| (*path, text.as_bytes()));
    RepoOwners::from_files(files, options)
}

fn owners(files: &[(&str, &str)]) -> RepoOwners {
    read(files, &OwnersOptions::default())
}

/// Layers from the closest on, each in brackets.
fn layers(set: &LayeredSet) -> String {
    let layers = set.layers().iter();
    layers.map(|layer| format!("[{}]", words(layer))).collect()
}

fn words(set: &BTreeSet<String>) -> String {
    set.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn problems(owners: &RepoOwners) -> String {
    let problems = owners.problems().iter();
    problems
        .map(|problem| format!("{}: {}\n", problem.path, problem.message))
        .collect()
}

/// OWN-002
#[test]
fn other_names_replace_both_files() {
    let files = [
        ("OWNERS", "approvers: [old]"),
        ("OWNERS_ALIASES", "aliases: {team: [old]}"),
        ("CODE", "approvers: [team]"),
        ("CODE_TEAMS", "aliases: {team: [new]}"),
        // Aliases are those of the root alone.
        ("sub/CODE_TEAMS", "aliases: {team: [other]}"),
        ("sub/CODE", "reviewers: [team]"),
    ];
    let options = OwnersOptions {
        owners: "CODE".into(),
        aliases: "CODE_TEAMS".into(),
        ..OwnersOptions::default()
    };
    let renamed = read(&files, &options);
    assert_eq!(words(&renamed.all_owners()), "new");
    assert_eq!(words(&renamed.reviewers("sub/x").to_set()), "new");
    assert_eq!(words(&owners(&files).all_owners()), "old");
    assert!(options.is_owners("a/CODE") && !options.is_owners("a/OWNERS"));
    assert!(options.is_aliases("CODE_TEAMS") && !options.is_aliases("sub/CODE_TEAMS"));
    assert!(!options.wants("README.md") && !options.wants("CODEX"));
}

/// OWN-003
#[test]
fn the_simple_form_has_four_lists_and_two_options() {
    let owners = owners(&[
        ("OWNERS", "approvers: [top]\nlabels: [area/top]"),
        (
            "a/OWNERS",
            "approvers: [Ann, '@bob']\nreviewers: [cid]\nrequired_reviewers: [dan]\nlabels: [Kind/A]\n\
             emeritus_approvers: [eve]\nemeritus_reviewers: [fay]\nother: 1\n\
             options: {no_parent_owners: true, auto_approve_unowned_subfolders: true}",
        ),
    ]);
    assert_eq!(words(&owners.leaf_approvers("a/x")), "ann bob");
    assert_eq!(words(&owners.leaf_reviewers("a/x")), "cid");
    assert_eq!(words(&owners.required_reviewers("a/x")), "dan");
    assert_eq!(words(&owners.labels("a/x")), "Kind/A");
    assert!(owners.is_no_parent_owners("a") && owners.is_auto_approve_unowned_subfolders("a"));
    assert!(!owners.is_no_parent_owners(""));
    assert_eq!(problems(&owners), "");
    assert_eq!(words(&owners.all_owners()), "ann bob cid top");
}

/// OWN-004
#[test]
fn filters_count_only_where_the_simple_lists_say_nothing() {
    let both = owners(&[(
        "OWNERS",
        "approvers: [simple]\nfilters: {'.*': {approvers: [filtered]}}",
    )]);
    assert_eq!(words(&both.approvers("x").to_set()), "simple");
    let empty = owners(&[(
        "OWNERS",
        "approvers: []\noptions: {no_parent_owners: true}\nfilters: {'.*': {approvers: [filtered]}}",
    )]);
    assert_eq!(words(&empty.approvers("x").to_set()), "filtered");
    assert!(empty.is_no_parent_owners(""));
    let broken = owners(&[(
        "OWNERS",
        "approvers: 5\nfilters: {'.*': {approvers: [filtered]}}",
    )]);
    assert_eq!(words(&broken.approvers("x").to_set()), "filtered");
}

/// OWN-005
#[test]
fn filters_are_searched_in_paths_seen_from_their_directory() {
    let owners = owners(&[(
        "a/OWNERS",
        r"
filters:
  '.*': {approvers: [all]}
  '^b/': {approvers: [below], labels: [b]}
  '\.go$': {approvers: [gopher], reviewers: [rob]}
  '(': {approvers: [nobody]}
",
    )]);
    let approvers = |path| words(&owners.approvers(path).to_set());
    assert_eq!(approvers("a/x"), "all");
    assert_eq!(approvers("a/b/x"), "all below");
    assert_eq!(approvers("a/b/x.go"), "all below gopher");
    assert_eq!(approvers("b/x.go"), "");
    assert_eq!(owners.find_reviewer_owners_for_file("a/x.go"), "a");
    assert_eq!(owners.find_reviewer_owners_for_file("a/x"), "");
    insta::assert_snapshot!(problems(&owners), @"a/OWNERS: filter \"(\" is ignored: error: unclosed group");
}

/// OWN-006, OWN-021
#[test]
fn a_file_in_neither_form_says_nothing_and_is_told() {
    let owners = owners(&[
        ("OWNERS", "approvers: [top]"),
        ("a/OWNERS", "approvers: [ann\n"),
        ("b/OWNERS", "- ann\n"),
        ("c/OWNERS", "approvers: ann\n"),
        ("d/OWNERS", "approvers: [123]\n"),
        ("e/OWNERS", "\u{1}: x: y\n"),
        ("f/OWNERS", "approvers:\n  - ann\n bob\n"),
        ("OWNERS_ALIASES", "aliases: {team: ann}"),
    ]);
    for dir in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(
            words(&owners.leaf_approvers(&format!("{dir}/x"))),
            "top",
            "{dir}"
        );
    }
    insta::assert_snapshot!(problems(&owners), @r"
    OWNERS_ALIASES: alias group 'team' must contain a list of members
    a/OWNERS: line 1: unclosed bracket '['
    b/OWNERS: the file must be a mapping, not a list
    c/OWNERS: approvers must be a list of names, not a string
    d/OWNERS: approvers must be a list of names, but one is a number: put it in quotes
    e/OWNERS: line 1: unexpected character: `\u{1}'
    f/OWNERS: line 3: while parsing a block mapping, did not find expected key
    ");
}

/// OWN-007
#[test]
fn aliases_are_lists_of_names_whatever_their_brackets() {
    let with = |aliases: &str| {
        owners(&[
            ("OWNERS", "approvers: [Team, lone]\nreviewers: [nobody]"),
            ("OWNERS_ALIASES", aliases),
        ])
    };
    let told = |aliases: &str| {
        let owners = with(aliases);
        format!("{} | {}", words(&owners.all_owners()), problems(&owners))
    };
    assert_eq!(
        told("aliases: {TEAM: [Ann, '@Bob'], nobody: }"),
        "ann bob lone | "
    );
    assert_eq!(
        told("aliases: {team: {ann, bob}, nobody: {}}"),
        "ann bob lone | "
    );
    for bad in [
        "aliases: {team: ann}",
        "aliases: {team: [ann, 5]}",
        "aliases: [team]",
        "aliases: {team: [ann}",
    ] {
        let told = told(bad);
        assert!(
            told.starts_with("lone nobody team | OWNERS_ALIASES: "),
            "{told}"
        );
    }
    insta::assert_snapshot!(told("aliases: {team: [ann], Team: [bob]}"), @"bob lone nobody | OWNERS_ALIASES: group \"Team\" is there twice, with different case");
    insta::assert_snapshot!(problems(&owners(&[("OWNERS", "approvers: [123]")])), @"OWNERS: approvers must be a list of names, but one is a number: put it in quotes");
}

/// OWN-008
#[test]
fn aliases_are_expanded_once() {
    let owners = owners(&[
        (
            "OWNERS",
            "approvers: [OUTER]\nreviewers: [inner]\nrequired_reviewers: [inner]\nlabels: [inner]",
        ),
        (
            "OWNERS_ALIASES",
            "aliases: {outer: [inner, ann], inner: [bob], void: []}",
        ),
        ("v/OWNERS", "approvers: [void]"),
    ]);
    assert_eq!(words(&owners.approvers("x").to_set()), "ann inner");
    assert_eq!(words(&owners.reviewers("x").to_set()), "bob");
    assert_eq!(words(&owners.required_reviewers("x")), "bob");
    assert_eq!(words(&owners.labels("x")), "inner");
    // Nobody at all is no owner.
    assert_eq!(owners.find_approver_owners_for_file("v/x"), "");
    assert_eq!(words(&owners.leaf_approvers("v/x")), "ann inner");
}

/// OWN-009, OWN-010
#[test]
fn denied_directories_say_nothing_with_all_below_them() {
    let file = "approvers: [ann]";
    let files = [
        ("OWNERS", "approvers: [top]"),
        ("_output/OWNERS", file),
        ("x/_output/deep/OWNERS", file),
        ("vendor/OWNERS", "approvers: [vendor]"),
        ("vendor/a/OWNERS", "approvers: [a]"),
        ("vendor/a/b/OWNERS", file),
        ("x_output_y/OWNERS", "approvers: [other]"),
    ];
    assert_eq!(words(&owners(&files).all_owners()), "a other top vendor");
    // Never by where the clone lies: only what is in the repository counts.
    let deny = |patterns: &[&str]| OwnersOptions {
        dir_denylist: patterns.iter().map(|&text| text.to_owned()).collect(),
        ..OwnersOptions::default()
    };
    let bad = read(&files, &deny(&["(", "^vendor"]));
    assert_eq!(words(&bad.all_owners()), "ann other top");
    insta::assert_snapshot!(problems(&bad), @": directory denylist \"(\" is ignored: error: unclosed group");
    assert_eq!(
        words(&read(&files, &deny(&["^/tmp|^/var"])).all_owners()),
        "a ann other top vendor"
    );
    let options = deny(&["^vendor$"]);
    assert!(options.is_denied("vendor/a/b") && options.is_denied("vendor"));
    assert!(!options.is_denied("") && !options.is_denied("x/vendor"));
}

/// OWN-011
#[test]
fn markdown_headers_own_their_file() {
    let files = [
        ("OWNERS", "approvers: [top]"),
        (
            "doc/a.md",
            "---\napprovers: [ann]\nlabels: [doc]\noptions: {no_parent_owners: true}\n---\ntext\n---\nmore",
        ),
        ("doc/b.md", "text\n---\napprovers: [bob]\n---\n"),
        ("doc/c.md", "---\napprovers: [cid\n---\n"),
        (
            "doc/d.md",
            "---\nfilters: {'.*': {approvers: [dan]}}\n---\n",
        ),
        ("doc/e.md", "---\r\napprovers: [eve]\r\n---\r\n"),
    ];
    let options = OwnersOptions {
        md_yaml: true,
        ..OwnersOptions::default()
    };
    let owners_md = read(&files, &options);
    assert_eq!(layers(&owners_md.approvers("doc/a.md")), "[ann]");
    assert_eq!(
        owners_md.find_approver_owners_for_file("doc/a.md"),
        "doc/a.md"
    );
    assert_eq!(words(&owners_md.labels("doc/a.md")), "doc");
    for none in ["doc/b.md", "doc/c.md", "doc/d.md", "doc/e.md", "doc/x"] {
        assert_eq!(words(&owners_md.approvers(none).to_set()), "top", "{none}");
    }
    let told = problems(&owners_md);
    assert!(
        told.starts_with("doc/c.md: ") && told.lines().count() == 1,
        "{told}"
    );
    let plain = owners(&files);
    assert_eq!(words(&plain.approvers("doc/a.md").to_set()), "top");
    assert_eq!(problems(&plain), "");
}

/// OWN-012
#[test]
fn collaborators_filter_approvers_and_reviewers_alone() {
    let owners = owners(&[(
        "OWNERS",
        "approvers: [ann, gone]\nreviewers: [bob, gone]\nrequired_reviewers: [gone]",
    )]);
    let filtered = owners.with_collaborators(&["Ann", "BOB", "other"]);
    assert_eq!(words(&filtered.all_owners()), "ann bob");
    assert_eq!(words(&filtered.required_reviewers("x")), "gone");
    // The list is not part of what is loaded: the next one finds all of them again.
    assert_eq!(words(&owners.all_owners()), "ann bob gone");
}

/// OWN-013
#[test]
fn owners_come_in_layers_the_closest_first() {
    let owners = owners(&[
        ("OWNERS", "approvers: [top, ann]\nreviewers: [rev]"),
        ("a/OWNERS", "approvers: [mid]"),
        ("a/b/OWNERS", "approvers: [ann]"),
        (
            "c/OWNERS",
            "approvers: [cid]\noptions: {no_parent_owners: true}",
        ),
    ]);
    assert_eq!(layers(&owners.approvers("a/b/x")), "[][ann][mid][top]");
    assert_eq!(words(&owners.leaf_approvers("a/b/x")), "ann");
    assert_eq!(words(&owners.leaf_approvers("a/b/none/y")), "ann");
    assert_eq!(layers(&owners.approvers("c/x/y")), "[][][cid]");
}

/// OWN-014
#[test]
fn a_directory_without_parents_falls_through_where_it_has_nothing() {
    let owners = owners(&[
        (
            "OWNERS",
            "approvers: [top]\nreviewers: [rev]\nlabels: [l]\nrequired_reviewers: [req]",
        ),
        (
            "a/OWNERS",
            "options: {no_parent_owners: true}\nfilters: {'\\.go$': {approvers: [gopher], labels: [go]}}",
        ),
    ]);
    assert_eq!(words(&owners.approvers("a/x.go").to_set()), "gopher");
    assert_eq!(words(&owners.approvers("a/x.c").to_set()), "top");
    assert_eq!(words(&owners.reviewers("a/x.go").to_set()), "rev");
    assert_eq!(words(&owners.labels("a/x.go")), "go");
    assert_eq!(words(&owners.labels("a/x.c")), "l");
    assert_eq!(words(&owners.required_reviewers("a/x.go")), "req");
}

/// OWN-015
#[test]
fn the_owning_path_is_the_deepest_that_names_somebody() {
    let owners = owners(&[
        ("OWNERS", "approvers: [top]"),
        ("a/OWNERS", "approvers: [mid]\nreviewers: [rev]"),
        (
            "a/b/OWNERS",
            "reviewers: [deep]\noptions: {no_parent_owners: true}",
        ),
    ]);
    assert_eq!(owners.find_approver_owners_for_file("a/b/c/x"), "a");
    assert_eq!(owners.find_reviewer_owners_for_file("a/b/c/x"), "a/b");
    assert_eq!(owners.find_approver_owners_for_file("x"), "");
    assert_eq!(owners.find_reviewer_owners_for_file("x"), "");
}

/// OWN-016
#[test]
fn the_top_and_all_of_them() {
    let owners = owners(&[
        (
            "OWNERS",
            "filters: {'.*': {approvers: [top]}, '\\.go$': {approvers: [gopher]}}",
        ),
        (
            "a/OWNERS",
            "approvers: [ann]\nreviewers: [rev]\nrequired_reviewers: [req]",
        ),
    ]);
    assert_eq!(words(&owners.top_level_approvers()), "top");
    assert_eq!(words(&owners.all_owners()), "ann gopher rev top");
    assert_eq!(words(&owners.all_approvers()), "ann gopher top");
    assert_eq!(words(&owners.all_reviewers()), "rev");
}

/// OWN-020
#[test]
fn picks_come_from_the_closest_layer_until_it_is_empty() {
    let owners = owners(&[
        ("OWNERS", "reviewers: [far, near]"),
        ("a/OWNERS", "reviewers: [near, next]"),
    ]);
    let mut reviewers = owners
        .reviewers("a/x")
        .difference(&BTreeSet::from(["next".to_owned()]));
    let mut draw = Draw::seeded(7);
    assert_eq!(reviewers.pop_random(&mut draw).as_deref(), Some("near"));
    assert_eq!(reviewers.pop_random(&mut draw).as_deref(), Some("far"));
    assert_eq!(reviewers.pop_random(&mut draw), None);
}

/// One file alone, as a check of changed files reads it.
#[test]
fn a_bad_file_names_the_line() {
    let error = OwnersFile::parse(b"approvers:\n- ann\n- bob\nreviewers: [\n").unwrap_err();
    insta::assert_snapshot!(error, @"line 4: unclosed bracket '['");
    assert_eq!(error.line(), Some(4));
    assert_eq!(OwnersFile::parse(b"approvers: 5").unwrap_err().line(), None);
}
