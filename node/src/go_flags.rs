//! Flags as Go's programs take them, and so as they stand in people's scripts: long ones with one dash, switches with a
//! value.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Has every switch take a value after `=`, too, so that the last of `--x --x=false` wins: for [`Command::mut_args`].
pub(crate) fn with_values(argument: Arg) -> Arg {
    if !matches!(argument.get_action(), ArgAction::SetTrue) {
        return argument;
    }
    argument
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .value_parser(switch)
        .value_name("BOOL")
        .default_value("false")
        .default_missing_value("true")
        .hide_default_value(true)
}

/// Puts a second dash before long flags that have one only, and before what can be nothing but a misspelt one: the error
/// then names it. What begins with a short flag of the verb stays as it is.
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
        let is_long = |known: &Arg| {
            known.get_long() == Some(name)
                || known
                    .get_all_aliases()
                    .is_some_and(|all| all.contains(&name))
        };
        let first = name.chars().next();
        let is_short = |known: &Arg| known.get_short().is_some() && known.get_short() == first;
        // Numbers may be values; help and version have short flags that are not listed.
        let may_be_short = first.is_none_or(|first| !first.is_alphabetic() || "hV".contains(first));
        let mut known = command.get_arguments();
        if name.len() > 1
            && (known.any(is_long) || !(may_be_short || command.get_arguments().any(is_short)))
        {
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
    use clap::{CommandFactory as _, Parser as _};

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
        insta::assert_snapshot!(rewritten("trireme mkpj -job=x -trigger-job=0 -pull-number -1"), @"trireme mkpj --job=x --trigger-job=0 --pull-number -1");
        insta::assert_snapshot!(rewritten("trireme mkpod -prow-job - -local"), @"trireme mkpod --prow-job - --local");
        // Nothing but a misspelt long flag; short ones stay.
        insta::assert_snapshot!(rewritten("trireme checkconfig -unknown -ojson -help -- -strict"), @"trireme checkconfig --unknown -ojson -help -- -strict");
        insta::assert_snapshot!(
            rewritten("trireme checkconfig -supplemental-prow-configs-filename=x"),
            @"trireme checkconfig --supplemental-prow-configs-filename=x"
        );
    }

    /// ADM-005: switches with and without a value, and of a flag that is repeated the last one.
    #[test]
    fn adm_005_switches_take_values_and_the_last_flag_wins() {
        let parsed = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            Cli::try_parse_from(doubled(&Cli::command(), words)).map(|cli| cli.command)
        };
        let mkpj = |flags: &str| match parsed(&format!("trireme mkpj {flags}")) {
            Ok(crate::cli::Command::Mkpj(args)) => (
                args.job,
                args.trigger_job,
                args.fail_with_job,
                args.kube.no_in_cluster_config,
            ),
            other => panic!("{flags}: {other:?}"),
        };
        let told = |job: &str, switches: [bool; 3]| {
            (job.to_owned(), switches[0], switches[1], switches[2])
        };
        assert_eq!(mkpj("-job=a -job b"), told("b", [false; 3]));
        assert_eq!(
            mkpj("--job=a -trigger-job -fail-with-job=T --no-in-cluster-config=1"),
            told("a", [true; 3])
        );
        assert_eq!(
            mkpj(
                "--job=a --trigger-job=true --trigger-job=false -fail-with-job=false -fail-with-job"
            ),
            told("a", [false, true, false])
        );
        let mkpod = |flags: &str| match parsed(&format!("trireme mkpod {flags}")) {
            Ok(crate::cli::Command::Mkpod(args)) => (args.prow_job, args.local, args.out_dir),
            other => panic!("{flags}: {other:?}"),
        };
        assert_eq!(
            mkpod("-prow-job x -prow-job - -local=false -local -out-dir=/a -out-dir=/b"),
            ("-".to_owned(), true, "/b".to_owned())
        );
        // Go gives a switch no value after a space.
        assert!(parsed("trireme mkpod --prow-job=x --local true").is_err());
        for verb in [
            "config expand unit",
            "config why unit --base main --draft=false",
        ] {
            let twice = format!("trireme {verb} -config-path=a -config-path=b -repo=o/a -repo o/b");
            assert!(parsed(&twice).is_ok(), "{verb}: {:?}", parsed(&twice).err());
        }
    }

    #[test]
    fn switches_and_durations_read_as_in_go() {
        assert_eq!([switch("T"), switch("0")], [Ok(true), Ok(false)]);
        assert!(switch("yes").is_err());
        assert_eq!(duration("1m30s").map(|d| d.as_secs()), Ok(90));
        assert!(duration("-1s").is_err() && duration("90").is_err());
    }
}
