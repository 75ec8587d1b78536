//! A server that answers what a test tells it to, one connection per request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
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

pub(crate) struct Stub {
    pub(crate) url: Url,
    requests: Arc<Mutex<Vec<Request>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
}

impl Stub {
    /// Gives these replies in turn; to more requests than that, 500.
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let requests = Arc::default();
        let replies = Arc::new(Mutex::new(replies.into_iter().collect()));
        tokio::spawn(serve(listener, Arc::clone(&requests), Arc::clone(&replies)));
        Self {
            url,
            requests,
            replies,
        }
    }

    pub(crate) fn then(&self, reply: Reply) {
        self.replies.lock().unwrap().push_back(reply);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .map(|request| request.line)
            .collect()
    }
}

async fn serve(
    listener: TcpListener,
    requests: Arc<Mutex<Vec<Request>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (requests, replies) = (Arc::clone(&requests), Arc::clone(&replies));
        tokio::spawn(async move {
            let mut stream = stream;
            let Some(request) = read(&mut stream).await else {
                return;
            };
            requests.lock().unwrap().push(request);
            let reply = replies.lock().unwrap().pop_front();
            match reply.unwrap_or_else(|| answer(500, &[], "{}")) {
                Reply::HangUp => {}
                Reply::Silence => std::future::pending().await,
                Reply::Answer {
                    status,
                    headers,
                    body,
                } => {
                    let mut head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n");
                    for (name, value) in headers {
                        head.push_str(&format!("{name}: {value}\r\n"));
                    }
                    if status != 204 && status != 304 {
                        head.push_str(&format!("content-length: {}\r\n", body.len()));
                    }
                    let _ = stream
                        .write_all(format!("{head}\r\n{body}").as_bytes())
                        .await;
                }
            }
        });
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
