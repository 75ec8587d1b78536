//! CFG-028 against Go's own matches.

use trireme_config::GoRegex;

use crate::answers;

#[test]
fn cfg_028_matches_are_those_of_go() {
    let Some(cases) = answers::lines("regexes.jsonl.gz") else {
        return;
    };
    let mut wrong = Vec::new();
    for case in cases {
        let source = case["regex"].as_str().unwrap();
        let regex = GoRegex::new(source);
        if regex.is_ok() != case["valid"].as_bool().unwrap() {
            wrong.push(format!("{source}: valid {}, got {regex:?}", case["valid"]));
        }
        let Ok(regex) = regex else { continue };
        for result in case["results"].as_array().into_iter().flatten() {
            let text = result[0].as_str().unwrap();
            let expected = result[1]
                .as_array()
                .map(|at| at[0].as_u64().unwrap() as usize..at[1].as_u64().unwrap() as usize);
            if regex.find(text) != expected {
                wrong.push(format!(
                    "{source} on {text:?}: expected {expected:?}, got {:?}",
                    regex.find(text)
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
