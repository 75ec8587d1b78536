//! What a job's pod runs: carried as text, because a configuration has tens of thousands of them and few are ever used.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::decode::{Cx, Decode, Definitions, Describe, Empty};
use crate::yaml::Node;

/// A Kubernetes PodSpec, handed on as it came, in the form that Go's types would give it (JOB-077).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    json: Arc<str>,
    /// How many containers it has beside those of its beginning.
    containers: u32,
}

impl PodSpec {
    /// The object.
    #[must_use]
    pub fn value(&self) -> Value {
        // Only ever made from a value.
        serde_json::from_str(&self.json).unwrap_or_default()
    }

    /// Its JSON, fields in the order of Go's types.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// How many containers presets add to.
    pub(crate) fn containers(&self) -> u32 {
        self.containers
    }

    /// What validation looks at, without taking the rest apart.
    ///
    /// # Errors
    /// A part that has not the type that Kubernetes gives it.
    pub(crate) fn view(&self) -> Result<PodView<'_>, serde_json::Error> {
        serde_json::from_str(&self.json)
    }
}

impl From<&Value> for PodSpec {
    fn from(value: &Value) -> Self {
        let containers = value.get("containers").and_then(Value::as_array);
        Self {
            // A value is never refused.
            json: serde_json::to_string(value).unwrap_or_default().into(),
            containers: containers.map_or(0, |all| u32::try_from(all.len()).unwrap_or(u32::MAX)),
        }
    }
}

impl Default for PodSpec {
    fn default() -> Self {
        Self {
            json: "{}".into(),
            containers: 0,
        }
    }
}

impl Serialize for PodSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl Describe for PodSpec {
    fn describe(into: &mut Definitions) -> Value {
        crate::decode::describe_object("PodSpec", into)
    }
}

impl Decode for PodSpec {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        Self::from(&cx.object("PodSpec", node))
    }
}

impl Empty for PodSpec {
    fn is_empty(&self) -> bool {
        false
    }
}

/// Go writes lists that nobody set as `null`.
type List<T> = Option<Vec<T>>;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodView<'a> {
    #[serde(borrow)]
    init_containers: List<ContainerView<'a>>,
    #[serde(borrow)]
    containers: List<ContainerView<'a>>,
    #[serde(borrow)]
    volumes: List<Named<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerView<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) restart_policy: Cow<'a, str>,
    #[serde(borrow)]
    command: List<Text<'a>>,
    #[serde(borrow)]
    args: List<Text<'a>>,
    #[serde(borrow)]
    env: List<Named<'a>>,
    #[serde(borrow)]
    volume_mounts: List<MountView<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct MountView<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) mount_path: Cow<'a, str>,
}

/// A text that is borrowed where it can be; serde borrows in fields only.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> PodView<'a> {
    pub(crate) fn init_containers(&self) -> &[ContainerView<'a>] {
        self.init_containers.as_deref().unwrap_or_default()
    }

    pub(crate) fn containers(&self) -> &[ContainerView<'a>] {
        self.containers.as_deref().unwrap_or_default()
    }

    pub(crate) fn volumes(&self) -> &[Named<'a>] {
        self.volumes.as_deref().unwrap_or_default()
    }
}

impl<'a> ContainerView<'a> {
    pub(crate) fn env(&self) -> &[Named<'a>] {
        self.env.as_deref().unwrap_or_default()
    }

    pub(crate) fn mounts(&self) -> &[MountView<'a>] {
        self.volume_mounts.as_deref().unwrap_or_default()
    }

    /// The first word of what it runs, of its command if it has one.
    pub(crate) fn first_word(&self) -> &str {
        self.command
            .iter()
            .flatten()
            .chain(self.args.iter().flatten())
            .next()
            .map_or("", |text| &text.0)
    }
}
