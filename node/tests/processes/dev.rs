//! `trireme dev`: what it prints can be typed as it stands, and Ctrl-C leaves nothing behind.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::{
    command::{run, start, text},
    scene::{BOUND, until},
};

/// The indented lines below a heading.
fn below<'a>(lines: &'a [String], heading: &str) -> Vec<&'a str> {
    let start = lines.iter().position(|line| line.starts_with(heading));
    let start = start.unwrap_or_else(|| panic!("no {heading:?} in {lines:#?}"));
    lines[start + 1..]
        .iter()
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.trim())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_dev_prints_work_and_ctrl_c_ends_all() {
    let directory = tempfile::tempdir().unwrap();
    let world = directory.path().join("world");
    let mut dev = start("", &["dev", "--directory", text(&world)]);
    let mut output = BufReader::new(dev.stdout.take().unwrap()).lines();
    let mut lines = Vec::new();
    let reading = async {
        loop {
            let line = output.next_line().await.unwrap().expect("dev goes on");
            let last = line.starts_with("Ctrl-C");
            lines.push(line);
            if last {
                break;
            }
        }
    };
    timeout(BOUND, reading).await.expect("dev is ready in time");
    // Nobody reads on; the timeline must not fill the pipe.
    let draining = tokio::spawn(async move { while let Ok(Some(_)) = output.next_line().await {} });

    let mut script = below(&lines, "Open a pull request:");
    script.extend(below(&lines, "Comment on it:"));
    let done = Command::new("sh")
        .arg("-ec")
        .arg(script.join("\n"))
        .current_dir(directory.path())
        .envs(["AUTHOR", "COMMITTER"].into_iter().flat_map(|who| {
            [("NAME", "grace"), ("EMAIL", "grace@example.com")]
                .map(|(what, value)| (format!("GIT_{who}_{what}"), value))
        }))
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(done.status.success(), "{done:?}");

    let server = below(&lines, "Look at the cluster:")[0]
        .split_once("TRIREME_SERVER=")
        .unwrap()
        .1
        .to_owned();
    until("the pull request's merge", async || {
        let pools = run(&server, &["get", "pools", "-o", "json"]).await.done();
        pools.out.contains("\"merged\"").then_some(())
    })
    .await;

    let pid = i32::try_from(dev.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let ended = timeout(BOUND, dev.wait()).await.expect("it ends").unwrap();
    assert!(ended.success(), "{ended:?}");
    draining.await.unwrap();
    let gone = run(&server, &["cluster", "status"]).await;
    assert_eq!(gone.code, 3, "no node is left: {gone:?}");
}
