//! `checkconfig` where something it asks for does not answer: the report is there all the same, and says what is missing
//! in it.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::command::{Answer, run, text};

const PLUGINS: &str =
    "plugins:\n  acme:\n    plugins: [approve]\n  other/gone:\n    plugins: [approve]\n";
const JOBS: &str = "periodics:\n- name: nightly\n  interval: 1h\n  spec: {containers: [{image: a, command: [date]}]}\n";

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("config.yaml", "");
        files.write("plugins.yaml", PLUGINS);
        files.write("jobs.yaml", JOBS);
        files.write("token", "0123456789abcdef\n");
        files
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn at(&self, name: &str) -> String {
        text(&self.0.path().join(name)).to_owned()
    }

    async fn check(&self, more: &[&str]) -> Answer {
        let flag = |name: &str, file: &str| format!("-{name}={}", self.at(file));
        let files = [
            flag("config-path", "config.yaml"),
            flag("plugin-config", "plugins.yaml"),
            flag("job-config-path", "jobs.yaml"),
        ];
        let mut arguments = vec!["checkconfig"];
        arguments.extend(files.iter().map(String::as_str));
        arguments.extend(more);
        run("", &arguments).await
    }
}

/// Answers every request for a path that contains a word with its status and JSON, others with 404. As long as the test
/// runs.
async fn github(answers: &'static [(&'static str, u16, &'static str)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut more = [0; 1024];
                match stream.read(&mut more).await.unwrap() {
                    0 => break,
                    n => request.extend_from_slice(&more[..n]),
                }
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (status, body) = answers
                .iter()
                .find(|(word, ..)| path.contains(word))
                .map_or((404, r#"{"message": "Not Found"}"#), |(_, status, body)| {
                    (*status, body)
                });
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

const OWNERS: &str = "verify-owners-presence";

/// CFG-111, CFG-115: whoever asked for the check, by name or with --strict, does not see it pass.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_115_a_github_that_does_not_answer_takes_nothing_away() {
    let files = Files::new();
    let token = format!("--github-token-path={}", files.at("token"));
    let broken = github(&[("", 502, "{}")]).await;
    let broken = format!("--github-endpoint=http://{broken}");
    let asking = [
        "--github-client.max-retries=0",
        token.as_str(),
        broken.as_str(),
    ];
    let check = async |more: &[&str]| files.check(&[&asking[..], more].concat()).await;

    let usual = ["--include-default-warnings", "--expensive-checks"];
    let lenient = check(&usual).await.done();
    let told = &lenient.out;
    let of_jobs = "warning[non-decorated-jobs]";
    assert!(told.contains(of_jobs), "{told}");
    let unmade = "warning[verify-owners-presence]: could not look for OWNERS files in acme and 1 more orgs or repos: GET /orgs/acme/repos";
    assert!(told.contains(unmade), "{told}");
    assert!(told.contains("= help: look at --github-endpoint"), "{told}");

    let strict = check(&[&usual[..], &["--strict"]].concat()).await;
    let missed = "trireme: what was to be checked could not be: validate-github-app-installation, verify-owners-presence; the report says why\n";
    assert_eq!((strict.code, strict.err.as_str()), (1, missed));
    assert!(strict.out.contains(of_jobs) && strict.out.contains(unmade));

    let named = ["--warnings", OWNERS, "--warnings=non-decorated-jobs", "-o"];
    let json_report = check(&[&named[..], &["json"]].concat()).await;
    assert_eq!(json_report.code, 1, "{json_report:?}");
    let report = json_report.json();
    assert_eq!(
        (&report["passes"], &report["not_checked"]),
        (&json!(false), &json!([OWNERS]))
    );
    let rules = report["warnings"].as_array().unwrap().iter();
    let rules: Vec<_> = rules.map(|found| found["rule"].clone()).collect();
    assert_eq!(rules, ["non-decorated-jobs", OWNERS]);

    let sarif = check(&[&named[..], &["sarif"]].concat()).await;
    assert_eq!(sarif.code, 1, "{sarif:?}");
    let invocation = &sarif.json()["runs"][0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    let notifications = invocation["toolExecutionNotifications"].as_array().unwrap();
    assert_eq!(notifications.len(), 1);
    assert_eq!(
        sarif.json()["runs"][0]["results"].as_array().unwrap().len(),
        2
    );

    let commands = check(&[&named[..], &["github"]].concat()).await;
    assert_eq!(commands.code, 1, "{commands:?}");
    let lines = commands
        .out
        .lines()
        .filter(|line| line.starts_with("::warning "));
    assert_eq!(lines.count(), 2, "{commands:?}");
}

/// What GitHub was not asked because of errors is not passed over either.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_115_a_configuration_with_errors_says_what_was_not_checked() {
    let files = Files::new();
    files.write("jobs.yaml", &JOBS.replace("1h", "soon"));
    let token = format!("--github-token-path={}", files.at("token"));
    let named = ["--warnings", OWNERS, &token, "-o", "json"];
    let broken = files.check(&named).await;
    assert_eq!(broken.code, 5, "{broken:?}");
    let report = broken.json();
    assert_eq!(report["not_checked"], json!([OWNERS]));
    assert_eq!(
        report["notes"][0]["message"],
        "GitHub was not asked, as the configuration has errors"
    );
}

/// CFG-115: what one token or one repository is refused is told with what to do about it, beside what was found.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_115_refusals_and_missing_repositories_are_told_apart() {
    let files = Files::new();
    let token = format!("--github-token-path={}", files.at("token"));
    let check = async |address: SocketAddr| {
        let endpoint = format!("--github-endpoint=http://{address}");
        let named = ["--warnings", OWNERS, &token, &endpoint, "-o", "json"];
        files.check(&named).await
    };
    let bad_token = check(github(&[("", 401, r#"{"message": "Bad credentials"}"#)]).await).await;
    assert_eq!(bad_token.code, 1, "{bad_token:?}");
    let warning = &bad_token.json()["warnings"][0];
    assert!(
        warning["message"]
            .as_str()
            .unwrap()
            .contains("Bad credentials"),
        "{warning}"
    );
    assert_eq!(
        warning["help"],
        "look whether the token, or the app's id and key, are still good"
    );

    // Of three repositories of the org one has the file, one has none and one is refused; a fourth is not there.
    let some = github(&[
        (
            "/orgs/acme/repos",
            200,
            r#"[{"name": "a", "full_name": "acme/a", "owner": {"login": "acme"}},
                {"name": "b", "full_name": "acme/b", "owner": {"login": "acme"}},
                {"name": "c", "full_name": "acme/c", "owner": {"login": "acme"}}]"#,
        ),
        (
            "/repos/acme/a/contents/OWNERS",
            200,
            r#"{"type": "file", "encoding": "base64", "content": "", "name": "OWNERS", "path": "OWNERS", "sha": "1"}"#,
        ),
        ("/repos/acme/c/", 403, r#"{"message": "no"}"#),
    ]);
    let partly = check(some.await).await;
    assert_eq!(partly.code, 1, "{partly:?}");
    let report = partly.json();
    let told = report["warnings"].as_array().unwrap().iter();
    let told: Vec<_> = told
        .map(|found| found["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told.len(), 3, "{report:#}");
    assert!(
        told.iter()
            .any(|told| told.ends_with("OWNERS file: [acme/b]"))
    );
    assert!(
        told.iter()
            .any(|told| told.starts_with("could not look for OWNERS files in acme/c: "))
    );
    assert!(
        told.iter()
            .any(|told| told.ends_with("enabled for other/gone, which GitHub does not show"))
    );
}

/// CFG-113.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_113_a_checkout_that_cannot_be_read_is_an_error_among_the_others() {
    let files = Files::new();
    let check = async |path: &str| {
        let path = files.at(path);
        let own = [
            "--prow-yaml-repo-name=acme/widget",
            "--prow-yaml-path",
            &path,
        ];
        files.check(&own).await
    };
    let gone = check("nowhere/.prow.yaml").await;
    assert_eq!(gone.code, 5, "{gone:?}");
    assert!(gone.out.contains("warning[non-decorated-jobs]"), "{gone:?}");
    assert!(
        gone.out.contains(
            "error[file]: failed to read Prow YAML of acme/widget: No such file or directory"
        ),
        "{gone:?}"
    );
    assert!(gone.out.contains(&files.at("nowhere")), "{gone:?}");

    files.write("widget/README", "");
    let empty = check("widget/.prow.yaml").await.done();
    assert!(
        empty.out.contains("note[file]: no jobs of acme/widget itself were checked: neither .prow.yaml nor .prow is in "),
        "{empty:?}"
    );
    files.write("widget/.prow.yaml", "presubmits: [{name: own}]");
    let own = check("widget/.prow.yaml").await;
    assert_eq!(own.code, 5, "{own:?}");
    assert!(own.out.contains("widget/.prow.yaml"), "{own:?}");
}
