//! A server that answers what a test tells it to; one connection per request, unless an answer says
//! `connection: keep-alive`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use url::Url;

#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Reads the request, then closes the connection.
    HangUp,
    /// Reads the request, then says nothing.
    Silence,
    /// Reads the request, and answers once it is told to.
    Held(Arc<Notify>, Box<Self>),
}

pub(crate) fn ok(body: impl Into<String>) -> Reply {
    answer(200, &[], body)
}

pub(crate) fn answer(
    status: u16,
    headers: &[(&'static str, &str)],
    body: impl Into<String>,
) -> Reply {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    Reply::Answer {
        status,
        headers,
        body: body.into(),
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `GET /path`
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Clone)]
struct Shared {
    requests: Arc<Mutex<Vec<Request>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<watch::Sender<usize>>,
    connections: Arc<Mutex<usize>>,
}

pub(crate) struct Stub {
    pub(crate) url: Url,
    shared: Shared,
}

impl Stub {
    /// Gives these replies in turn; to more requests than that, 500.
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let shared = Shared {
            requests: Arc::default(),
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            asked: Arc::new(watch::channel(0).0),
            connections: Arc::default(),
        };
        tokio::spawn(serve(listener, shared.clone()));
        Self { url, shared }
    }

    pub(crate) fn then(&self, reply: Reply) {
        self.shared.replies.lock().unwrap().push_back(reply);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .map(|request| request.line)
            .collect()
    }

    /// Until so many requests have come.
    pub(crate) async fn asked(&self, times: usize) {
        let mut asked = self.shared.asked.subscribe();
        asked.wait_for(|asked| *asked >= times).await.unwrap();
    }

    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }
}

async fn serve(listener: TcpListener, shared: Shared) {
    while let Ok((stream, _)) = listener.accept().await {
        *shared.connections.lock().unwrap() += 1;
        tokio::spawn(converse(stream, shared.clone()));
    }
}

async fn converse(mut stream: TcpStream, shared: Shared) {
    while let Some(request) = read(&mut stream).await {
        shared.requests.lock().unwrap().push(request);
        let reply = shared.replies.lock().unwrap().pop_front();
        shared.asked.send_modify(|asked| *asked += 1);
        let mut reply = reply.unwrap_or_else(|| answer(500, &[], "{}"));
        if let Reply::Held(go, then) = reply {
            go.notified().await;
            reply = *then;
        }
        match reply {
            Reply::HangUp | Reply::Held(..) => return,
            Reply::Silence => std::future::pending().await,
            Reply::Answer {
                status,
                headers,
                body,
            } => {
                let is_kept = headers.iter().any(|(name, _)| *name == "connection");
                let mut head = format!("HTTP/1.1 {status} x\r\n");
                if !is_kept {
                    head.push_str("connection: close\r\n");
                }
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                if status != 204 && status != 304 {
                    head.push_str(&format!("content-length: {}\r\n", body.len()));
                }
                let _ = stream
                    .write_all(format!("{head}\r\n{body}").as_bytes())
                    .await;
                if !is_kept {
                    return;
                }
            }
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let mut lines = head.lines();
            let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
                return Some(Request {
                    line,
                    headers,
                    body,
                });
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
}
