//! Go's command line flags: `-name value`, `--name=value`, booleans without value, parsing stops at the first
//! argument that is none or after `--`.

/// Why a command line is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("this program takes its options from the environment")]
    EnvironmentOnly,
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("invalid value {value:?} for flag -{name}: {why}")]
    Invalid {
        name: String,
        value: String,
        why: String,
    },
}

/// What the flags of a program mean: told a name, says whether it exists and takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Value,
}

/// Flags with their values in order, and the arguments that follow them.
pub(crate) type Parsed = (Vec<(String, String)>, Vec<String>);

/// Splits a command line into flags and what follows them. A boolean's value is `true` unless given.
pub(crate) fn parse(
    args: &[String],
    kind: impl Fn(&str) -> Option<Kind>,
) -> Result<Parsed, FlagError> {
    let mut flags = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(body) = arg.strip_prefix('-').filter(|b| !b.is_empty()) else {
            return Ok((flags, std::iter::once(arg).chain(args).cloned().collect()));
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.is_empty() {
            break;
        }
        if body.starts_with(['-', '=']) {
            return Err(FlagError::Syntax(arg.clone()));
        }
        let (name, given) = body
            .split_once('=')
            .map_or((body, None), |(n, v)| (n, Some(v.to_owned())));
        let value = match (kind(name), given) {
            (None, _) => return Err(FlagError::Unknown(name.to_owned())),
            (Some(_), Some(value)) => value,
            (Some(Kind::Bool), None) => "true".to_owned(),
            (Some(Kind::Value), None) => args
                .next()
                .ok_or_else(|| FlagError::NoValue(name.to_owned()))?
                .clone(),
        };
        flags.push((name.to_owned(), value));
    }
    Ok((flags, args.cloned().collect()))
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(name: &str, value: &str) -> Result<bool, FlagError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(name, value, "parse error")),
    }
}

pub(crate) fn invalid(name: &str, value: &str, why: impl ToString) -> FlagError {
    FlagError::Invalid {
        name: name.to_owned(),
        value: value.to_owned(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Parsed, FlagError> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        parse(&args, |name| match name {
            "b" => Some(Kind::Bool),
            "v" => Some(Kind::Value),
            _ => None,
        })
    }

    #[test]
    fn flags_then_arguments() {
        let (flags, rest) = run(&["-b", "--v=1=2", "-v", "x", "--", "-b"]).unwrap();
        assert_eq!(
            flags,
            [("b", "true"), ("v", "1=2"), ("v", "x")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert_eq!(rest, ["-b"]);
        assert_eq!(run(&["go", "-b"]).unwrap().1, ["go", "-b"]);
        assert_eq!(run(&["-"]).unwrap().1, ["-"]);
    }

    #[test]
    fn refusals() {
        let errors =
            [run(&["-x"]), run(&["-v"]), run(&["---b"])].map(|r| r.unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @r"
        flag provided but not defined: -x
        flag needs an argument: -v
        bad flag syntax: ---b
        ");
    }
}
