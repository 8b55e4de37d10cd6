//! What the fleet and a supervisor say to each other over the supervisor's standard input, which is
//! a socket: one line each. The end of the connection says that the other one is gone.

use std::{fmt, str::FromStr, time::Duration};

/// To a supervisor: SIGTERM now, SIGKILL after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terminate(pub(super) Duration);

/// From a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The process runs and has this id, which is its group's too.
    Started(i32),
    /// It could not be started.
    NotStarted(String),
    /// It has ended with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl fmt::Display for Terminate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "terminate {}", self.0.as_millis())
    }
}

impl FromStr for Terminate {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let millis = line.trim_end().strip_prefix("terminate ").and_then(|rest| rest.parse().ok());
        millis.map(|millis| Self(Duration::from_millis(millis))).ok_or(())
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(pid) => writeln!(f, "started {pid}"),
            Self::NotStarted(words) => writeln!(f, "not-started {}", words.replace('\n', " ")),
            Self::Code(code) => writeln!(f, "code {code}"),
            Self::Signal(signal) => writeln!(f, "signal {signal}"),
        }
    }
}

impl FromStr for Said {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (word, rest) = line.trim_end().split_once(' ').ok_or(())?;
        let number = || rest.parse().map_err(drop);
        match word {
            "started" => number().map(Self::Started),
            "not-started" => Ok(Self::NotStarted(rest.to_owned())),
            "code" => number().map(Self::Code),
            "signal" => number().map(Self::Signal),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for said in [Said::Started(7), Said::NotStarted("no such file".into()), Said::Code(1), Said::Signal(9)] {
            assert_eq!(said.to_string().parse(), Ok(said));
        }
        let terminate = Terminate(Duration::from_millis(1500));
        assert_eq!(terminate.to_string().parse(), Ok(terminate));
        assert_eq!("hello".parse::<Said>(), Err(()));
    }
}
