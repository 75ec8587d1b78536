//! Checks of the components' sections at load (section 4).

use trireme_config::tide::MergeMethod;

use crate::stage::{accepted, errors, judge, judge_main, load};

/// CFG-045.
#[test]
fn cfg_045_more_buckets_need_the_check_of_buckets() {
    let refused = "skip_storage_path_validation is enabled";
    judge_main(&[
        ("deck: {additional_allowed_buckets: [a]}", refused),
        (
            "deck: {additional_allowed_buckets: [a], skip_storage_path_validation: true}",
            refused,
        ),
        (
            "deck: {additional_allowed_buckets: [a], skip_storage_path_validation: false}",
            "",
        ),
        ("deck: {additional_allowed_buckets: []}", ""),
    ]);
}

/// CFG-049, CFG-101: which buckets pages may show.
#[test]
fn cfg_049_buckets_are_checked_where_asked_for() {
    let main = |skip: &str| {
        format!(
            "deck:\n  {skip}\n  spyglass: {{bucket_aliases: {{old: named}}}}\n\
             plank:\n  default_decoration_config_entries:\n  - config:\n      gcs_configuration: {{bucket: 's3://default', path_strategy: explicit}}\n      \
             utility_images: {{clonerefs: c, initupload: i, entrypoint: e, sidecar: s}}\n\
             periodics: [{{name: a, interval: 1h, decorate: true, decoration_config: {{gcs_configuration: {{bucket: of-job}}}}, spec: {{containers: [{{image: i, command: [c]}}]}}}}]\n"
        )
    };
    let open = accepted(&[("config.yaml", &main("tide_update_period: 10s"))]);
    assert!(open.allows_bucket("any"));
    let checked = main("{}").replace(
        "  {}\n",
        "  skip_storage_path_validation: false\n  additional_allowed_buckets: [named]\n",
    );
    let checked = accepted(&[("config.yaml", &checked)]);
    for bucket in ["named", "old", "default", "of-job"] {
        assert!(checked.allows_bucket(bucket), "{bucket}");
    }
    assert!(!checked.allows_bucket("any") && !checked.allows_bucket("s3://default"));
    assert_eq!(
        checked
            .jobs
            .known_buckets
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        ["default", "named", "of-job"]
    );
}

/// CFG-046: channel and template of Slack's entries, and which entry counts.
#[test]
fn cfg_046_slack_entries() {
    judge_main(&[
        (
            "slack_reporter_configs: {'*': {host: h}}",
            "channel must be set",
        ),
        ("slack_reporter_configs: {'*': {channel: c}}", ""),
        (
            "slack_reporter_configs: {a: {channel: c, report_template: '{{.Nope}}'}}",
            "failed to execute report_template",
        ),
        (
            "slack_reporter_configs: {a: {channel: c, report_template: '{{'}}",
            "failed to parse template",
        ),
        (
            "slack_reporter_configs: {a: {channel: c, report_template: '{{.Spec.Refs.Org}}'}}",
            "failed to execute report_template",
        ),
    ]);
    let main =
        "slack_reporter_configs: {'*': {channel: all}, o: {channel: org}, o/r: {channel: repo}}";
    let config = accepted(&[("config.yaml", main)]);
    let channel = |org: &str, repo: &str| {
        let refs = trireme_prowjob::Refs {
            org: org.to_owned(),
            repo: repo.to_owned(),
            ..Default::default()
        };
        config
            .prow
            .slack_reporter(Some(&refs))
            .unwrap()
            .channel
            .clone()
    };
    assert_eq!(
        [channel("o", "r"), channel("o", "x"), channel("x", "r")],
        ["repo", "org", "all"]
    );
    let general = config.prow.slack_reporter(None).unwrap();
    assert_eq!(general.channel, "all");
    insta::assert_snapshot!(general.report_template, @"Job {{.Spec.Job}} of type {{.Spec.Type}} ended with state {{.Status.State}}. <{{.Status.URL}}|View logs>");
}

/// CFG-047, CFG-048: Gangway's clients and Jenkins' operators; moonraker and tekton's section are read.
#[test]
fn cfg_047_gangway_and_others_are_validated() {
    let client = |fields: &str| format!("gangway: {{allowed_api_clients: [{fields}]}}");
    let gcp = "gcp: {endpoint_api_consumer_type: PROJECT, endpoint_api_consumer_number: '12'}";
    let good = format!("{{{gcp}, allowed_jobs_filters: [{{tenant_id: t}}]}}");
    let cases = [
        (client("{}"), "cloud vendor"),
        (
            client("{gcp: {endpoint_api_consumer_type: USER}}"),
            "unsupported GCP API consumer type",
        ),
        (
            client(
                "{gcp: {endpoint_api_consumer_type: PROJECT, endpoint_api_consumer_number: 'x1'}}",
            ),
            "invalid EndpointApiConsumerNumber",
        ),
        (
            client(
                "{gcp: {endpoint_api_consumer_type: PROJECT, endpoint_api_consumer_number: ''}}",
            ),
            "invalid EndpointApiConsumerNumber",
        ),
        (
            client(&format!("{{{gcp}}}")),
            "allowed_jobs_filters field cannot be empty",
        ),
        (
            client(&format!("{{{gcp}, allowed_jobs_filters: [{{}}]}}")),
            "empty tenant_id",
        ),
        (
            client(&format!("{good}, {good}")),
            "declared multiple times",
        ),
        (client(&good), ""),
        (
            "jenkins_operators: [{}, {label_selector: a=b}]".into(),
            "selector overlap",
        ),
        (
            "jenkins_operators: [{label_selector: a=b}]".into(),
            "label_selector is invalid when used for a single",
        ),
        (
            "jenkins_operators: [{label_selector: 'a=='}, {label_selector: '!'}]".into(),
            "invalid jenkins_operators.label_selector",
        ),
        (
            "jenkins_operators: [{job_url_template: '{{replace \"a\" \"b\" .Spec.Job}}'}]".into(),
            "",
        ),
        (
            "plank: {job_url_template: '{{replace \"a\" \"b\" .Spec.Job}}'}".into(),
            "function \"replace\" not defined",
        ),
        (
            "moonraker: {client_timeout: 1m}\npipeline: {allow_concurrent_postsubmit_jobs: true}"
                .into(),
            "",
        ),
        (
            "moonraker: {client_timeout: 1}".into(),
            "cannot use a number as a duration",
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(text, expected)| (text.as_str(), *expected))
        .collect();
    judge_main(&cases);
    assert_eq!(
        accepted(&[])
            .prow
            .moonraker
            .client_timeout
            .unwrap()
            .to_string(),
        "10m0s"
    );
}

/// CFG-050: Tide's links, numbers and periods.
#[test]
fn cfg_050_tide_section() {
    judge_main(&[
        (
            "tide: {target_url: a, target_urls: {'*': b}}",
            "mutually exclusive",
        ),
        (
            "tide: {pr_status_base_url: a, pr_status_base_urls: {'*': b}}",
            "both pr_status_base_url and pr_status_base_urls",
        ),
        (
            "tide: {pr_status_base_urls: {o: b}}",
            "the default value ('*') is missing",
        ),
        (
            "tide: {max_goroutines: -1}",
            "needs to be a positive number",
        ),
        ("tide: {max_goroutines: 0}", ""),
    ]);
    let tide = &accepted(&[(
        "config.yaml",
        "tide: {target_url: a, pr_status_base_url: b, sync_period: 5m, gerrit: {}}",
    )])
    .prow
    .tide;
    assert_eq!(
        (tide.target_url("x", "y"), tide.pr_status_base_url("x", "y")),
        ("a", "b")
    );
    assert_eq!(
        (
            tide.max_goroutines,
            tide.gerrit.as_ref().unwrap().rate_limit
        ),
        (20, 5)
    );
    assert_eq!(tide.status_update_period.unwrap().to_string(), "5m0s");
}

/// CFG-051: merge methods, nested and flat.
#[test]
fn cfg_051_merge_methods() {
    judge_main(&[
        (
            "tide: {merge_method: {o: fast}}",
            "merge type \"fast\" for o is not a valid type",
        ),
        (
            "tide: {merge_method: {o: {r: fast}}}",
            "for o/r is not a valid type",
        ),
        (
            "tide: {merge_method: {o: {r: {main: ''}}}}",
            "for o/r@main is not a valid type",
        ),
        (
            "tide: {merge_method: {o: {r: {'[': squash}}}}",
            "regex \"[\" is not valid",
        ),
    ]);
    let main = "tide: {merge_method: {o: {r: {'release-.*': rebase}, '*': squash}, p: rebase, p/r: squash, p/r@main: merge}}";
    let tide = &accepted(&[("config.yaml", main)]).prow.tide;
    for (org, repo, branch, method) in [
        ("o", "r", "release-1", MergeMethod::Rebase),
        ("o", "r", "main", MergeMethod::Merge),
        ("o", "x", "main", MergeMethod::Squash),
        ("p", "x", "main", MergeMethod::Rebase),
        ("p", "r", "dev", MergeMethod::Squash),
        ("p", "r", "main", MergeMethod::Merge),
        ("q", "r", "main", MergeMethod::Merge),
    ] {
        assert_eq!(
            tide.merge_method(org, repo, branch),
            method,
            "{org}/{repo}@{branch}"
        );
    }
}

/// CFG-052: queries.
#[test]
fn cfg_052_queries_are_checked() {
    let cases = [
        ("orgs: ['']", "orgs[0]: is an empty string"),
        ("orgs: [a/b]", "contains a '/'"),
        ("repos: [a]", "is not of the form"),
        ("repos: [a/b/c]", "is not of the form"),
        ("orgs: [a], repos: [a/b]", "is already included via org"),
        ("labels: [a]", "cannot both be empty"),
        (
            "orgs: [a], excludedRepos: [b/c]",
            "has no effect because org \"b\" is not included",
        ),
        ("orgs: [a, a]", "contains 1 duplicate entries: a"),
        (
            "orgs: [a], labels: [x, x]",
            "\"labels\" contains 1 duplicate",
        ),
        (
            "orgs: [a], missingLabels: [x, x]",
            "\"missingLabels\" contains 1 duplicate",
        ),
        (
            "orgs: [a], includedBranches: [x, x]",
            "\"includedBranches\" contains 1 duplicate",
        ),
        (
            "orgs: [a], labels: [x], missingLabels: [x]",
            "both required and forbidden",
        ),
        (
            "orgs: [a], includedBranches: [x], excludedBranches: [z]",
            "both 'includedBranches' and 'excludedBranches'",
        ),
        (
            "orgs: [a], repos: [b/c], excludedRepos: [a/d], labels: ['x,y'], missingLabels: [x]",
            "",
        ),
    ];
    judge(&cases, |query| {
        let main = format!("tide: {{queries: [{{{query}}}]}}");
        let found = errors(&[("config.yaml", &main)]);
        assert!(
            found
                .iter()
                .all(|e| e.starts_with("tide query (index 0) is invalid: ")),
            "{found:?}"
        );
        found
    });
}

/// CFG-053: queries that ask for the same become one.
#[test]
fn cfg_053_equal_queries_are_folded() {
    let main = "tide: {queries: [{repos: [z/z], labels: [b, a]}, {orgs: [o], labels: [c]}, {repos: [a/a], labels: [a, b], excludedRepos: []}]}";
    let queries = &accepted(&[("config.yaml", main)]).prow.tide.queries;
    let found: Vec<_> = queries
        .iter()
        .map(|q| format!("{:?} {:?} {:?}", q.labels, q.orgs, q.repos))
        .collect();
    assert_eq!(
        found,
        [r#"["a", "b"] [] ["z/z", "a/a"]"#, r#"["c"] ["o"] []"#]
    );
    // Queries of different tenants are kept apart.
    let main = format!("{main}\nprowjob_default_entries: [{{repo: z, config: {{tenant_id: t}}}}]");
    assert_eq!(
        accepted(&[("config.yaml", &main)]).prow.tide.queries.len(),
        3
    );
}

/// CFG-054, CFG-055.
#[test]
fn cfg_054_cfg_055_words_and_templates_and_branch_protection() {
    judge_main(&[
        (
            "tide: {github_merge_blocks_policy: {'*': maybe}}",
            "must be one of: ignore, permit, block",
        ),
        (
            "tide: {github_merge_blocks_policy: {'*': ignore, o: permit, o/r: block}}",
            "",
        ),
        (
            "tide: {merge_commit_template: {o: {title: '{{'}}}",
            "parsing template for commit title",
        ),
        (
            "tide: {merge_commit_template: {o: {body: '{{end}}'}}}",
            "parsing template for commit body",
        ),
        (
            "tide: {merge_commit_template: {o/r: {title: '{{.Title}}', body: '{{.Body}}'}}}",
            "",
        ),
        (
            "branch-protection: {include: [a], exclude: [b]}",
            "Forbidden to set both Policy.Include and Policy.Exclude",
        ),
        (
            "branch-protection: {orgs: {o: {include: [a], exclude: [b]}}}",
            "",
        ),
    ]);
}

/// CFG-035, CFG-036: other values that are refused, and those that get a default.
#[test]
fn cfg_035_cfg_036_checks_and_defaults_of_sections() {
    judge_main(&[
        ("log_level: loud", "not a valid logrus Level"),
        ("log_level: WARNING", ""),
        (
            "github_reporter: {job_types_to_report: [batch]}",
            "invalid job_types_to_report: batch",
        ),
        (
            "pubsub_subscriptions: {p: [t]}\npubsub_triggers: [{project: p}]",
            "mutually exclusive",
        ),
        (
            "github: {link_url: '::bad'}",
            "unable to parse github.link_url",
        ),
        (
            "managed_webhooks: {org_repo_config: {a: {token_created_after: '2999-01-01T00:00:00Z'}}}",
            "can be no later than current time",
        ),
        (
            "managed_webhooks: {org_repo_config: {a: {token_created_after: yesterday}}}",
            "an instant",
        ),
        (
            "gerrit: {allowed_presubmit_trigger_re: '['}",
            "failed to compile regex for allowed presubmit triggers",
        ),
        (
            "gerrit: {deck_url: '%zz'}",
            "invalid value for gerrit.deck_url",
        ),
        ("plank: {max_concurrency: -1}", "non-negative"),
        ("plank: {max_goroutines: -1}", "positive"),
        (
            "plank: {report_template: a, report_templates: {'*': b}}",
            "both report_template and report_templates are specified",
        ),
        (
            "plank: {job_url_prefix_config: {'*': '%zz'}}",
            "invalid value for Planks job_url_prefix_config[\"*\"]",
        ),
        ("deck: {spyglass: {size_limit: -1}}", "size_limit"),
        (
            "deck: {spyglass: {lenses: [{required_files: ['['], lens: {name: a}}]}}",
            "cannot compile regexp",
        ),
        (
            "deck: {spyglass: {gcs_browser_prefix: a, gcs_browser_prefixes: {'*': b}}}",
            "both gcs_browser_prefix and gcs_browser_prefixes['*']",
        ),
        (
            "deck: {spyglass: {gcs_browser_prefix: a, gcs_browser_prefixes_by_bucket: {'*': b}}}",
            "gcs_browser_prefixes_by_bucket['*']",
        ),
        (
            "deck: {external_agent_logs: [{agent: x, url_template: '{{'}]}",
            "parsing template for agent",
        ),
        (
            "deck: {external_agent_logs: [{agent: x, selector: 'a==b==c', url_template: a}]}",
            "error parsing selector",
        ),
    ]);
    let main = "pubsub_subscriptions: {p: [t]}\nplank: {report_template: x, job_queue_capacities: {q: 0}}\nsinker: {max_pod_age: 3h}\ndeck: {spyglass: {gcs_browser_prefix: g}}";
    let prow = &accepted(&[("config.yaml", main)]).prow;
    let trigger = &prow.pubsub_triggers.as_ref().unwrap()[0];
    assert_eq!(
        (trigger.project.as_str(), trigger.max_outstanding_messages),
        ("p", 10)
    );
    assert_eq!(
        trigger.allowed_clusters.as_deref(),
        Some(&["*".to_owned()][..])
    );
    assert_eq!(
        prow.plank.controller.report_template_for(Some(("o", "r"))),
        Some("x")
    );
    assert_eq!(
        prow.sinker.terminated_pod_ttl.unwrap().to_string(),
        "3h0m0s"
    );
    assert_eq!(
        prow.deck.spyglass.gcs_browser_prefix_for("o", "r", "b"),
        "g"
    );
    // CFG-016: problems of sections are told together.
    assert_eq!(
        load(&[(
            "config.yaml",
            "log_level: loud\nplank: {max_concurrency: -1}\n"
        )])
        .errors
        .len(),
        2
    );
}
