//! ConfigMaps: some keys are set or removed, the others stay as they are, whoever else writes at the same time.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use rand::RngExt as _;

use crate::clusters::{CALL_TIMEOUT, Clusters};
use crate::error::KubernetesError;

/// Attempts at one write while others change the same ConfigMap.
const MAX_ATTEMPTS: u32 = 5;
/// Before the second attempt, at most; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// By key; `None`: the key goes.
pub type Values = BTreeMap<String, Option<Vec<u8>>>;

/// One ConfigMap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigMapRef<'a> {
    /// A context, or `default`.
    pub cluster: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl ConfigMapRef<'_> {
    fn what(&self, verb: &str) -> String {
        let Self {
            cluster,
            namespace,
            name,
        } = self;
        format!("{verb} config map {namespace}/{name} in {cluster}")
    }
}

impl Clusters {
    /// The text under a key; `None` if the ConfigMap or the key is not there.
    ///
    /// # Errors
    /// [`KubernetesError`], after 10 s at the latest.
    pub async fn config_map_text(
        &self,
        of: ConfigMapRef<'_>,
        key: &str,
    ) -> Result<Option<String>, KubernetesError> {
        let found = read(&self.config_maps(of)?, of).await?;
        let text = found.and_then(|found| found.data?.remove(key));
        Ok(text)
    }

    /// Sets and removes keys, all or none of them. Makes the ConfigMap if it is not there, with the labels that
    /// config-updater gives it; one without labels gets them (PLG-CONFIGUPDATER-008). What is UTF-8 becomes text, anything
    /// else binary (PLG-CONFIGUPDATER-007). Answers the bytes of all values then.
    ///
    /// # Errors
    /// [`KubernetesError`], after a few attempts where others write at the same time.
    pub async fn write_config_map(
        &self,
        to: ConfigMapRef<'_>,
        values: &Values,
    ) -> Result<u64, KubernetesError> {
        let api = self.config_maps(to)?;
        let plainly = PostParams::default();
        let mut wait = FIRST_WAIT;
        for attempt in 1..=MAX_ATTEMPTS {
            let found = read(&api, to).await?;
            let wanted = changed(found.clone().unwrap_or_default(), to.name, values);
            let bytes = size(&wanted);
            let (verb, written) = match &found {
                Some(found) if *found == wanted => return Ok(bytes),
                // With the version that was read, so that the server refuses it if there is a newer one.
                Some(_) => {
                    let written = api.replace(to.name, &plainly, &wanted);
                    ("update", within(written).await)
                }
                None => {
                    let written = api.create(&plainly, &wanted);
                    ("create", within(written).await)
                }
            };
            match written {
                Ok(_) => return Ok(bytes),
                Err(Failed::Answered(kube::Error::Api(status))) if status.code == 409 => {
                    tracing::debug!(attempt, config_map = to.what(verb), "changed meanwhile");
                }
                Err(failed) => return Err(failed.told(&to.what(verb))),
            }
            if attempt < MAX_ATTEMPTS {
                let share = rand::rng().random_range(0.5..=1.0);
                tokio::time::sleep(wait.mul_f64(share)).await;
                wait = wait.saturating_mul(2);
            }
        }
        Err(KubernetesError::Contended {
            what: to.what("update"),
            attempts: MAX_ATTEMPTS,
        })
    }

    fn config_maps(&self, of: ConfigMapRef<'_>) -> Result<Api<ConfigMap>, KubernetesError> {
        let client = self.client(of.cluster)?;
        Ok(Api::namespaced(client.clone(), of.namespace))
    }
}

/// Why a call came to nothing.
enum Failed {
    Answered(kube::Error),
    TimedOut,
}

impl Failed {
    fn told(self, what: &str) -> KubernetesError {
        match self {
            Self::Answered(error) => KubernetesError::of(what, error),
            Self::TimedOut => KubernetesError::Unavailable {
                what: what.to_owned(),
                reason: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
            },
        }
    }
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answered) => answered.map_err(Failed::Answered),
        Err(_) => Err(Failed::TimedOut),
    }
}

async fn read(
    api: &Api<ConfigMap>,
    of: ConfigMapRef<'_>,
) -> Result<Option<ConfigMap>, KubernetesError> {
    let read = within(api.get_opt(of.name)).await;
    read.map_err(|failed| failed.told(&of.what("get")))
}

fn changed(mut map: ConfigMap, name: &str, values: &Values) -> ConfigMap {
    map.metadata.name = Some(name.to_owned());
    if map.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) {
        let labels = [
            ("app.kubernetes.io/name", "prow"),
            ("app.kubernetes.io/component", "updateconfig-plugin"),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        map.metadata.labels = Some(labels.into());
    }
    let mut data = map.data.take().unwrap_or_default();
    let mut binary = map.binary_data.take().unwrap_or_default();
    for (key, value) in values {
        data.remove(key);
        binary.remove(key);
        match value.as_deref().map(std::str::from_utf8) {
            None => {}
            Some(Ok(text)) => {
                data.insert(key.clone(), text.to_owned());
            }
            Some(Err(_)) => {
                let bytes = value.clone().unwrap_or_default();
                binary.insert(key.clone(), ByteString(bytes));
            }
        }
    }
    map.data = (!data.is_empty()).then_some(data);
    map.binary_data = (!binary.is_empty()).then_some(binary);
    map
}

fn size(map: &ConfigMap) -> u64 {
    let texts = map.data.iter().flatten().map(|(_, text)| text.len());
    let binary = map.binary_data.iter().flatten();
    let binary = binary.map(|(_, bytes)| bytes.0.len());
    texts.chain(binary).map(|bytes| bytes as u64).sum()
}
