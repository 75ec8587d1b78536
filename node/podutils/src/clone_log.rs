//! Clone records as people read them (POD-051).

use std::fmt::Write;

use trireme_prowjob::{CloneRecord, GoDuration};

/// All records, one after another.
pub(crate) fn render(records: &[CloneRecord]) -> String {
    let mut out = String::new();
    for record in records {
        // Writing to a String cannot fail.
        let _ = render_record(record, &mut out);
    }
    out
}

fn render_record(record: &CloneRecord, out: &mut String) -> std::fmt::Result {
    let refs = &record.refs;
    if record.failed {
        writeln!(out, "# FAILED")?;
    }
    if refs.repo.is_empty() {
        write!(out, "Environment setup")?;
    } else {
        write!(
            out,
            "# Cloning {}/{} at {}",
            refs.org, refs.repo, refs.base_ref
        )?;
    }
    if !refs.base_sha.is_empty() {
        write!(out, "({})", refs.base_sha)?;
    }
    writeln!(out)?;
    if !refs.pulls.is_empty() {
        writeln!(out, "# Checking out pulls:")?;
    }
    for pull in &refs.pulls {
        write!(out, "#\t{}", pull.number)?;
        if !pull.sha.is_empty() {
            write!(out, "({})", pull.sha)?;
        }
        writeln!(out)?;
    }
    for command in &record.commands {
        write!(out, "$ {}", command.command)?;
        if command.duration != 0 {
            write!(out, " (runtime: {})", GoDuration(command.duration))?;
        }
        writeln!(out)?;
        out.push_str(&command.output);
        if !command.error.is_empty() {
            writeln!(out, "# Error: {}", command.error)?;
        }
    }
    writeln!(out, "# Final SHA: {}", record.final_sha)?;
    writeln!(out, "# Total runtime: {}", GoDuration(record.duration))
}

#[cfg(test)]
mod tests {
    use trireme_prowjob::{CloneCommand, Pull, Refs};

    use super::*;

    #[test]
    fn pod_051_rendering() {
        let setup = CloneRecord::default();
        let refs = Refs {
            org: "o".into(),
            repo: "r".into(),
            base_ref: "main".into(),
            base_sha: "b".into(),
            pulls: vec![
                Pull {
                    number: 1,
                    sha: "s".into(),
                    ..Pull::default()
                },
                Pull {
                    number: 2,
                    ..Pull::default()
                },
            ],
            ..Refs::default()
        };
        let commands = vec![
            CloneCommand {
                command: "git init".into(),
                output: "ok\n".into(),
                duration: 1_500_000,
                ..CloneCommand::default()
            },
            CloneCommand {
                command: "git x".into(),
                output: "bad\n".into(),
                error: "exit status 1".into(),
                duration: 0,
            },
        ];
        let clone = CloneRecord {
            refs,
            commands,
            failed: true,
            final_sha: String::new(),
            duration: 2_000_000_000,
        };
        insta::assert_snapshot!(render(&[setup, clone]), @r"
        Environment setup
        # Final SHA: 
        # Total runtime: 0s
        # FAILED
        # Cloning o/r at main(b)
        # Checking out pulls:
        #	1(s)
        #	2
        $ git init (runtime: 1.5ms)
        ok
        $ git x
        bad
        # Error: exit status 1
        # Final SHA: 
        # Total runtime: 2s
        ");
    }
}
