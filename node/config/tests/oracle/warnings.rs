//! checkconfig's warnings about jobs, counted in the real configurations: from what upstream made of their jobs, and as
//! this crate finds them.

use serde_json::Value;
use trireme_config::LoadOptions;
use trireme_config::Rule;
use trireme_config::check::{self, CheckOptions, Enabled, Warning};

use crate::answers::{instance, lines};

const INSTANCES: [&str; 8] = [
    "kubernetes",
    "istio-gcp",
    "istio-aws",
    "knative",
    "kyma",
    "metal3",
    "oss-test-infra",
    "kubesphere",
];

fn text<'v>(job: &'v Value, field: &str) -> &'v str {
    job.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// CFG-115, against upstream's own jobs.
#[test]
fn cfg_115_jobs_are_warned_of_as_often_as_upstream_has_such_jobs() {
    for name in INSTANCES {
        let Some(rows) = lines(&format!("jobs-{name}.jsonl.gz")) else {
            return;
        };
        let Some(files) = instance(name) else {
            return;
        };
        let jobs = || {
            rows.iter()
                .map(|row| (row["type"].as_str().unwrap_or_default(), &row["job"]))
        };
        let on_kubernetes = |job: &&Value| text(job, "agent") == "kubernetes";
        let expected = [
            (
                Warning::LongJobNames,
                jobs()
                    .map(|(_, job)| job)
                    .filter(on_kubernetes)
                    .filter(|job| text(job, "name").len() > 63)
                    .count(),
            ),
            (
                Warning::NonDecoratedJobs,
                jobs()
                    .map(|(_, job)| job)
                    .filter(on_kubernetes)
                    .filter(|job| job["decorate"] != Value::Bool(true))
                    .count(),
            ),
            (
                Warning::PeriodicDefaultCloneConfig,
                jobs()
                    .filter(|(kind, job)| {
                        let of_clone = ["clone_depth", "clone_uri", "path_alias"];
                        *kind == "periodic"
                            && of_clone.iter().any(|field| job.get(*field).is_some())
                    })
                    .count(),
            ),
        ];
        let loaded = check::load(&files, LoadOptions::default());
        let options = CheckOptions {
            enabled: Enabled::new(&[], &[], false, false, false).unwrap(),
            ..CheckOptions::default()
        };
        let report = check::check(&files, &loaded, &options);
        for (warning, count) in expected {
            let found = report
                .warnings
                .iter()
                .filter(|found| found.rule == Rule::Warning(warning));
            assert_eq!(found.count(), count, "{name}: {}", warning.name());
        }
        // A finding about a job says where.
        let placed =
            |finding: &&trireme_config::Diagnostic| finding.line == 0 && !finding.field.is_empty();
        let lost: Vec<_> = report.warnings.iter().filter(placed).take(3).collect();
        assert!(lost.is_empty(), "{name}: {lost:#?}");
    }
}
