//! Secrets that are rotated while a node runs, and what its log shows of them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::StatusCode;
use sha2::Sha256;
use trireme_harness::Address;

use crate::{
    command::run,
    scene::{http, until},
    security::serve,
};

const FIRST: &str = "first-webhook-secret";
const SECOND: &str = "second-webhook-secret";
const THIRD: &str = "third-webhook-secret";

async fn deliver(door: &Address, secret: &str, event: &str) -> StatusCode {
    let body = r#"{"repository":{"full_name":"acme/widget"}}"#;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let request = http()
        .post(format!("http://{door}/hook"))
        .header("content-type", "application/json")
        .header("x-github-event", event)
        .header("x-github-delivery", uuid::Uuid::new_v4().to_string())
        .header("x-hub-signature-256", format!("sha256={signature}"))
        .body(body);
    request
        .send()
        .await
        .map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
}

/// CFG-096, CFG-097, CFG-099, HOOK-008: several tokens are good at once, a rotated file is honoured without a restart, and
/// no line of the log shows any of them.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_099_rotated_webhook_tokens_are_honoured_and_never_logged() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (door, peer) = (Address::claim().unwrap(), Address::claim().unwrap());
    let secret = root.join("hmac");
    std::fs::write(&secret, format!("{FIRST}\n")).unwrap();
    let settings = format!(
        "node_id = 1\ndata_dir = \"data\"\nlisten = \"{door}\"\n[peer]\nlisten = \"{peer}\"\n[webhook]\nhmac_secret_file = \"hmac\"\n"
    );
    let (_node, log) = serve(root, "node", &settings);
    let taken = async |secret: &str| {
        until("a delivery that is taken", async || {
            (deliver(&door, secret, "ping").await == StatusCode::OK).then_some(())
        })
        .await;
    };
    taken(FIRST).await;
    assert_eq!(deliver(&door, SECOND, "ping").await, StatusCode::FORBIDDEN);

    // Two at once, so that the forge can be changed in between.
    let rotated = format!(
        "'*':\n- value: {FIRST}\n  created_at: 2026-01-01T00:00:00Z\n- value: {SECOND}\n  created_at: 2026-02-01T00:00:00Z\n"
    );
    std::fs::write(&secret, rotated).unwrap();
    taken(SECOND).await;
    taken(FIRST).await;
    std::fs::write(&secret, format!("'*': [{{value: {THIRD}}}]\n")).unwrap();
    taken(THIRD).await;
    for former in [FIRST, SECOND] {
        assert_eq!(deliver(&door, former, "ping").await, StatusCode::FORBIDDEN);
    }

    // What is refused is logged with the event that it claims to be.
    for secret in [FIRST, SECOND, THIRD] {
        assert_eq!(deliver(&door, "wrong", secret).await, StatusCode::FORBIDDEN);
    }
    let refused = |secret: &str| format!("event={}", "X".repeat(secret.len()));
    let lines = until("the refusals in the log", async || {
        let lines = std::fs::read_to_string(&log).ok()?;
        lines.contains(&refused(THIRD)).then_some(lines)
    })
    .await;
    let bundle = root.join("bundle.tar.gz");
    let bundle = bundle.to_str().unwrap();
    run(door.as_str(), &["debug", "bundle", bundle])
        .await
        .done();
    let unpacked = std::process::Command::new("tar")
        .args(["-xzOf", bundle])
        .output()
        .unwrap();
    let bundled = String::from_utf8_lossy(&unpacked.stdout).into_owned();
    for text in [&lines, &bundled] {
        for secret in [FIRST, SECOND, THIRD] {
            assert!(!text.contains(secret), "{text}");
            assert!(text.contains(&refused(secret)), "{text}");
        }
    }
}
