//! A client that speaks plainly, GitHub's descriptions, and a receiver of webhooks.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use trireme_sandbox::conformance::Descriptions;
use trireme_sandbox::world::World;

/// An answer of the API.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

/// The API as one user calls it.
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Api {
    pub(crate) fn of(world: &World, login: &str) -> Self {
        Self {
            token: Some(world.sandbox().token_for(login)),
            ..Self::anonymous(world)
        }
    }

    pub(crate) fn anonymous(world: &World) -> Self {
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            base: world.sandbox().url().to_owned(),
            token: None,
        }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_send(method, path, body, &[]).await.unwrap()
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, reqwest::Error> {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        let mut request = self.client.request(method.parse().unwrap(), url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Without following redirects.
    pub(crate) async fn try_get_plain(&self, path: &str) -> Answer {
        let plain = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(plain)
            .build()
            .unwrap();
        let api = Self {
            client,
            base: self.base.clone(),
            token: self.token.clone(),
        };
        api.get(path).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }

    pub(crate) async fn graphql(&self, query: &str, variables: Value) -> Value {
        let body = serde_json::json!({"query": query, "variables": variables});
        self.post("/graphql", body).await.expect(200)
    }
}

/// GitHub's descriptions, read once; none where they are not at hand.
pub(crate) fn descriptions() -> Option<&'static Descriptions> {
    static LOADED: OnceLock<Option<Descriptions>> = OnceLock::new();
    let dir = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/github"
    ));
    let loaded = LOADED.get_or_init(|| Descriptions::load(dir).unwrap());
    if loaded.is_none() {
        println!(
            "skipped: GitHub's descriptions are not at {}",
            dir.display()
        );
    }
    loaded.as_ref()
}

/// Judges everything that was recorded. `allowed` are parts of complaints about requests that are wrong on purpose.
#[track_caller]
pub(crate) fn judge(world: &World, allowed: &[&str]) {
    if let Some(descriptions) = descriptions() {
        let mut wrong = descriptions.judge(&world.sandbox().exchanges());
        wrong.retain(|w| !allowed.iter().any(|a| w.contains(a)));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// A webhook as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn event(&self) -> &str {
        self.header("x-github-event")
    }

    pub(crate) fn payload(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `event.action#number`.
    pub(crate) fn name(&self) -> String {
        let payload = self.payload();
        match payload["action"].as_str() {
            Some(action) => format!("{}.{action}", self.event()),
            None => self.event().to_owned(),
        }
    }
}

/// Answers every webhook with 200 (or `status`) and hands it on.
pub(crate) struct Receiver {
    pub(crate) url: String,
    received: mpsc::UnboundedReceiver<Received>,
    _task: Arc<tokio::task::JoinHandle<()>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self::answering(200).await
    }

    pub(crate) async fn answering(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, received) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    let mut chunk = [0; 64 << 10];
                    loop {
                        let n = stream.read(&mut chunk).await.unwrap();
                        bytes.extend_from_slice(&chunk[..n]);
                        if let Some(received) = parse(&bytes) {
                            sender.send(received).ok();
                            break;
                        }
                        if n == 0 {
                            return;
                        }
                    }
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
                    stream.write_all(answer.as_bytes()).await.ok();
                });
            }
        });
        Self {
            url,
            received,
            _task: Arc::new(task),
        }
    }

    pub(crate) async fn next(&mut self) -> Received {
        let next = tokio::time::timeout(Duration::from_secs(10), self.received.recv());
        next.await.expect("no webhook came").unwrap()
    }

    /// What has come so far.
    pub(crate) fn drain(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

fn parse(bytes: &[u8]) -> Option<Received> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let headers: Vec<(String, String)> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    let body = bytes.get(end + 4..end + 4 + length)?.to_vec();
    Some(Received { headers, body })
}
