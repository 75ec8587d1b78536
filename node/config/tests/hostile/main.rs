//! Files made to hurt: each is refused, or read, within a bound that its error names, and in a time that does not grow with
//! the square of its size. The limit of time is far above what any of them takes, and far below what a square would.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

mod together;

use std::io::Write as _;
use std::time::{Duration, Instant};

use trireme_config::{
    Config, CronSchedule, FileSet, GoRegex, Layout, LoadOptions, Loaded, Template, yaml,
};
use trireme_prowjob::{GoDuration, ProwJob};

/// In a build without optimisation, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs each case against the clock; an answer begins with what is expected.
fn run<T>(cases: Vec<(&str, T, &str)>, answer: impl Fn(T) -> String) {
    let mut wrong = Vec::new();
    for (name, input, expected) in cases {
        let started = Instant::now();
        let found = answer(input);
        let took = started.elapsed();
        println!("{name}: {took:?}");
        if !found.contains(expected) {
            let found: String = found.chars().take(300).collect();
            wrong.push(format!("{name}: expected {expected:?}, got {found:?}"));
        }
        if took > LIMIT {
            wrong.push(format!("{name}: took {took:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

/// Aliases of aliases: `width` to the power of `levels` texts.
fn bomb(levels: usize, width: usize) -> String {
    let first = format!("a0: &a0 [{}]\n", vec!["x"; width].join(", "));
    let next = |n: usize| {
        let of = vec![format!("*a{}", n - 1); width].join(", ");
        format!("a{n}: &a{n} [{of}]\n")
    };
    first + &(1..levels).map(next).collect::<String>()
}

/// Lists in lists, each with the one before it at its bottom.
fn chain(links: usize) -> String {
    let link = |n: usize| {
        let inner = match n {
            0 => "x".to_owned(),
            n => format!("*a{}", n - 1),
        };
        format!("- &a{n} {}{inner}{}\n", "[".repeat(90), "]".repeat(90))
    };
    (0..links).map(link).collect()
}

/// CFG-020: nesting, aliases, wide collections, long lines, big scalars.
#[test]
fn cfg_020_documents_are_bounded() {
    const N: usize = 100_000;
    const MIB: usize = 1 << 20;
    const DEEP: &str = "recursion limit exceeded";
    const LEVELS: &str = "nested deeper than 200 levels";
    const ALIASES: &str = "excessive aliasing";
    const TEXTS: &str = "the texts expand to more than 268435456 bytes";
    let merged = lines(1000, |n| format!("  k{n}: 1\n"));
    let unindented = lines(N, |n| format!("k{n}:\n  b: \"x\ny\"\n"));
    let one_unindented = format!("k:\n  b: \"{}\"\n", "y\n".repeat(MIB));
    let unindented_list = format!("k:\n  b: [\n{}]\n", "y,\n".repeat(N));
    let cases = vec![
        ("keys", lines(N, |n| format!("k{n}: 1\n")), "ok"),
        ("one key", "k: 1\n".repeat(N), "ok"),
        ("anchors", lines(N, |n| format!("- &a{n} x\n")), "ok"),
        (
            "aliases",
            lines(N, |n| format!("- &a{n} x\n- *a{n}\n")),
            "ok",
        ),
        ("open lists", "[".repeat(MIB), DEEP),
        ("open maps", "{".repeat(MIB), DEEP),
        (
            "lists in lists",
            "[".repeat(MIB / 2) + &"]".repeat(MIB / 2),
            DEEP,
        ),
        ("items in items", "- ".repeat(MIB / 2), LEVELS),
        ("keys of keys", "? ".repeat(MIB / 2), LEVELS),
        ("a chain of aliases", chain(60), LEVELS),
        ("a wide list", format!("[{}]", "1,".repeat(N)), "ok"),
        (
            "too wide a list",
            format!("[{}]", "1,".repeat(2_100_000)),
            "more than 2000000 values in one document",
        ),
        (
            "a wide map",
            format!("{{{}}}", lines(N, |n| format!("k{n}: 1,"))),
            "ok",
        ),
        ("escapes", lines(N, |_| "- \"\\ud7ffa\"\n".to_owned()), "ok"),
        (
            "escapes after others",
            lines(N, |_| "- \"é\\ud7ffa\"\n".to_owned()),
            "ok",
        ),
        (
            "half a pair",
            lines(N, |_| "- \"é\\ud7ff\"\n".to_owned()) + "- \"\\ud800\"",
            "line 100001: while parsing a quoted scalar, found high surrogate without",
        ),
        (
            "a plain scalar",
            format!("a: {}", "x".repeat(8 * MIB)),
            "ok",
        ),
        (
            "a quoted scalar",
            format!("a: \"{}\"", "x".repeat(8 * MIB)),
            "ok",
        ),
        ("a block", format!("a: |\n{}", "  x\n".repeat(MIB)), "ok"),
        (
            "a folded block",
            format!("a: >\n{}", "  x\n\n".repeat(MIB / 2)),
            "ok",
        ),
        ("a comment", format!("a: 1 # {}", "x".repeat(8 * MIB)), "ok"),
        (
            "empty lines",
            format!("a: 1\n{}", "\n".repeat(4 * MIB)),
            "ok",
        ),
        ("blanks", format!("{}a: 1", " ".repeat(4 * MIB)), "ok"),
        (
            "no end of keys",
            format!("[{}", "a ".repeat(MIB)),
            "unclosed bracket '['",
        ),
        (
            "merges",
            format!("d: &d\n{merged}e:\n{}", "  <<: *d\n".repeat(900)),
            ALIASES,
        ),
        (
            "a list of merges",
            format!("d: &d\n{merged}e:\n  <<: [{}]", "*d,".repeat(900)),
            ALIASES,
        ),
        (
            "merges of long keys",
            format!(
                "d: &d\n{}e:\n{}",
                lines(100, |n| format!("  {}{n}: 1\n", "k".repeat(1000))),
                "- <<: *d\n".repeat(4000)
            ),
            TEXTS,
        ),
        (
            "merges in very many maps",
            format!("d: &d\n{merged}e:\n{}", "- <<: *d\n".repeat(N)),
            "more than 2000000 values are merged into others",
        ),
        (
            "a long text in very many places",
            format!("a: &a {}\nb:\n{}", "x".repeat(MIB), "- *a\n".repeat(N)),
            TEXTS,
        ),
        (
            "a chain of merges",
            "a0: &a0 {k: 1}\n".to_owned()
                + &lines(3000, |n| {
                    format!("a{}: &a{0} {{<<: *a{n}, k{n}: 1}}\n", n + 1)
                }),
            LEVELS,
        ),
        ("a bomb", bomb(9, 10), ALIASES),
        ("a flat bomb", bomb(2, 600), ALIASES),
        ("a long bomb", bomb(64, 2), ALIASES),
        (
            "an alias in itself",
            "a: &a [*a]".to_owned(),
            "anchor value contains itself",
        ),
        (
            "a long key",
            format!("? {}\n: 1", "x".repeat(MIB)),
            "a key of 1048576 bytes is longer than 4096",
        ),
        ("tags", "- !!str 1\n".repeat(N), "ok"),
        (
            "directives",
            lines(N, |n| format!("%TAG !t{n}! tag:x\n")) + "---\na: 1\n",
            "ok",
        ),
        ("documents", "---\na: 1\n".repeat(N), "ok"),
        ("lines that need indentation", unindented, "ok"),
        ("one scalar that needs indentation", one_unindented, "ok"),
        ("one list that needs indentation", unindented_list, "ok"),
    ];
    run(cases, |text| match yaml::parse(text.as_bytes()) {
        Ok(_) => "ok".to_owned(),
        Err(e) => e.to_string(),
    });
}

fn load(main: &[u8], jobs: &[u8]) -> Loaded {
    let mut files = FileSet::new(Layout {
        config: "config.yaml".to_owned(),
        jobs: Some("jobs".to_owned()),
        ..Layout::default()
    });
    files.insert("config.yaml", main);
    files.insert("jobs/a.yaml", jobs);
    Config::load(&files, LoadOptions::default())
}

fn told(loaded: &Loaded) -> String {
    let all: Vec<_> = (loaded.errors.iter())
        .chain(&loaded.warnings)
        .map(ToString::to_string)
        .collect();
    if all.is_empty() {
        return "ok".to_owned();
    }
    assert!(all.len() <= 3000, "{} findings", all.len());
    assert!(all.iter().all(|e| e.len() < 4000), "a very long finding");
    all.join("\n")
}

const POD: &str = "spec: {containers: [{image: x}]}";

/// CFG-016: what is told of a configuration is bounded, whatever is in it.
#[test]
fn cfg_016_findings_are_bounded() {
    let long = "k".repeat(4000);
    let rest = |what: &str| format!("more than 1000 {what} in this file; the rest is not told");
    let (errors, warnings) = (rest("errors"), rest("warnings"));
    let presubmits = |job: &dyn Fn(usize) -> String, n| {
        (
            String::new(),
            format!("presubmits:\n  a/b:\n{}", lines(n, job)),
        )
    };
    let cases = vec![
        (
            "unknown keys",
            (lines(20_000, |n| format!("k{n}: 1\n")), String::new()),
            warnings.as_str(),
        ),
        (
            "wrong types",
            (
                String::new(),
                format!(
                    "periodics:\n{}",
                    "- {name: [], interval: {}}\n".repeat(20_000)
                ),
            ),
            &errors,
        ),
        (
            "long keys",
            (
                String::new(),
                format!(
                    "presubmits:\n  ? {long}\n  :\n{}",
                    lines(5_000, |n| format!(
                        "  - {{name: j{n}, {long}x: 1, {POD}}}\n"
                    )
                    .replace(&long, "kkk"))
                ),
            ),
            "kkk…",
        ),
        (
            "doubled keys",
            ("prow_ignored: {}\n".repeat(20_000), String::new()),
            "more than 1000 doubled keys in this file; the rest is not told",
        ),
        (
            "jobs that are wrong",
            presubmits(&|n| format!("  - {{name: j {n}, {POD}}}\n"), 2_000),
            "more than 1000 errors in the jobs of this file; the rest is not told",
        ),
        (
            "very many jobs of few bytes",
            (
                String::new(),
                format!("periodics:\n{}", "- {}\n".repeat(150_000)),
            ),
            "150000 jobs are more than the 100000 that a file may have; split it",
        ),
        (
            "jobs of one context",
            presubmits(
                &|n| format!("  - {{name: j{n}, context: c, {POD}}}\n"),
                3_000,
            ),
            "more than 1000 jobs report",
        ),
        (
            "jobs of one name",
            presubmits(&|_| format!("  - {{name: j, {POD}}}\n"), 3_000),
            "duplicated presubmit jobs",
        ),
    ];
    run(cases, |(main, jobs)| {
        told(&load(main.as_bytes(), jobs.as_bytes()))
    });
}

/// Whole configurations that are large in one direction.
#[test]
fn cfg_014_large_configurations_take_no_square_of_time() {
    let one = format!("periodics:\n- name: x\n  interval: 1h\n  {POD}\n");
    let periodic = |env: String| {
        format!(
            "periodics:\n- name: x\n  interval: 1h\n  spec:\n    containers:\n    - image: x\n{env}"
        )
    };
    let list = |prefix: &str, n| lines(n, |n| format!("{prefix}{n}, "));
    let query = format!(
        "tide:\n  queries:\n  - repos: [{}]\n    labels: [{}]\n    missingLabels: [{}]\n    orgs: [{}]\n",
        list("a/b", 20_000),
        list("l", 20_000),
        list("m", 20_000),
        list("o", 20_000)
    );
    let presets = |what: &str, item: &str| {
        (
            format!(
                "presets:\n- {what}:\n{}",
                lines(20_000, |n| format!("  - {{{item}: E{n}}}\n"))
            ),
            one.clone(),
        )
    };
    let cases = vec![
        (
            "jobs of a repository",
            (
                String::new(),
                format!(
                    "presubmits:\n  a/b:\n{}",
                    lines(10_000, |n| format!("  - {{name: j{n}, {POD}}}\n"))
                ),
            ),
            "ok",
        ),
        (
            "repositories",
            (
                String::new(),
                format!(
                    "postsubmits:\n{}",
                    lines(20_000, |n| format!("  a/b{n}: [{{name: j, {POD}}}]\n"))
                ),
            ),
            "ok",
        ),
        (
            "periodics",
            (
                String::new(),
                format!(
                    "periodics:\n{}",
                    lines(10_000, |n| format!(
                        "- {{name: j{n}, interval: 1h, {POD}}}\n"
                    ))
                ),
            ),
            "ok",
        ),
        (
            "environment",
            (
                String::new(),
                periodic(format!(
                    "      env:\n{}",
                    lines(20_000, |n| format!("      - {{name: E{n}}}\n"))
                )),
            ),
            "ok",
        ),
        (
            "small quantities",
            (
                String::new(),
                "periodics:\n".to_owned()
                    + &lines(200, |n| {
                        let limits = "resources: {limits: {cpu: '1e-2147483000'}}";
                        let pod = format!("containers: [{{image: x, {limits}}}]");
                        format!("- {{name: j{n}, interval: 1h, spec: {{{pod}}}}}\n")
                    }),
            ),
            "ok",
        ),
        ("environment of a preset", presets("env", "name"), "ok"),
        ("volumes of a preset", presets("volumes", "name"), "ok"),
        (
            "tolerations of a preset",
            presets("tolerations", "key"),
            "ok",
        ),
        (
            "queries",
            (
                format!(
                    "tide:\n  queries:\n{}",
                    lines(10_000, |n| format!(
                        "  - {{repos: [a/b{n}], labels: [l{n}]}}\n"
                    ))
                ),
                String::new(),
            ),
            "ok",
        ),
        ("lists of a query", (query, String::new()), "ok"),
    ];
    run(cases, |(main, jobs)| {
        told(&load(main.as_bytes(), jobs.as_bytes()))
    });
}

/// CFG-008: what a packed file grows to is bounded.
#[test]
fn cfg_008_packed_bombs_are_refused() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..65 {
        packed.write_all(&[b'#'; 1 << 20]).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 1 << 20);
    let started = Instant::now();
    let found = told(&load(&packed, b""));
    assert_eq!(
        found,
        "config.yaml: error reading config.yaml: unpacks to more than 67108864 bytes"
    );
    // Half a file is no file.
    let found = told(&load(b"", &packed[..packed.len() / 2]));
    assert!(
        found.starts_with("jobs/a.yaml: error reading jobs/a.yaml: "),
        "{found}"
    );
    assert!(started.elapsed() < LIMIT);
}

/// CFG-028: expressions that blow up when they are compiled.
#[test]
fn cfg_028_expressions_are_bounded() {
    const LARGE: &str = "is larger than 1000000";
    let cases: Vec<(&str, String, &str)> = vec![
        (
            "nested counts",
            "(a{1000}){1000}".into(),
            "invalid repeat count",
        ),
        (
            "nested ranges",
            "(((((a{1,10}){1,10}){1,10}){1,10}){1,10})".into(),
            "invalid repeat count",
        ),
        ("counts of classes", r"[\pL\pN]{1000}".into(), "false"),
        ("classes after classes", r"\pL{1000}\pL{1000}".into(), LARGE),
        ("counts after counts", "a{1000}".repeat(2_000), LARGE),
        (
            "very many classes",
            r"\pL".repeat(20_000),
            "more than 1000 classes of Unicode",
        ),
        ("alternatives", "a|".repeat(500_000), "true"),
        (
            "a long text",
            "a".repeat((1 << 20) + 1),
            "is longer than 1048576",
        ),
        ("braces", "a{".repeat(200_000), "false"),
        ("named classes", "[[:".repeat(200_000), "missing closing ]"),
        ("groups", "(".repeat(2_000), "nests too deeply"),
        (
            "named groups",
            "(?P<a".repeat(100_000),
            "invalid named capture",
        ),
        ("quotes", r"\Qa".repeat(100_000), "false"),
        (
            "flags",
            "(?i".repeat(100_000),
            "missing argument to repetition operator",
        ),
    ];
    run(cases, |source| match GoRegex::new(&source) {
        Ok(regex) => regex.is_match("").to_string(),
        Err(e) => e.to_string(),
    });
}

/// CFG-029: templates that recurse, loop and grow.
#[test]
fn cfg_029_templates_are_bounded() {
    const STEPS: &str = "more than 1000000 steps";
    const LONG: &str = "the text is longer than 1048576 bytes";
    const WORK: &str = "more than 268435456 bytes of texts, variables and items are gone through";
    let fan = |n: usize| {
        format!(
            "{{{{define \"x{n}\"}}}}{}{{{{end}}}}",
            format!("{{{{template \"x{}\" .}}}}", n + 1).repeat(2)
        )
    };
    let within = |n: usize, text: &str| "{{if true}}".repeat(n) + text + &"{{end}}".repeat(n);
    let parens = |n: usize| format!("{{{{{}1{}}}}}", "(".repeat(n), ")".repeat(n));
    let cases: Vec<(&str, String, &str)> = vec![
        (
            "recursion",
            r#"{{define "x"}}{{template "x" .}}{{end}}{{template "x" .}}"#.into(),
            "exceeded maximum template depth (50)",
        ),
        (
            "recursion in branches",
            format!(
                r#"{{{{define "x"}}}}{}{{{{end}}}}{{{{template "x" .}}}}"#,
                within(90, r#"{{template "x" .}}"#)
            ),
            "nested deeper than 200 levels",
        ),
        (
            "calls that double",
            lines(40, fan) + r#"{{define "x40"}}{{end}}{{template "x0" .}}"#,
            STEPS,
        ),
        (
            "a loop",
            "{{range 1000000000}}x{{end}}".into(),
            "range over 1000000000 is more than 1000000 steps",
        ),
        (
            "loops in a loop",
            "{{range 30000}}{{range 30000}}{{end}}{{end}}".into(),
            STEPS,
        ),
        ("a width", r#"{{printf "%1000000000s" "x"}}"#.into(), "x"),
        (
            "widths",
            format!(
                r#"{{{{printf "{}" {}}}}}"#,
                "%1000000s".repeat(2000),
                "1 ".repeat(2000)
            ),
            LONG,
        ),
        ("places", r#"{{printf "%.100000f" 1.5}}"#.into(), "1.5000"),
        ("more places", r#"{{printf "%.9999999f" 1.5}}"#.into(), LONG),
        (
            "a text that doubles",
            r#"{{$x := "xx"}}{{range 60}}{{$x = print $x $x}}{{end}}"#.into(),
            LONG,
        ),
        (
            "loops in each other that have just begun",
            "{{range 999999}}".repeat(90) + "x" + &"{{break}}{{end}}".repeat(90),
            "x",
        ),
        (
            "names for a text",
            format!(
                r#"{{{{$x := printf "%1000000s" "x"}}}}{}{{{{len $x}}}}"#,
                lines(20_000, |n| format!("{{{{$v{n} := $x}}}}"))
            ),
            "1000000",
        ),
        (
            "a text as very many arguments",
            format!(
                r#"{{{{$x := printf "%1000000s" "x"}}}}{{{{print{}}}}}"#,
                " $x".repeat(100_000)
            ),
            WORK,
        ),
        (
            "many long texts",
            format!(
                r#"{{{{$x := printf "%1000000s" "x"}}}}{}"#,
                lines(20_000, |n| format!("{{{{$v{n} := slice $x {}}}}}", n % 9))
            ),
            WORK,
        ),
        (
            "comparisons of long texts",
            r#"{{$x := printf "%1000000s" "x"}}{{range 900000}}{{if eq $x $x}}{{end}}{{end}}"#
                .into(),
            WORK,
        ),
        (
            "a variable behind very many",
            "{{$x := 1}}".to_owned()
                + &lines(20_000, |n| format!("{{{{$v{n} := 1}}}}"))
                + "{{range 900000}}{{if $x}}{{end}}{{end}}",
            WORK,
        ),
        (
            "a text that doubles in lines",
            r#"{{$x := "xx"}}{{range 60}}{{$x = println $x $x}}{{end}}"#.into(),
            LONG,
        ),
        (
            "escapes that double",
            format!(
                r#"{{{{$x := "{}"}}}}{{{{range 30}}}}{{{{$x = js $x}}}}{{{{end}}}}"#,
                r"\\".repeat(100)
            ),
            LONG,
        ),
        (
            "entities that grow",
            r#"{{$x := "&"}}{{range 100000}}{{$x = html $x $x}}{{end}}"#.into(),
            LONG,
        ),
        (
            "parentheses",
            parens(100_000),
            "nested deeper than 100 levels",
        ),
        ("fewer parentheses", parens(90), "1"),
        (
            "branches",
            "{{if 1}}".repeat(100_000),
            "nested deeper than 100 levels",
        ),
        ("actions", "{{1}}".repeat(200_000), "1"),
        (
            "variables",
            lines(5_000, |n| format!("{{{{$v{n} := 1}}}}")),
            "",
        ),
        ("openings", "{{ ".repeat(200_000), "unexpected"),
        ("comments", "{{/*".repeat(200_000), "unclosed comment"),
        (
            "fields",
            format!("{{{{{}}}}}", ".Spec".repeat(100_000)),
            "can't evaluate field Spec",
        ),
        (
            "pipes",
            format!("{{{{1{}}}}}", "|print".repeat(100_000)),
            "1",
        ),
    ];
    run(cases, |text| {
        let rendered =
            Template::parse(&text).and_then(|template| template.for_job(&ProwJob::default()));
        match rendered {
            Ok(text) => text,
            Err(e) => e.to_string(),
        }
    });
}

/// JOB-020, CFG-027: schedules that are never due, and texts without an end.
#[test]
fn job_020_cfg_027_schedules_and_durations_are_bounded() {
    let cases: Vec<(&str, String, &str)> = vec![
        ("never", "0 0 31 2 *".into(), "None"),
        ("no second", ", * * * * *".into(), "None"),
        ("no minute", ", * * * *".into(), "None"),
        ("no day at all", "0 0 , * ,".into(), "None"),
        (
            "in leap years",
            "59 59 23 29 2 *".into(),
            "2028-02-29T23:59:59Z",
        ),
        ("very long steps", "@every 2540400h".into(), "2315"),
        (
            "a long list",
            format!("{} * * * *", "1,".repeat(1_000_000)),
            "Some(2026-01-01T00:01:00Z)",
        ),
        (
            "many fields",
            "* ".repeat(500_000),
            "expected 5 to 6 fields, found 500000",
        ),
    ];
    run(cases, |text| match CronSchedule::parse(&text) {
        Ok(schedule) => format!(
            "{:?}",
            schedule.next_after("2026-01-01T00:00:00Z".parse().unwrap())
        ),
        Err(e) => e.to_string(),
    });
    let cases: Vec<(&str, String, &str)> = vec![
        ("units", "1h".repeat(500_000), "Ok"),
        ("more than fits", "1h".repeat(5_000_000), "invalid duration"),
        ("digits", "1".repeat(1_000_000), "invalid duration"),
        ("places", format!("0.{}h", "1".repeat(1_000_000)), "Ok"),
    ];
    run(cases, |text| match text.parse::<GoDuration>() {
        Ok(_) => "Ok".to_owned(),
        Err(e) => e.to_string(),
    });
}
