//! A GitHub that is away is probed by one for all; whoever would ask it is told so without asking. Under paused time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::time::{Instant, timeout};
use tower::service_fn;
use trireme_forge::github::{
    Clock, Credentials, GitHub, GitHubOptions, OctoBody, Pause, Transport, fixed_secret,
};
use trireme_forge::{Comments as _, Labels as _};

use super::{COMMENT, LABELS, metrics, repo, told};

/// A GitHub in this process.
#[derive(Clone, Default)]
struct Within(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// What is answered instead of what was asked for, with a header.
    instead: Option<(StatusCode, Option<(&'static str, &'static str)>)>,
    asked: Vec<String>,
}

impl Within {
    fn answers(&self, status: StatusCode, header: Option<(&'static str, &'static str)>) {
        self.0.lock().unwrap().instead = Some((status, header));
    }

    fn is_back(&self) {
        self.0.lock().unwrap().instead = None;
    }

    /// What was asked since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    fn transport(&self) -> Transport {
        let within = self.clone();
        Transport::over(service_fn(move |request: Request<OctoBody>| {
            let mut inner = within.0.lock().unwrap();
            let asked = format!("{} {}", request.method(), request.uri().path());
            let body = if asked.starts_with("POST") {
                COMMENT
            } else {
                LABELS
            };
            inner.asked.push(asked);
            let mut response = Response::new(Full::<bytes::Bytes>::from(body));
            if let Some((status, header)) = inner.instead {
                *response.status_mut() = status;
                response.headers_mut().extend(header.map(|(name, value)| {
                    let name = http::HeaderName::from_static(name);
                    (name, http::HeaderValue::from_static(value))
                }));
            }
            std::future::ready(Ok::<_, Infallible>(response))
        }))
    }

    fn github(&self) -> GitHub {
        let credentials = Credentials::Token(fixed_secret("t0ken"));
        GitHub::new(GitHubOptions {
            transport: Some(self.transport()),
            clock: Clock::Simulated {
                at: Timestamp::from_second(1_800_000_000).unwrap(),
                since: Instant::now(),
            },
            metrics: metrics(),
            ..GitHubOptions::new("https://api.github.test".parse().unwrap(), credentials)
        })
        .unwrap()
    }
}

fn of(asked: &[String], path: &str) -> usize {
    asked.iter().filter(|asked| asked.ends_with(path)).count()
}

/// An hour away costs one question every quarter of a minute, however many ask, and its end is known at once.
#[tokio::test(start_paused = true)]
async fn while_it_is_away_one_probe_asks_for_all() {
    let within = Within::default();
    let github = within.github();
    let mut returns = github.returns();
    within.answers(StatusCode::SERVICE_UNAVAILABLE, None);
    let hour = Instant::now() + Duration::from_secs(3600);
    let mut refused = 0;
    while Instant::now() < hour {
        let error = github.labels(&repo(), 1).await.unwrap_err();
        assert!(error.is_outage(), "{error}");
        // As a change is that was not sent: it may be tried again without a look at what came of it.
        if github.pause("org") == Some(Pause::Away) {
            let error = github.create_comment(&repo(), 1, "hi").await.unwrap_err();
            assert!(!error.maybe_sent(), "{error}");
            refused += 1;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(refused > 3000, "{refused}");
    let asked = within.asked();
    let probes = of(&asked, "/rate_limit");
    assert_eq!(asked.len() - probes, 10, "{asked:?}");
    assert!((3600 / 19..=3600 / 11).contains(&probes), "{probes}");

    within.is_back();
    let back = timeout(Duration::from_secs(19), returns.changed()).await;
    back.expect("it is probed").unwrap();
    assert_eq!(github.pause("org"), None);
    github.create_comment(&repo(), 1, "hi").await.unwrap();
    assert_eq!(
        within.asked().last().unwrap(),
        "POST /repos/org/repo/issues/1/comments"
    );
}

/// Whoever refuses is there.
#[tokio::test(start_paused = true)]
async fn a_refusal_and_a_single_broken_page_are_no_absence() {
    let within = Within::default();
    let github = within.github();
    for _ in 0..5 {
        within.answers(StatusCode::BAD_GATEWAY, None);
        github.labels(&repo(), 1).await.unwrap_err();
        within.answers(StatusCode::NOT_FOUND, None);
        github.labels(&repo(), 2).await.unwrap_err();
    }
    assert_eq!(github.pause("org"), None);
    assert_eq!(of(&within.asked(), "/rate_limit"), 0);
}

/// GHC-021: until a limit is over its budget pauses, as whoever asks is told beforehand.
#[tokio::test(start_paused = true)]
async fn ghc_021_a_limit_is_a_pause_with_an_end() {
    let within = Within::default();
    let github = within.github();
    within.answers(StatusCode::FORBIDDEN, Some(("retry-after", "60")));
    let error = github.labels(&repo(), 1).await.unwrap_err();
    let minute = Duration::from_secs(61);
    assert_eq!(error.retry_after(), Some(minute));
    assert_eq!(github.pause("org"), Some(Pause::Limited(minute)));
    within.is_back();
    tokio::time::advance(minute).await;
    assert_eq!(github.pause("org"), None);
    github.labels(&repo(), 1).await.unwrap();
    assert_eq!(within.asked().len(), 2);
}

/// GHC-021: however many wait for the end of a limit, one of them finds out whether it has come.
#[tokio::test(start_paused = true)]
async fn ghc_021_after_a_limit_one_call_goes_first() {
    let within = Within::default();
    let github = within.github();
    within.answers(StatusCode::FORBIDDEN, Some(("retry-after", "60")));
    github.labels(&repo(), 1).await.unwrap_err();
    let all = |from: u64| {
        let calls = (from..from + 40).map(|number| {
            let github = github.clone();
            async move { github.labels(&repo(), number).await }
        });
        futures::future::join_all(calls)
    };
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(all(2).await.iter().all(Result::is_err));
    assert_eq!(within.asked().len(), 2);
    within.is_back();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(all(50).await.iter().all(Result::is_ok));
    assert_eq!(within.asked().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn who_is_away_is_told_in_the_metrics() {
    let within = Within::default();
    let told_of = metrics();
    let github = GitHub::new(GitHubOptions {
        transport: Some(within.transport()),
        metrics: told_of.clone(),
        ..GitHubOptions::new("https://ghe.test".parse().unwrap(), Credentials::Anonymous)
    })
    .unwrap();
    within.answers(StatusCode::SERVICE_UNAVAILABLE, None);
    for _ in 0..3 {
        github.labels(&repo(), 1).await.unwrap_err();
    }
    let line = |count| format!("trireme_github_away{{host=\"ghe.test\"}} {count}");
    assert!(told(&told_of).contains(&line(1)));
    within.is_back();
    github.returns().changed().await.unwrap();
    assert!(told(&told_of).contains(&line(0)));
}
