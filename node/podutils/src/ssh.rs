//! Keys and known hosts for cloning over SSH (POD-044).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use trireme_prowjob::CloneCommand;

use crate::go_process;

const KNOWN_HOSTS: &str = "/tmp/known_hosts";

/// Starts an agent and adds every key file below the paths. Returns the agent's variables, `KEY=value`.
pub(crate) fn add_keys(
    paths: &[String],
    done: &mut Vec<CloneCommand>,
) -> Result<Vec<String>, String> {
    let (output, result) = go_process::combined_output(&mut Command::new("ssh-agent"));
    done.push(command("ssh-agent", &output, &result));
    result.map_err(|e| format!("start ssh-agent: {e}"))?;
    // Bourne shell: `SSH_AUTH_SOCK=...; export SSH_AUTH_SOCK;` and the same for the process id.
    let env: Vec<String> = output
        .split(';')
        .map(str::trim)
        .filter(|part| part.starts_with("SSH_"))
        .map(str::to_owned)
        .collect();
    for path in paths {
        for key in
            files_below(Path::new(path)).map_err(|e| format!("walking path {path:?}: {e}"))?
        {
            let mut add = Command::new("ssh-add");
            add.arg(&key)
                .envs(env.iter().filter_map(|pair| pair.split_once('=')));
            let (output, result) = go_process::combined_output(&mut add);
            done.push(command(
                &format!("ssh-add {:?}", key.display().to_string()),
                &output,
                &result,
            ));
            result.map_err(|e| format!("add ssh key at {}: {e}: {output}", key.display()))?;
        }
    }
    Ok(env)
}

/// Trusts these hosts. Returns the variable that makes git use the file.
pub(crate) fn trust_hosts(
    fingerprints: &[String],
    done: &mut Vec<CloneCommand>,
) -> Result<String, String> {
    let append = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(KNOWN_HOSTS)?;
        file.write_all(fingerprints.join("\n").as_bytes())
    };
    let result = append().map_err(|e| go_process::os_error(&e));
    done.push(command(&format!("append {KNOWN_HOSTS:?}"), "", &result));
    result.map_err(|e| format!("append {KNOWN_HOSTS}: {e}"))?;

    let ssh = look_path("ssh").ok_or_else(|| "executable file not found in $PATH".to_owned());
    done.push(command(
        "lookup ssh path",
        "",
        &ssh.as_ref().map(|_| ()).map_err(Clone::clone),
    ));
    let ssh = ssh.map_err(|e| format!("lookup ssh path: {e}"))?;
    Ok(format!(
        "GIT_SSH_COMMAND={} -o UserKnownHostsFile={KNOWN_HOSTS}",
        ssh.display()
    ))
}

fn command(text: &str, output: &str, result: &Result<(), String>) -> CloneCommand {
    CloneCommand {
        command: text.to_owned(),
        output: output.to_owned(),
        error: result.as_ref().err().cloned().unwrap_or_default(),
        duration: 0,
    }
}

/// Files at or below a path, sorted. Names that begin with `..` are left out: Kubernetes puts its own bookkeeping of
/// a mounted secret there.
pub(crate) fn files_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        if path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(".."))
        {
            continue;
        }
        if fs::metadata(&path)?.is_dir() && !fs::symlink_metadata(&path)?.is_symlink() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn look_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_044_bookkeeping_of_mounted_secrets_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("..2026")).unwrap();
        fs::create_dir_all(at("sub")).unwrap();
        for name in ["..2026/key", "key", "sub/other"] {
            fs::write(at(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("..2026", at("..data")).unwrap();
        std::os::unix::fs::symlink("..2026/key", at("linked")).unwrap();
        assert_eq!(
            files_below(dir.path()).unwrap(),
            [at("key"), at("linked"), at("sub/other")]
        );
    }
}
