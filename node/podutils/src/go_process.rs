//! Child processes as Go's `os/exec` reports them: both outputs in one stream, errors in Go's words.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

/// Output kept of one command, in bytes; what comes after is counted, not kept.
const MAX_OUTPUT: usize = 1024 * 1024;

/// Runs to the end; output is standard output and error as they came. `Err` is Go's text for the failure.
pub(crate) fn combined_output(command: &mut Command) -> (String, Result<(), String>) {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut run = || -> io::Result<(Vec<u8>, ExitStatus)> {
        let (mut reader, writer) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let child = command.spawn();
        // The command still holds the writing ends: without this the pipe would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child?;
        let output = read_bounded(&mut reader)?;
        Ok((output, child.wait()?))
    };
    match run() {
        Ok((output, status)) => {
            let text = String::from_utf8_lossy(&output).into_owned();
            (
                text,
                if status.success() {
                    Ok(())
                } else {
                    Err(exit_text(status))
                },
            )
        }
        Err(error) => (String::new(), Err(start_error(&program, &error))),
    }
}

fn read_bounded(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    reader
        .by_ref()
        .take(MAX_OUTPUT as u64)
        .read_to_end(&mut kept)?;
    let dropped = io::copy(reader, &mut io::sink())?;
    if dropped > 0 {
        kept.extend_from_slice(
            format!("\n... {dropped} more bytes of output not kept\n").as_bytes(),
        );
    }
    Ok(kept)
}

/// `exit status 1`, `signal: killed`.
pub(crate) fn exit_text(status: ExitStatus) -> String {
    if let Some(code) = status.code() {
        return format!("exit status {code}");
    }
    match status.signal() {
        Some(signal) => format!("signal: {}", signal_name(signal)),
        None => status.to_string(),
    }
}

/// Go's words for a signal.
pub(crate) fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        6 => "aborted",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        15 => "terminated",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// Go's words for a program that could not be started.
pub(crate) fn start_error(program: &str, error: &io::Error) -> String {
    if program.contains('/') {
        return format!("fork/exec {program}: {}", os_error(error));
    }
    match error.kind() {
        io::ErrorKind::NotFound => format!("exec: {program:?}: executable file not found in $PATH"),
        _ => format!("exec: {program:?}: {}", os_error(error)),
    }
}

/// Go's words for an operating system error: lower case, without number.
pub(crate) fn os_error(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => {
            let mut rest = words.chars();
            rest.next()
                .map(|first| first.to_lowercase().to_string() + rest.as_str())
                .unwrap_or_default()
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_errors_in_gos_words() {
        let sh = |script: &str| combined_output(Command::new("sh").args(["-c", script]));
        assert_eq!(
            sh("echo out; echo err >&2"),
            ("out\nerr\n".to_owned(), Ok(()))
        );
        assert_eq!(
            sh("exit 3"),
            (String::new(), Err("exit status 3".to_owned()))
        );
        assert_eq!(
            sh("kill -9 $$"),
            (String::new(), Err("signal: killed".to_owned()))
        );
        let missing = |program: &str| combined_output(&mut Command::new(program)).1.unwrap_err();
        insta::assert_snapshot!(missing("/no/such/program"), @"fork/exec /no/such/program: no such file or directory");
        insta::assert_snapshot!(missing("no-such-program"), @r#"exec: "no-such-program": executable file not found in $PATH"#);
    }

    #[test]
    fn output_is_bounded() {
        let (output, result) =
            combined_output(Command::new("sh").args(["-c", "head -c 2000000 /dev/zero"]));
        assert_eq!(result, Ok(()));
        assert!(output.len() < MAX_OUTPUT + 100);
        assert!(output.ends_with(&format!(
            "\n... {} more bytes of output not kept\n",
            2_000_000 - MAX_OUTPUT
        )));
    }
}
