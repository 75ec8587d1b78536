//! CFG-020…025 against upstream's own reading of small documents.

use serde_json::Value;
use trireme_config::yaml::{self, NodeValue};

use crate::answers;

/// What a field of each kind would get for key `a`.
fn as_string(node: &NodeValue) -> Option<Value> {
    Some(match node {
        NodeValue::Null => Value::Null,
        NodeValue::Bool(b) => b.to_string().into(),
        NodeValue::Number(n) => n.as_string().into(),
        NodeValue::String(s) => s.clone().into(),
        NodeValue::Sequence(_) | NodeValue::Mapping(_) => return None,
    })
}

#[test]
fn cfg_020_documents_read_as_upstream_reads_them() {
    let Some(cases) = answers::lines("yaml.jsonl") else {
        return;
    };
    let mut wrong = Vec::new();
    for case in cases {
        let text = case["yaml"].as_str().unwrap();
        let got = yaml::parse(text.as_bytes());
        let json = got
            .as_ref()
            .map_err(ToString::to_string)
            .and_then(|d| d.root.to_json().map_err(|(_, e)| e));
        let expected: Result<Value, _> = match case["json"].as_str() {
            Some(json) => Ok(serde_json::from_str(json).unwrap()),
            None => Err(case["error"].as_str().unwrap().to_owned()),
        };
        let same = match (&expected, &json) {
            (Ok(e), Ok(g)) => answers::same_json(e, g),
            (Err(_), Err(_)) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!("{text:?}: expected {expected:?}, got {json:?}"));
        }
        let Ok(document) = got else { continue };
        let Some(a) = document.root.get("a") else {
            continue;
        };
        let int = match &a.value {
            NodeValue::Null => Some(Value::Null),
            NodeValue::Number(n) => n.as_i64().map(Value::from),
            _ => None,
        };
        let bool = match &a.value {
            NodeValue::Null => Some(Value::Null),
            NodeValue::Bool(b) => Some(Value::from(*b)),
            _ => None,
        };
        for (key, found) in [
            ("as_string", as_string(&a.value)),
            ("as_int", int),
            ("as_bool", bool),
        ] {
            if case.get(key) != found.as_ref() {
                wrong.push(format!(
                    "{text:?}: {key} expected {:?}, got {found:?}",
                    case.get(key)
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
