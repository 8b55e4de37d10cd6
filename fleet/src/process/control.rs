//! What the fleet and a supervisor say to each other over the supervisor's standard input, which is
//! a socket: one line each. The end of the connection says that the other one is gone.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{self, BufRead},
    os::unix::ffi::{OsStrExt, OsStringExt},
    str::FromStr,
    time::Duration,
};

/// Longest word that is taken; the kernel takes none of this length either.
const LONGEST_WORD: usize = 16 << 20;

/// To a supervisor, first of all: what to run. A head with the numbers of words, then the words, each
/// after its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Program and arguments.
    pub(super) command: Vec<OsString>,
    /// Set in addition to the supervisor's own environment.
    pub(super) env: Vec<(OsString, OsString)>,
    /// Where it starts; where the supervisor is when absent.
    pub(super) directory: Option<OsString>,
    /// Shell words of what is to be run once all has ended.
    pub(super) after: Option<OsString>,
}

impl Run {
    /// As it is sent.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { command, env, directory, after } = self;
        let flags = [directory, after].map(|word| u8::from(word.is_some()));
        let head = format!("run {} {} {} {}\n", command.len(), env.len(), flags[0], flags[1]);
        let variables = env.iter().flat_map(|(name, value)| [name, value]);
        command.iter().chain(variables).chain(directory).chain(after).fold(head.into_bytes(), |mut bytes, word| {
            let word: &OsStr = word;
            bytes.extend(format!("{}\n", word.len()).into_bytes());
            bytes.extend(word.as_bytes());
            bytes
        })
    }

    /// Waits for one.
    ///
    /// # Errors
    /// If there will be none, or it is something else.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let head = line(from)?;
        let numbers: Vec<usize> =
            head.strip_prefix("run ").into_iter().flat_map(str::split_whitespace).flat_map(str::parse).collect();
        let [words, variables, directory, after] = numbers[..] else { return Err(io::ErrorKind::InvalidData.into()) };
        let mut all = |count: usize| (0..count).map(|_| word(from)).collect::<io::Result<Vec<_>>>();
        let command = all(words)?;
        let mut pairs = all(variables.saturating_mul(2))?.into_iter();
        let env = std::iter::from_fn(|| pairs.next().zip(pairs.next())).collect();
        Ok(Self { command, env, directory: all(directory)?.pop(), after: all(after)?.pop() })
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    line.strip_suffix('\n').map(str::to_owned).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn word(from: &mut impl BufRead) -> io::Result<OsString> {
    let length = line(from)?.parse().ok().filter(|length| *length <= LONGEST_WORD);
    let mut bytes = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
    from.read_exact(&mut bytes)?;
    Ok(OsString::from_vec(bytes))
}

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
    fn what_is_to_be_run_arrives_as_it_was_sent() {
        let words = |words: &[&[u8]]| words.iter().map(|word| OsString::from_vec(word.to_vec())).collect::<Vec<_>>();
        let all = Run {
            command: words(&[b"sh", b"-c", b"echo 1\n2", b"", b"\xff\0"]),
            env: vec![("A".into(), "b=c\nd".into()), ("E".into(), "".into())],
            directory: Some("/a b".into()),
            after: Some("podman rm -f x".into()),
        };
        for run in [all, Run { command: words(&[b"true"]), ..Run::default() }] {
            let bytes = run.to_bytes();
            let mut rest = [&bytes, b"terminate 5\n".as_slice()].concat();
            let mut from = rest.as_slice();
            assert_eq!(Run::read(&mut from).unwrap(), run);
            assert_eq!(from, b"terminate 5\n");
            rest.truncate(bytes.len() - 1);
            assert!(Run::read(&mut rest.as_slice()).is_err());
        }
        for other in ["", "terminate 5\n", "run 1 x\n", "run 1 0 0 0\n99999999999\n"] {
            assert!(Run::read(&mut other.as_bytes()).is_err(), "{other}");
        }
    }

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
