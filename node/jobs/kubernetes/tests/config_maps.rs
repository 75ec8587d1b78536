//! ConfigMaps behind the real client, against a server that treats them as the Kubernetes API does.

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path as Of, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use trireme_kubernetes::{
    Clusters, ClustersError, ConfigMapRef, Kubeconfigs, KubernetesError, Values,
};

/// What happens instead of a write, or before it.
#[derive(Clone, Copy)]
enum Fault {
    Answer(u16, &'static str),
    /// Somebody else writes first.
    Race,
}

#[derive(Default)]
struct Api {
    /// By namespace and name.
    maps: BTreeMap<(String, String), Value>,
    version: u64,
    faults: VecDeque<Fault>,
    requests: Vec<String>,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Api>>);

fn status(code: u16, reason: &str, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

impl Api {
    fn put(&mut self, at: (String, String), mut map: Value) -> Value {
        self.version += 1;
        map["metadata"]["resourceVersion"] = json!(self.version.to_string());
        map["metadata"]["namespace"] = json!(at.0);
        self.maps.insert(at, map.clone());
        map
    }

    /// The answer to a write, if something goes wrong.
    fn fault(&mut self, at: &(String, String)) -> Option<Response> {
        match self.faults.pop_front()? {
            Fault::Answer(code, message) => Some(status(code, "", message)),
            Fault::Race => {
                let there = self.maps.get(at).cloned();
                let mut map = there.unwrap_or_else(|| json!({"metadata": {"name": at.1}}));
                map["data"]["theirs"] = json!(self.version.to_string());
                self.put(at.clone(), map);
                None
            }
        }
    }
}

impl Server {
    async fn start(&self) -> String {
        let map = get(
            async |State(server): State<Self>, Of(at): Of<(String, String)>| {
                let mut api = server.api();
                api.requests.push(format!("GET {}/{}", at.0, at.1));
                match api.maps.get(&at) {
                    Some(map) => Json(map.clone()).into_response(),
                    None => status(404, "NotFound", "configmaps not found"),
                }
            },
        )
        .put(
            async |State(server): State<Self>,
                   Of(at): Of<(String, String)>,
                   Json(map): Json<Value>| {
                let mut api = server.api();
                api.requests.push(format!("PUT {}/{}", at.0, at.1));
                if let Some(failed) = api.fault(&at) {
                    return failed;
                }
                let Some(there) = api.maps.get(&at) else {
                    return status(404, "NotFound", "configmaps not found");
                };
                let version = "/metadata/resourceVersion";
                let given = map.pointer(version);
                if given.is_some() && given != there.pointer(version) {
                    return status(409, "Conflict", "the object has been modified");
                }
                Json(api.put(at, map)).into_response()
            },
        );
        let all = post(
            async |State(server): State<Self>,
                   Of(namespace): Of<String>,
                   Json(map): Json<Value>| {
                let name = map["metadata"]["name"].as_str().unwrap().to_owned();
                let mut api = server.api();
                api.requests.push(format!("POST {namespace}/{name}"));
                let at = (namespace, name);
                if let Some(failed) = api.fault(&at) {
                    return failed;
                }
                if api.maps.contains_key(&at) {
                    return status(409, "AlreadyExists", "already exists");
                }
                (StatusCode::CREATED, Json(api.put(at, map))).into_response()
            },
        );
        let router = Router::new()
            .route("/api/v1/namespaces/{namespace}/configmaps/{name}", map)
            .route("/api/v1/namespaces/{namespace}/configmaps", all)
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn api(&self) -> MutexGuard<'_, Api> {
        self.0.lock().unwrap()
    }

    fn fails(&self, faults: impl IntoIterator<Item = Fault>) {
        self.api().faults.extend(faults);
    }

    fn has(&self, map: Value) {
        let name = map["metadata"]["name"].as_str().unwrap().to_owned();
        self.api().put(("prow".to_owned(), name), map);
    }

    fn map(&self, name: &str) -> Value {
        self.api().maps[&("prow".to_owned(), name.to_owned())].clone()
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.api().requests)
    }
}

/// A kubeconfig file with one context of that name.
fn kubeconfig(dir: &Path, context: &str, server: &str) -> PathBuf {
    let path = dir.join(format!("{context}.kubeconfig"));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {context}\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\n\
         contexts: [{{name: {context}, context: {{cluster: c, user: u}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

struct Stage {
    server: Server,
    clusters: Clusters,
}

/// One cluster, called `default` and `build`.
async fn stage() -> Stage {
    let server = Server::default();
    let dir = tempfile::tempdir().unwrap();
    let from = Kubeconfigs {
        kubeconfig: Some(kubeconfig(dir.path(), "build", &server.start().await)),
        ..Kubeconfigs::default()
    };
    let clusters = Clusters::load(&from).await.unwrap();
    Stage { server, clusters }
}

fn at(name: &str) -> ConfigMapRef<'_> {
    ConfigMapRef {
        cluster: "default",
        namespace: "prow",
        name,
    }
}

fn values(values: &[(&str, Option<&[u8]>)]) -> Values {
    let owned = values
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.map(<[u8]>::to_vec)));
    owned.collect()
}

/// PLG-CONFIGUPDATER-008
#[tokio::test]
async fn a_missing_config_map_is_made_with_its_labels() {
    let Stage { server, clusters } = stage().await;
    let values = values(&[("VERSION", Some(b"m1")), ("a", Some(b"b")), ("c", None)]);
    let bytes = clusters.write_config_map(at("n"), &values).await.unwrap();
    assert_eq!(bytes, 3);
    let made = server.map("n");
    assert_eq!(made["data"], json!({"VERSION": "m1", "a": "b"}));
    assert_eq!(
        made["metadata"]["labels"],
        json!({
            "app.kubernetes.io/name": "prow",
            "app.kubernetes.io/component": "updateconfig-plugin",
        })
    );
    assert_eq!(server.requests(), ["GET prow/n", "POST prow/n"]);
    let version = clusters.config_map_text(at("n"), "VERSION").await.unwrap();
    assert_eq!(version.as_deref(), Some("m1"));
    let none = clusters.config_map_text(at("other"), "VERSION").await;
    assert_eq!(none.unwrap(), None);
}

/// PLG-CONFIGUPDATER-004, PLG-CONFIGUPDATER-007: other keys stay, and a key is never text and binary.
#[tokio::test]
async fn only_the_named_keys_change() {
    let Stage { server, clusters } = stage().await;
    server.has(json!({
        "metadata": {"name": "n", "labels": {"mine": "yes"}, "annotations": {"a": "b"}},
        "data": {"stays": "1", "goes": "2", "packed": "3"},
        "binaryData": {"kept": "AP8=", "unpacked": "AP8="},
    }));
    let update = values(&[
        ("goes", None),
        ("packed", Some(&[0x1f, 0x8b, 0xff])),
        ("unpacked", Some("\u{e9}".as_bytes())),
    ]);
    let bytes = clusters.write_config_map(at("n"), &update).await.unwrap();
    assert_eq!(bytes, 1 + 3 + 2 + 2);
    let now = server.map("n");
    assert_eq!(now["data"], json!({"stays": "1", "unpacked": "\u{e9}"}));
    assert_eq!(now["binaryData"], json!({"kept": "AP8=", "packed": "H4v/"}));
    assert_eq!(now["metadata"]["labels"], json!({"mine": "yes"}));
    assert_eq!(now["metadata"]["annotations"], json!({"a": "b"}));
    server.requests();
    // Once more changes nothing, and writes nothing.
    let again = clusters.write_config_map(at("n"), &update).await.unwrap();
    assert_eq!(
        (again, server.requests()),
        (bytes, vec!["GET prow/n".to_owned()])
    );
}

/// Whoever writes at the same time loses nothing.
#[tokio::test]
async fn what_others_write_meanwhile_stays() {
    let Stage { server, clusters } = stage().await;
    server.has(json!({"metadata": {"name": "n"}, "data": {"a": "1"}}));
    for name in ["n", "new"] {
        server.fails([Fault::Race, Fault::Race]);
        let update = values(&[("ours", Some(b"x"))]);
        clusters.write_config_map(at(name), &update).await.unwrap();
        let data = server.map(name)["data"].clone();
        assert_eq!(data["ours"], "x");
        assert!(data["theirs"].is_string());
    }
    server.fails([Fault::Race; 5]);
    let update = values(&[("ours", Some(b"y"))]);
    let failed = clusters
        .write_config_map(at("n"), &update)
        .await
        .unwrap_err();
    assert!(failed.is_outage());
    assert_eq!(
        failed.to_string(),
        "update config map prow/n in default: others changed it 5 times in a row while it was being written"
    );
}

#[tokio::test]
async fn outages_pass_and_refusals_do_not() {
    let Stage { server, clusters } = stage().await;
    let update = values(&[("a", Some(b"b"))]);
    for (code, message, outage) in [
        (500, "etcd is away", true),
        (503, "shutting down", true),
        (429, "too many", true),
        (401, "Unauthorized", true),
        (403, "configmaps is forbidden", false),
        (404, "namespaces \"prow\" not found", false),
        (413, "Request entity too large", false),
        (422, "is invalid", false),
    ] {
        server.fails([Fault::Answer(code, message)]);
        let failed = clusters
            .write_config_map(at("n"), &update)
            .await
            .unwrap_err();
        assert_eq!(failed.is_outage(), outage, "{failed}");
        assert_eq!(
            failed.to_string(),
            format!("create config map prow/n in default: {code}: {message}")
        );
        // Nothing was tried twice behind the caller's back.
        assert_eq!(server.requests(), ["GET prow/n", "POST prow/n"]);
    }
}

/// PLG-CONFIGUPDATER-005
#[tokio::test]
async fn an_unknown_cluster_is_refused_and_told() {
    let Stage { clusters, .. } = stage().await;
    let elsewhere = ConfigMapRef {
        cluster: "elsewhere",
        ..at("n")
    };
    let failed = clusters.write_config_map(elsewhere, &Values::new()).await;
    let failed = failed.unwrap_err();
    assert!(matches!(failed, KubernetesError::UnknownCluster { .. }) && !failed.is_outage());
    assert_eq!(
        failed.to_string(),
        "no k8s client is found for build cluster: 'elsewhere'; the kubeconfig files have the contexts default, build: add \
         the cluster to one of them and restart the node, or correct the name"
    );
}

#[tokio::test]
async fn nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let from = Kubeconfigs {
        kubeconfig: Some(kubeconfig(dir.path(), "build", "http://127.0.0.1:1")),
        ..Kubeconfigs::default()
    };
    let clusters = Clusters::load(&from).await.unwrap();
    let failed = clusters
        .config_map_text(at("n"), "VERSION")
        .await
        .unwrap_err();
    assert!(failed.is_outage());
    assert!(failed.to_string().contains("onnection refused"), "{failed}");
}

#[tokio::test]
async fn contexts_of_all_files_are_clusters() {
    let dir = tempfile::tempdir().unwrap();
    kubeconfig(dir.path(), "a", "http://127.0.0.1:1");
    kubeconfig(dir.path(), "b", "http://127.0.0.1:2");
    std::fs::write(dir.path().join("README"), "no kubeconfig").unwrap();
    std::fs::write(dir.path().join("..data.kubeconfig"), "no kubeconfig").unwrap();
    std::fs::create_dir(dir.path().join("dir.kubeconfig")).unwrap();
    let from = Kubeconfigs {
        kubeconfig_dir: Some(dir.path().to_owned()),
        kubeconfig_suffix: ".kubeconfig".to_owned(),
        ..Kubeconfigs::default()
    };
    let clusters = Clusters::load(&from).await.unwrap();
    assert_eq!(clusters.names().collect::<Vec<_>>(), ["default", "a", "b"]);

    let twice = Kubeconfigs {
        kubeconfig: Some(dir.path().join("a.kubeconfig")),
        ..from.clone()
    };
    let refused = Clusters::load(&twice).await.unwrap_err();
    assert!(matches!(refused, ClustersError::Twice { context, .. } if context == "a"));

    let all = Kubeconfigs {
        kubeconfig_suffix: String::new(),
        ..from
    };
    let refused = Clusters::load(&all).await.unwrap_err();
    assert!(refused.to_string().contains("README: "), "{refused}");
}
