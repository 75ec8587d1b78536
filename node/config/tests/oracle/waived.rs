//! Where these tests do not ask for upstream's answer to the letter, and why. Everything else is compared, field by field.

/// Upstream refuses them, so that it has no answers beyond the verdict; each has a twin that it accepts.
pub(crate) const REFUSED_INSTANCES: [&str; 3] = ["tidb-ci", "eks-distro", "eks-anywhere"];

/// Texts of errors that Go's libraries write (YAML and JSON decoding, regexes, templates, media types, a panic) are not
/// repeated here; that the same configuration is refused is.
pub(crate) const OWN_TEXTS: [&str; 6] = [
    "error unmarshalling",
    "template",
    "mime:",
    "panic loading config",
    "Diff:",
    "token_created_after",
];

/// An older library's zero time, which newer versions of upstream leave out as this system does.
pub(crate) const ZERO_TIME: &str = "creationTimestamp";

/// Upstream asks a plugin file for its reach after defaulting, which always sets something for all.
pub(crate) const SCOPE_OF_DEFAULTED_PLUGINS: bool = true;

/// What plugins read from sections of their own: the sections are compared as they were written, and the answers belong to
/// the tests of the plugins.
pub(crate) const ANSWERS_OF_PLUGINS: [&str; 3] = ["dco", "invalid_commit_msg", "restricted_labels"];

/// What plugins set in their own sections where the file leaves it out: section, field, value.
pub(crate) fn defaults_of_plugins() -> Vec<(&'static str, &'static str, serde_json::Value)> {
    use serde_json::json;
    let releases = "^release-.*$";
    let not_approved = "This PR is not for the master branch but does not have the `cherry-pick-approved`  label. Adding \
                        the `do-not-merge/cherry-pick-not-approved`  label.";
    let groups = r"(?m)@kubernetes/sig-([\w-]*)-(misc|test-failures|bugs|feature-requests|proposals|pr-reviews|api-reviews)";
    let guides = "https://git.k8s.io/community/contributors/guide";
    let mut all = vec![
        ("blunderbuss", "request_count", json!(2)),
        ("cherry_pick_approved", "branchregexp", json!(releases)),
        ("cherry_pick_unapproved", "branchregexp", json!(releases)),
        ("cherry_pick_unapproved", "comment", json!(not_approved)),
        ("config_updater", "clusters", json!({"default": [""]})),
        ("config_updater", "gzip", json!(false)),
        (
            "config_updater",
            "maps",
            json!({
                "config/prow/config.yaml": {"name": "config", "clusters": {"default": [""]}},
                "config/prow/plugins.yaml": {"name": "plugins", "clusters": {"default": [""]}},
            }),
        ),
        (
            "help",
            "help_guidelines_url",
            json!(format!("{guides}/help-wanted.md")),
        ),
        (
            "release_note",
            "guidelines_url",
            json!(format!("{guides}/release-notes.md")),
        ),
        ("require_matching_label", "grace_period", json!("5s")),
        ("rifle", "request_count", json!(2)),
        ("sigmention", "regexp", json!(groups)),
    ];
    all.extend(["s", "m", "l", "xl", "xxl"].map(|field| ("size", field, json!(0))));
    all
}

/// A field of plugin sections that upstream no longer reads, and so loses; sections stay here as they were written.
pub(crate) const FORMER_FIELDS_OF_PLUGINS: &[&str] = &["namespace"];

/// Configurations of which more is told than upstream tells, because later phases are looked at as well (CFG-016).
pub(crate) const MORE_ERRORS: [&str; 5] = [
    "trigger-only",
    "name-with-dot-trigger",
    // Each wrong value of a file, where Go's decoder tells one kind of them.
    "label-bool",
    "int-arg",
    "sup-scalar-conversion",
];

/// Pod specs keep what upstream's types do not know and so lose (JOB-077): such fields of the made-up configurations.
pub(crate) const UNKNOWN_IN_PODS: &[&str] = &["comand"];

type Correct = fn(&mut serde_json::Value);

/// Results that differ on purpose: configuration, part, and what is expected instead.
pub(crate) const OWN_RESULTS: [(&str, &str, Correct); 2] = [
    // No jobs are no jobs, with a list or without.
    ("repo-key-null", "presubmits", |expected| {
        *expected = serde_json::json!({"org/repo": []});
    }),
    // Upstream renames old viewers in the map, and forgets the lenses that it made of them (CFG-036).
    ("spyglass-viewers", "prow_config", |expected| {
        for lens in expected["deck"]["spyglass"]["lenses"]
            .as_array_mut()
            .unwrap()
        {
            let name = &mut lens["lens"]["name"];
            let new = match name.as_str().unwrap() {
                "build-log-viewer" => "buildlog",
                "metadata-viewer" => "metadata",
                "junit-viewer" => "junit",
                other => other,
            };
            *name = new.into();
        }
    }),
];

/// Upstream writes a retry's interval over the interval of the job itself (JOB-022); here both are kept (JOB-023).
pub(crate) fn is_overwritten_by_retry(job: &serde_json::Value, field: &str) -> bool {
    field == "interval_ns" && job.get("retry").is_some()
}
