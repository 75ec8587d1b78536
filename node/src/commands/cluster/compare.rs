//! `cluster compare`: do all members hold the same state?

use serde_json::{Value, json};
use trireme_proto::api::{
    CompareReplicasRequest, CompareReplicasResponse, ComparedReplica, ReplicaAnswer,
};

use crate::{
    cli::Target,
    commands::connect,
    exit::{DIVERGED, coded},
    output::{Format, print, print_json, table},
};

pub(super) async fn run(target: &Target) -> anyhow::Result<()> {
    let answer = connect(target)
        .await?
        .cluster()
        .compare_replicas(CompareReplicasRequest {})
        .await?
        .into_inner();
    let verdict = Verdict::of(&answer);
    match target.output {
        Format::Json => print_json(&to_json(&answer, &verdict))?,
        Format::Text => print(&to_text(&answer, &verdict))?,
    }
    match verdict.code {
        0 => Ok(()),
        code => Err(coded(code, verdict.words)),
    }
}

/// What the answers mean together.
struct Verdict {
    /// For programs.
    name: &'static str,
    code: u8,
    /// A sentence, and what to do next where all is not well.
    words: String,
}

impl Verdict {
    fn of(answer: &CompareReplicasResponse) -> Self {
        let said = |wanted: ReplicaAnswer| -> Vec<&ComparedReplica> {
            let all = answer.replicas.iter();
            all.filter(|replica| replica.answer() == wanted).collect()
        };
        let differ = said(ReplicaAnswer::Differs);
        let undecided = said(ReplicaAnswer::Undecided);
        let mut silent = said(ReplicaAnswer::None);
        silent.extend(said(ReplicaAnswer::Unspecified));
        let silence = match silent.is_empty() {
            true => String::new(),
            false => format!(
                "{} gave no answer within {} s: see with `trireme cluster status --all` whether it runs and how far it is \
                 behind, then compare again",
                nodes(&silent),
                answer.waited_millis / 1000
            ),
        };
        let also = |words: String| match silence.is_empty() {
            true => words,
            false => format!("{words}\n{silence}"),
        };
        if !differ.is_empty() {
            let words = format!(
                "{} does not hold the state that the majority holds. It stops with code {DIVERGED}: start it again, it then \
                 fetches the others' state. If it comes to differ again, suspect the machine's memory and replace it: \
                 `trireme cluster replace {} <new>`",
                nodes(&differ),
                differ[0].node_id
            );
            return Self {
                name: "differs",
                code: DIVERGED,
                words: also(words),
            };
        }
        let first = undecided.first().map(|replica| &replica.digest);
        if undecided.iter().any(|other| Some(&other.digest) != first) {
            let words = "the members hold different states, and none is a majority's: stop taking changes, save a debug bundle, \
                         and begin a new cluster from a saved snapshot or from one node's disk"
                .to_owned();
            return Self {
                name: "undecided",
                code: DIVERGED,
                words: also(words),
            };
        }
        if !silent.is_empty() || !undecided.is_empty() {
            return Self {
                name: "incomplete",
                code: 1,
                words: silence,
            };
        }
        Self {
            name: "equal",
            code: 0,
            words: match answer.replicas.len() {
                1 => "the only member there is agrees with itself".to_owned(),
                count => format!("all {count} members hold the same state"),
            },
        }
    }
}

/// node 2; nodes 2, 3
fn nodes(replicas: &[&ComparedReplica]) -> String {
    let ids: Vec<String> = replicas
        .iter()
        .map(|replica| replica.node_id.to_string())
        .collect();
    let plural = if ids.len() == 1 { "" } else { "s" };
    format!("node{plural} {}", ids.join(", "))
}

/// Null where a member said nothing.
fn word(answer: ReplicaAnswer) -> Option<&'static str> {
    match answer {
        ReplicaAnswer::Equal => Some("equal"),
        ReplicaAnswer::Differs => Some("differs"),
        ReplicaAnswer::Undecided => Some("undecided"),
        ReplicaAnswer::None | ReplicaAnswer::Unspecified => None,
    }
}

fn to_json(answer: &CompareReplicasResponse, verdict: &Verdict) -> Value {
    let or_null = |digest: &String| (!digest.is_empty()).then(|| digest.clone());
    json!({
        "audit": answer.audit_index, "digest": or_null(&answer.agreed_digest), "verdict": verdict.name,
        "nodes": answer.replicas.iter().map(|replica| json!({
            "id": replica.node_id, "voter": replica.voter, "answer": word(replica.answer()),
            "digest": or_null(&replica.digest),
        })).collect::<Vec<_>>(),
    })
}

/// The verdict only where all is well: what is not is told on standard error.
fn to_text(answer: &CompareReplicasResponse, verdict: &Verdict) -> String {
    let rows: Vec<Vec<String>> = answer
        .replicas
        .iter()
        .map(|replica| {
            let said = match replica.answer() {
                ReplicaAnswer::Differs => "DIFFERS",
                other => word(other).unwrap_or("no answer"),
            };
            let digest = match replica.digest.as_str() {
                "" => "-",
                digest => digest,
            };
            vec![
                replica.node_id.to_string(),
                if replica.voter { "voter" } else { "learner" }.to_owned(),
                said.to_owned(),
                digest.to_owned(),
            ]
        })
        .collect();
    let mut text = format!(
        "compared at entry {}\n\n{}",
        answer.audit_index,
        table(&["NODE", "ROLE", "STATE", "DIGEST"], &rows)
    );
    if verdict.code == 0 {
        text.push_str(&format!("\n{}\n", verdict.words));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(replicas: &[(ReplicaAnswer, &str)]) -> CompareReplicasResponse {
        CompareReplicasResponse {
            audit_index: 1234,
            agreed_digest: "aa11".into(),
            replicas: (1..)
                .zip(replicas)
                .map(|(id, (answer, digest))| ComparedReplica {
                    node_id: id,
                    voter: id < 4,
                    answer: (*answer).into(),
                    digest: (*digest).to_owned(),
                })
                .collect(),
            waited_millis: 10_002,
        }
    }

    #[test]
    fn equal_members_are_said_to_be() {
        let equal = (ReplicaAnswer::Equal, "aa11");
        let answer = answered(&[equal; 4]);
        let verdict = Verdict::of(&answer);
        assert_eq!((verdict.code, verdict.name), (0, "equal"));
        insta::assert_snapshot!(to_text(&answer, &verdict), @r"
        compared at entry 1234

        NODE  ROLE     STATE  DIGEST
        1     voter    equal  aa11
        2     voter    equal  aa11
        3     voter    equal  aa11
        4     learner  equal  aa11

        all 4 members hold the same state
        ");
        let alone = Verdict::of(&answered(&[equal]));
        insta::assert_snapshot!(alone.words, @"the only member there is agrees with itself");
    }

    #[test]
    fn one_that_differs_and_one_that_is_silent_are_named_with_what_to_do() {
        let answer = answered(&[
            (ReplicaAnswer::Equal, "aa11"),
            (ReplicaAnswer::Differs, "bb22"),
            (ReplicaAnswer::Equal, "aa11"),
            (ReplicaAnswer::None, ""),
        ]);
        let verdict = Verdict::of(&answer);
        assert_eq!((verdict.code, verdict.name), (DIVERGED, "differs"));
        insta::assert_snapshot!(to_text(&answer, &verdict), @r"
        compared at entry 1234

        NODE  ROLE     STATE      DIGEST
        1     voter    equal      aa11
        2     voter    DIFFERS    bb22
        3     voter    equal      aa11
        4     learner  no answer  -
        ");
        insta::assert_snapshot!(verdict.words, @r"
        node 2 does not hold the state that the majority holds. It stops with code 75: start it again, it then fetches the others' state. If it comes to differ again, suspect the machine's memory and replace it: `trireme cluster replace 2 <new>`
        node 4 gave no answer within 10 s: see with `trireme cluster status --all` whether it runs and how far it is behind, then compare again
        ");
        let value = to_json(&answer, &verdict);
        assert_eq!(value["verdict"], "differs");
        assert_eq!(value["nodes"][1]["answer"], "differs");
        assert_eq!(value["nodes"][3]["answer"], Value::Null);

        let silent = Verdict::of(&answered(&[
            (ReplicaAnswer::Equal, "aa11"),
            (ReplicaAnswer::Equal, "aa11"),
            (ReplicaAnswer::None, ""),
        ]));
        assert_eq!((silent.code, silent.name), (1, "incomplete"));
    }

    #[test]
    fn without_a_majority_nobody_is_right() {
        let split = Verdict::of(&answered(&[
            (ReplicaAnswer::Undecided, "aa11"),
            (ReplicaAnswer::Undecided, "bb22"),
        ]));
        assert_eq!((split.code, split.name), (DIVERGED, "undecided"));
        insta::assert_snapshot!(split.words, @"the members hold different states, and none is a majority's: stop taking changes, save a debug bundle, and begin a new cluster from a saved snapshot or from one node's disk");
        // One answer alone says nothing.
        let few = Verdict::of(&answered(&[
            (ReplicaAnswer::Undecided, "aa11"),
            (ReplicaAnswer::None, ""),
            (ReplicaAnswer::None, ""),
        ]));
        assert_eq!((few.code, few.name), (1, "incomplete"));
        assert!(few.words.starts_with("nodes 2, 3 gave no answer"));
    }
}
