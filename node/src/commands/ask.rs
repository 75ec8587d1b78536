//! Questions that only a person at a terminal is asked; programs answer them with flags.

use std::io::{self, BufRead, IsTerminal as _, Write};

use crate::exit::{USAGE, coded};

/// Somebody who answers, or nobody.
pub struct Terminal {
    attended: bool,
}

impl Terminal {
    /// Standard input and standard error; somebody is there when both are a terminal.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            attended: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        Self { attended: false }
    }

    #[must_use]
    pub fn is_attended(&self) -> bool {
        self.attended
    }

    /// The answer to a question, without spaces around it.
    ///
    /// # Errors
    /// When nobody is there; `flag` then says how to answer.
    pub fn ask(&self, question: &str, flag: &str) -> anyhow::Result<String> {
        if !self.attended {
            let what = question.trim_end_matches(": ");
            return Err(coded(
                USAGE,
                format!("{what}: nobody is here to be asked; give it with {flag}"),
            ));
        }
        Ok(answer(
            question,
            &mut io::stdin().lock(),
            &mut io::stderr().lock(),
        )?)
    }
}

/// Asks once; the end of the input is an empty answer.
fn answer(question: &str, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<String> {
    to.write_all(question.as_bytes())?;
    to.flush()?;
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Something that a person should know, on standard error.
pub fn note(what: &str) {
    // Nobody depends on it.
    let _ = writeln!(io::stderr().lock(), "trireme: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_line_without_spaces() {
        let mut told = Vec::new();
        let given = answer("Base ref: ", &mut " main \r\nmore".as_bytes(), &mut told).unwrap();
        assert_eq!(
            (given.as_str(), told.as_slice()),
            ("main", b"Base ref: ".as_slice())
        );
        assert_eq!(answer("x", &mut io::empty(), &mut io::sink()).unwrap(), "");
    }

    /// ADM-187.
    #[test]
    fn adm_187_without_a_terminal_the_flag_is_named() {
        let nobody = Terminal::of_nobody();
        insta::assert_snapshot!(nobody.ask("PR Number: ", "--pull-number").unwrap_err(), @"PR Number: nobody is here to be asked; give it with --pull-number");
    }
}
