//! All that approve's handler does besides waiting for the network.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use axum::{Router, extract::Query, http::HeaderMap, routing::get};
use trireme_forge::git::{MirrorLimits, Mirrors, MirrorsOptions};
use trireme_forge::github::{Credentials, GitHub, GitHubOptions};
use trireme_forge::owners::{OwnersLoader, OwnersOptions, RepoOwners};
use trireme_forge::{PullRequests as _, RepoId};
use trireme_plugins::cost::Scene;

use super::{BAR, RUNS, Times, timed};

/// The thread of the forge, whose work is not ours.
pub(super) const FORGE: &str = "the-forge";
/// Of a page, as the client asks for it.
const PAGE: usize = 100;
/// Lines of a file's patch.
const PATCH: usize = 20;

pub(super) fn rows(owners: &[(String, String)], changed: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let repo = RepoId::new("org", "repo");
    let remote = dir.path().join("remote/org/repo");
    let commit = commit(&remote, owners);
    let mirrors = runtime.block_on(async {
        let mirrors = Mirrors::open(MirrorsOptions {
            dir: dir.path().join("mirrors"),
            remote: url::Url::from_file_path(dir.path().join("remote")).unwrap(),
            credentials: None,
            limits: MirrorLimits::default(),
        });
        let mirrors = mirrors.await.unwrap();
        mirrors.ensure(&repo, &[&commit]).await.unwrap();
        mirrors
    });
    let options = OwnersOptions::default();
    let load = |loader: &OwnersLoader| -> RepoOwners {
        let loading = loader.load(&repo, &commit, &options);
        runtime.block_on(loading).unwrap()
    };
    let (cold, owners) = timed(RUNS, || load(&OwnersLoader::new(mirrors.clone())));
    let loader = OwnersLoader::new(mirrors.clone());
    load(&loader);
    let (warm, _) = timed(RUNS, || load(&loader));
    let github = {
        let _within = runtime.enter();
        let api = forge(changed);
        GitHub::new(GitHubOptions::new(api, Credentials::Anonymous)).unwrap()
    };
    // Each time another pull request: no page is answered from what is known.
    let mut number = 0;
    let (listed, files) = timed(RUNS, || {
        number += 1;
        let files = runtime.block_on(github.changed_files(&repo, number));
        files.unwrap()
    });
    assert_eq!(files.len(), changed.len());
    let paths: Vec<String> = files.into_iter().map(|file| file.path).collect();
    let scene = Scene::new(paths, owners, &[("alias1-user1", "/approve")]);
    let (decided, _) = timed(RUNS, || scene.decide().unwrap());
    println!(
        "handler: files listed in {listed}; OWNERS loaded in {cold} (cold), {warm} (warm); decided in {decided}"
    );
    let sum = |owners: &Times| {
        Times(
            listed.0 + owners.0 + decided.0,
            listed.1 + owners.1 + decided.1,
        )
    };
    println!(
        "handler in all: {} (cold), {} (warm); the bar is {BAR:?}",
        sum(&cold),
        sum(&warm)
    );
    let began = Instant::now();
    let ours = load(&OwnersLoader::new(mirrors.clone()));
    let ours_took = began.elapsed();
    assert!(ours.problems().is_empty());
    let began = Instant::now();
    let read = read_with_git(&remote, &commit);
    let git_took = began.elapsed();
    println!(
        "of git: {read} OWNERS files listed and read in {git_took:.1?}; ours, parsed too, {ours_took:.1?}: {:.2} of that",
        ours_took.as_secs_f64() / git_took.as_secs_f64()
    );
}

/// A repository with these files, as git itself makes it.
fn commit(path: &Path, files: &[(String, String)]) -> String {
    std::fs::create_dir_all(path).unwrap();
    git(path, &["init", "--quiet", "--bare", "."], b"");
    let mut stream = b"commit refs/heads/main\ncommitter t <t@t> 0 +0000\ndata 1\nx\n".to_vec();
    for (name, text) in files {
        write!(
            stream,
            "M 100644 inline {name}\ndata {}\n{text}\n",
            text.len()
        )
        .unwrap();
    }
    git(path, &["fast-import", "--quiet"], &stream);
    git(path, &["rev-parse", "main"], b"").trim().to_owned()
}

/// Lists the tree and reads all OWNERS files; answers how many there are.
fn read_with_git(path: &Path, commit: &str) -> usize {
    let tree = git(path, &["ls-tree", "-r", commit], b"");
    let ids: Vec<&str> = tree
        .lines()
        .filter(|line| line.ends_with("OWNERS") || line.ends_with("OWNERS_ALIASES"))
        .map(|line| line.split([' ', '\t']).nth(2).unwrap())
        .collect();
    let read = git(path, &["cat-file", "--batch"], ids.join("\n").as_bytes());
    assert!(read.len() > ids.len());
    ids.len()
}

fn git(path: &Path, args: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("git")
        .current_dir(path)
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// A GitHub that has this list of files for every pull request, with patches, in a thread of its own.
fn forge(changed: &[String]) -> url::Url {
    let patch = "+a line of a change that somebody has made\n".repeat(PATCH);
    let file = |path: &String| {
        serde_json::json!({
            "sha": "0123456789012345678901234567890123456789", "filename": path, "status": "modified",
            "additions": PATCH, "deletions": 0, "changes": PATCH,
            "blob_url": format!("https://github.com/org/repo/blob/0123/{path}"),
            "raw_url": format!("https://github.com/org/repo/raw/0123/{path}"),
            "contents_url": format!("https://api.github.com/repos/org/repo/contents/{path}"), "patch": patch,
        })
    };
    let pages: Vec<String> = changed
        .chunks(PAGE)
        .map(|page| serde_json::Value::from_iter(page.iter().map(file)).to_string())
        .collect();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let url: url::Url = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let (pages, base) = (Arc::new(pages), url.clone());
    let answer = move |uri: axum::http::Uri, Query(asked): Query<Vec<(String, String)>>| {
        let page = asked.iter().find(|(name, _)| name == "page");
        let page: usize = page.map_or(1, |(_, page)| page.parse().unwrap());
        let mut headers = HeaderMap::new();
        if page < pages.len() {
            let next = format!(
                "<{}{}?per_page={PAGE}&page={}>; rel=\"next\"",
                base.as_str().trim_end_matches('/'),
                uri.path(),
                page + 1
            );
            headers.insert("link", next.parse().unwrap());
        }
        std::future::ready((headers, pages[page - 1].clone()))
    };
    let serving = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        axum::serve(listener, Router::new().fallback(get(answer)))
            .await
            .unwrap();
    };
    let thread = std::thread::Builder::new().name(FORGE.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    thread.spawn(move || runtime.block_on(serving)).unwrap();
    url
}
