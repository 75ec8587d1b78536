//! Flags as Go's programs take them, and so as they stand in people's scripts: long ones with one dash, switches with a
//! value.

use std::ffi::OsString;

use clap::Command;

/// Puts a second dash before long flags that have one only. What is no long flag of the verb stays as it is.
pub(crate) fn doubled(program: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut command = program;
    let mut is_verb = true;
    let mut ended = false;
    let rewrite = |(n, argument): (usize, OsString)| {
        let Some(text) = argument.to_str().filter(|_| n > 0 && !ended) else {
            return argument;
        };
        if text == "--" {
            ended = true;
            return argument;
        }
        if is_verb && !text.starts_with('-') {
            match command.find_subcommand(text) {
                Some(verb) => command = verb,
                None => is_verb = false,
            }
            return argument;
        }
        let Some(flag) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
            return argument;
        };
        let name = flag.split('=').next().unwrap_or(flag);
        let is_long = |known: &clap::Arg| {
            known.get_long() == Some(name)
                || known
                    .get_all_aliases()
                    .is_some_and(|all| all.contains(&name))
        };
        if name.len() > 1 && command.get_arguments().any(is_long) {
            return format!("-{text}").into();
        }
        argument
    };
    arguments.into_iter().enumerate().map(rewrite).collect()
}

/// A switch's value, as Go reads it.
///
/// # Errors
/// Anything else.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// A duration in Go's text form.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let duration: trireme_prowjob::GoDuration = text.parse().map_err(|e| format!("{e}"))?;
    let nanoseconds =
        u64::try_from(duration.as_nanos()).map_err(|_| "it is negative".to_owned())?;
    Ok(std::time::Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn rewritten(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let rewritten = doubled(&Cli::command(), words);
        rewritten.join(&OsString::from(" ")).into_string().unwrap()
    }

    /// CFG-111: as scripts have them.
    #[test]
    fn cfg_111_long_flags_may_have_one_dash() {
        insta::assert_snapshot!(
            rewritten("trireme checkconfig -config-path=c.yaml -job-config-path jobs -strict --warnings=x -o json"),
            @"trireme checkconfig --config-path=c.yaml --job-config-path jobs --strict --warnings=x -o json"
        );
        insta::assert_snapshot!(rewritten("trireme config apply -config-path c -m x"), @"trireme config apply --config-path c -m x");
        insta::assert_snapshot!(rewritten("trireme checkconfig -unknown -- -strict"), @"trireme checkconfig -unknown -- -strict");
        insta::assert_snapshot!(
            rewritten("trireme checkconfig -supplemental-prow-configs-filename=x"),
            @"trireme checkconfig --supplemental-prow-configs-filename=x"
        );
    }

    #[test]
    fn switches_and_durations_read_as_in_go() {
        assert_eq!([switch("T"), switch("0")], [Ok(true), Ok(false)]);
        assert!(switch("yes").is_err());
        assert_eq!(duration("1m30s").map(|d| d.as_secs()), Ok(90));
        assert!(duration("-1s").is_err() && duration("90").is_err());
    }
}
