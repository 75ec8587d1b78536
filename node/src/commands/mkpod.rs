//! `mkpod`: a ProwJob as the pod that an executor would create for it.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};
use trireme_config::{Diagnostic, read_prow_job};
use trireme_podutils::pod::pod;
use trireme_prowjob::{ProwJob, labels};

use super::ask::{Terminal, note};
use crate::{
    exit::{CONFIG, USAGE, coded},
    output::{Notation, print_document},
};

/// Of a ProwJob that is read.
const MAX_PROW_JOB_BYTES: u64 = 16 << 20;
/// Milliseconds that Prow's build ids count from.
const BUILD_ID_EPOCH_MS: i64 = 1_288_834_974_657;

/// Print the pod that runs a ProwJob, decorated as an executor would do it.
///
/// The label `created-by-prow` is left out, so that nothing that cleans up after Prow takes the pod for its own:
///
///   trireme mkpj --config-path config.yaml --job unit > pj.yaml
///   trireme mkpod --prow-job pj.yaml --build-id snowflake | kubectl apply -f -
///
/// With --local, files are copied to a directory of the host instead of uploaded, and no credentials are needed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct MkpodArgs {
    /// A ProwJob as YAML or JSON; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub prow_job: String,
    /// The run's build id, or `snowflake` to make one; that of the ProwJob's status when absent.
    #[arg(long, default_value = "", value_name = "ID", hide_default_value = true)]
    pub build_id: String,
    /// Copy artifacts to a directory of the host instead of uploading them.
    #[arg(long)]
    pub local: bool,
    /// With --local: where the files go, below the build id; a new temporary directory when absent.
    #[arg(
        long,
        default_value = "",
        value_name = "DIR",
        hide_default_value = true
    )]
    pub out_dir: String,
    /// With --local: what a volume that is neither emptyDir nor hostPath becomes: `empty`, a path on the host, or `keep`.
    /// May be given several times. Others are asked for on a terminal and kept without one.
    #[arg(long = "volume", value_parser = volume, value_name = "NAME=empty|PATH|keep")]
    pub volumes: Vec<(String, String)>,
    /// How the pod is written.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Notation,
}

impl MkpodArgs {
    fn check(&self) -> anyhow::Result<()> {
        if self.prow_job.is_empty() {
            let message = "--prow-job is mandatory: a file with a ProwJob, or - for standard input";
            return Err(coded(USAGE, message));
        }
        if !self.local && !self.out_dir.is_empty() {
            let message = "--out-dir may only be given with --local: otherwise files are uploaded";
            return Err(coded(USAGE, message));
        }
        if !self.local && !self.volumes.is_empty() {
            let message = "--volume may only be given with --local";
            return Err(coded(USAGE, message));
        }
        Ok(())
    }
}

fn volume(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, choice)) if !name.is_empty() => Ok((name.to_owned(), choice.to_owned())),
        _ => Err("write it as NAME=empty, NAME=/path/on/host or NAME=keep".to_owned()),
    }
}

/// # Errors
/// When the ProwJob cannot be read or made a pod of.
pub fn run(args: &MkpodArgs) -> anyhow::Result<()> {
    args.check()?;
    let (name, content) = read(&args.prow_job)?;
    let (mut job, odd) = prow_job(&name, &content)?;
    for found in odd {
        note(&found.to_string());
    }
    if job.spec.job.is_empty() && job.spec.pod_spec.is_none() {
        let message = format!(
            "{name}: this is no ProwJob, its spec has neither a job nor a pod_spec; `trireme mkpj` prints one"
        );
        return Err(coded(CONFIG, message));
    }
    set_build_id(&mut job, &args.build_id);
    let out_dir = if args.local {
        Some(out_dir(args, &job)?)
    } else {
        None
    };
    let mut pod = pod(&job, out_dir.as_deref())?;
    if args.local {
        replace_volumes(&mut pod, &args.volumes, &Terminal::of_process())?;
    }
    leave_alone(&mut pod);
    print_document(&pod, args.output)
}

fn read(path: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let mut content = Vec::new();
    let name = if path == "-" {
        let mut input = std::io::stdin().lock().take(MAX_PROW_JOB_BYTES + 1);
        input.read_to_end(&mut content).context("standard input")?;
        "standard input".to_owned()
    } else {
        let name = path.to_owned();
        let file = std::fs::File::open(path).with_context(|| format!("--prow-job {name}"))?;
        let mut input = file.take(MAX_PROW_JOB_BYTES + 1);
        input
            .read_to_end(&mut content)
            .with_context(|| name.clone())?;
        name
    };
    anyhow::ensure!(
        content.len() as u64 <= MAX_PROW_JOB_BYTES,
        "{name}: larger than the {MAX_PROW_JOB_BYTES} bytes that a ProwJob may have"
    );
    Ok((name, content))
}

fn prow_job(name: &str, content: &[u8]) -> anyhow::Result<(ProwJob, Vec<Diagnostic>)> {
    read_prow_job(name, content).map_err(|found| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        coded(CONFIG, lines.join("\n"))
    })
}

fn set_build_id(job: &mut ProwJob, given: &str) {
    if given.eq_ignore_ascii_case("snowflake") {
        job.status.build_id = snowflake(super::now_ms(), uuid::Uuid::new_v4().as_u128());
    } else if !given.is_empty() {
        given.clone_into(&mut job.status.build_id);
    }
    if job.status.build_id.is_empty() {
        note(
            "the ProwJob's status has no build id: where its files go says nothing about the run; give one with --build-id",
        );
    }
}

/// Prow's layout: milliseconds, ten bits of the maker, twelve of a counter (EXE-065).
fn snowflake(now_ms: i64, random: u128) -> String {
    let time = u64::try_from(now_ms - BUILD_ID_EPOCH_MS).unwrap_or_default();
    let low = u64::try_from(random & 0x3f_ffff).unwrap_or_default();
    ((time << 22) | low).to_string()
}

/// ADM-186: the directory on the host that the pod's files are copied to.
fn out_dir(args: &MkpodArgs, job: &ProwJob) -> anyhow::Result<String> {
    let directory = match args.out_dir.as_str() {
        // Kubernetes takes absolute paths only.
        directory if !directory.is_empty() => {
            std::path::absolute(Path::new(directory).join(&job.status.build_id))
                .with_context(|| format!("--out-dir {directory}"))?
        }
        _ => {
            let name = format!("prowjob-out-{}-{}", job.spec.job, job.status.build_id);
            tempfile::Builder::new()
                .prefix(&name.replace('/', "-"))
                .tempdir()
                .context("a temporary directory for the pod's files")?
                .keep()
        }
    };
    let directory = directory.display().to_string();
    note(&format!(
        "the pod copies its files to {directory} on its host"
    ));
    Ok(directory)
}

/// ADM-186: volumes that a cluster on this machine hardly has.
fn replace_volumes(
    pod: &mut Value,
    given: &[(String, String)],
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let mut given: BTreeMap<&str, &str> = given
        .iter()
        .map(|(name, choice)| (name.as_str(), choice.as_str()))
        .collect();
    let mut explained = false;
    let volumes = pod
        .pointer_mut("/spec/volumes")
        .and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        let local = |volume: &Value, kind: &str| volume.get(kind).is_some_and(|v| !v.is_null());
        if local(volume, "hostPath") || local(volume, "emptyDir") {
            continue;
        }
        let name = volume["name"].as_str().unwrap_or_default().to_owned();
        let choice = match given.remove(name.as_str()) {
            Some(choice) => choice.to_owned(),
            None if terminal.is_attended() => {
                if !explained {
                    note(
                        "for each volume say `empty` for an emptyDir, a path on the host for a hostPath, or nothing to leave it as it is",
                    );
                    explained = true;
                }
                terminal.ask(&format!("Volume {name:?}: "), "--volume")?
            }
            None => String::new(),
        };
        match choice.as_str() {
            "" | "keep" => {}
            word if word == "empty" || word.eq_ignore_ascii_case("emptydir") => {
                *volume = json!({"name": name, "emptyDir": {}});
            }
            path => *volume = json!({"name": name, "hostPath": {"path": path}}),
        }
    }
    if let Some(name) = given.keys().next() {
        return Err(coded(
            USAGE,
            format!(
                "--volume {name}: the pod has no such volume that is neither emptyDir nor hostPath"
            ),
        ));
    }
    Ok(())
}

/// ADM-185: without the label that tells those who clean up whose it is.
fn leave_alone(pod: &mut Value) {
    let labels = pod
        .pointer_mut("/metadata/labels")
        .and_then(Value::as_object_mut);
    if let Some(labels) = labels {
        let kept: Map<String, Value> = std::mem::take(labels)
            .into_iter()
            .filter(|(name, _)| name != labels::CREATED_BY_PROW)
            .collect();
        *labels = kept;
    }
}

#[cfg(test)]
#[path = "../../podutils/src/oracle.rs"]
mod oracle;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a field out, wherever it is.
    fn without(value: &mut Value, name: &str) {
        match value {
            Value::Object(map) => {
                map.shift_remove(name);
                map.values_mut().for_each(|value| without(value, name));
            }
            Value::Array(items) => items.iter_mut().for_each(|value| without(value, name)),
            _ => {}
        }
    }

    /// Equal as JSON; in options and `JOB_SPEC` that is letter for letter.
    ///
    /// ADM-185: the whole way of the command, from a ProwJob that mkpj would print to the pod; without differences.
    #[test]
    fn adm_185_from_a_printed_prowjob_to_the_pod_of_upstream() {
        let jobs: BTreeMap<u64, Value> = oracle::lines("prowjobs.jsonl.gz")
            .into_iter()
            .map(|row| (row["n"].as_u64().unwrap(), row))
            .collect();
        let (mut wrong, mut compared) = (Vec::new(), 0);
        for row in oracle::lines("pods.jsonl.gz") {
            let input = &jobs[&row["n"].as_u64().unwrap()];
            let printed = trireme_config::yaml::to_string(&input["prowjob"]).unwrap();
            for (key, out_dir) in [
                ("pod", None),
                ("pod_local_output_dir_/tmp/out", Some("/tmp/out")),
            ] {
                let Some(expected) = row.get(key) else {
                    continue;
                };
                let (mut job, _) = prow_job("pj.yaml", printed.as_bytes()).unwrap();
                set_build_id(&mut job, input["build_id"].as_str().unwrap());
                let mut found = pod(&job, out_dir).unwrap();
                leave_alone(&mut found);
                let printed = trireme_config::yaml::to_string(&found).unwrap();
                let document = trireme_config::yaml::parse(printed.as_bytes()).unwrap();
                let mut found = document.root.to_json().unwrap();
                let mut expected = expected.clone();
                let labels = expected.pointer_mut("/metadata/labels").unwrap();
                labels.as_object_mut().unwrap().remove("created-by-prow");
                // The expectation's older library writes it where it is not set, in templates of volumes too.
                without(&mut expected, "creationTimestamp");
                for field in ["apiVersion", "kind"] {
                    found.as_object_mut().unwrap().remove(field);
                }
                compared += 1;
                if found != expected {
                    wrong.push(format!("{} {key}:\n{expected}\n{found}", row["job"]));
                }
            }
        }
        println!("{compared} pods");
        assert!(
            wrong.is_empty(),
            "{} of {compared} differ:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(3)].join("\n")
        );
        assert!(compared > 700 || jobs.is_empty());
    }

    #[test]
    fn adm_185_build_ids_have_prows_layout() {
        let now = 1_764_201_600_000;
        let id: u64 = snowflake(now, u128::MAX).parse().unwrap();
        assert_eq!(id >> 22, (now - BUILD_ID_EPOCH_MS) as u64);
        assert_eq!(id & 0x3f_ffff, 0x3f_ffff);
    }

    #[test]
    fn adm_186_volumes_become_what_is_said() {
        let volumes = |given: &[(&str, &str)]| {
            let mut pod = json!({"spec": {"volumes": [
                {"name": "a", "secret": {"secretName": "s"}}, {"name": "b", "configMap": {}},
                {"name": "c", "emptyDir": {}}, {"name": "d", "secret": {}}]}});
            let given: Vec<_> = given
                .iter()
                .map(|(name, choice)| ((*name).to_owned(), (*choice).to_owned()))
                .collect();
            replace_volumes(&mut pod, &given, &Terminal::of_nobody())
                .map(|()| pod["spec"]["volumes"].to_string())
        };
        insta::assert_snapshot!(volumes(&[("a", "empty"), ("b", "/etc/b"), ("d", "keep")]).unwrap(), @r#"[{"name":"a","emptyDir":{}},{"name":"b","hostPath":{"path":"/etc/b"}},{"name":"c","emptyDir":{}},{"name":"d","secret":{}}]"#);
        insta::assert_snapshot!(volumes(&[("c", "empty")]).unwrap_err(), @"--volume c: the pod has no such volume that is neither emptyDir nor hostPath");
        assert!(volume("=x").is_err());
    }
}
