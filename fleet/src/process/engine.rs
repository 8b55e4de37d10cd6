//! Container engines: podman, nerdctl and docker take the same words for what is needed here. The
//! container runs in the foreground of its supervisor, which takes it away when it ends.

use std::{ffi::OsString, process::Stdio, time::Duration};

use thiserror::Error;
use tokio::{process::Command, sync::OnceCell, time::timeout};

use super::launch::{Launch, environment, expand};
use crate::Order;

/// An engine that does not answer within this time is not there.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// In the order in which they are looked for: first those that need no daemon of root's.
pub const KNOWN: [&str; 3] = ["podman", "nerdctl", "docker"];

/// Which engine runs images.
#[derive(Debug)]
pub enum Engines {
    /// None is wanted.
    Off,
    /// This one.
    Named(Engine),
    /// The first that works, looked for when one is needed, and again while none does: it may be
    /// installed or started any moment.
    First(OnceCell<Engine>),
}

/// Why no engine runs images.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NoEngine {
    /// None is wanted.
    #[error("leave out --engine process")]
    Off,
    /// None works.
    #[error("install podman, or start the engine that is there")]
    NotFound,
}

impl Engines {
    /// The one that runs images.
    ///
    /// # Errors
    /// If there is none.
    pub async fn get(&self) -> Result<&Engine, NoEngine> {
        match self {
            Self::Off => Err(NoEngine::Off),
            Self::Named(engine) => Ok(engine),
            Self::First(found) => found.get_or_try_init(async || Engine::find().await.ok_or(NoEngine::NotFound)).await,
        }
    }
}

/// One engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    program: String,
}

impl Engine {
    /// The engine of this name.
    pub fn new(program: impl Into<String>) -> Self {
        Self { program: program.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.program
    }

    /// Whether it is there and can run containers: a client without its daemon can't.
    ///
    /// # Errors
    /// Its own words.
    pub async fn check(&self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.arg("info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        match timeout(ANSWER_WITHIN, command.output()).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let words = String::from_utf8_lossy(&output.stderr);
                Err(words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed").trim().to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
        }
    }

    /// The first of the known ones that works.
    pub async fn find() -> Option<Self> {
        for name in KNOWN {
            let engine = Self::new(name);
            if engine.check().await.is_ok() {
                return Some(engine);
            }
        }
        None
    }

    /// What runs the container of an order. It listens on the template's port within, and on `port` here.
    pub(super) fn launch(&self, order: &Order, port: u16) -> Launch {
        let template = &order.revision.spec.template;
        let inner = u16::try_from(template.port).unwrap_or(8080);
        let env = environment(template, inner);
        let known = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let name = format!("lambent-{}-{}", order.revision.key().namespace, order.name);
        let mut words: Vec<String> = ["run", "--rm", "--init", "--name"].map(str::to_owned).into();
        words.push(name.clone());
        words.extend(["--label".to_owned(), format!("lambent.dev/function={}", order.revision.spec.function)]);
        words.extend(["--publish".to_owned(), format!("127.0.0.1:{port}:{inner}")]);
        for (name, value) in &env {
            words.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        if let Some(directory) = &template.working_dir {
            words.extend(["--workdir".to_owned(), directory.clone()]);
        }
        let mut command = template.command.iter().map(|word| expand(word, &known));
        if let Some(entry) = command.next() {
            words.extend(["--entrypoint".to_owned(), entry]);
        }
        words.push(template.image.clone());
        words.extend(command);
        words.extend(template.args.iter().map(|word| expand(word, &known)));
        let after = shell_words::join([self.program.as_str(), "rm", "--force", &name]);
        Launch {
            program: self.program.clone(),
            arguments: words.into_iter().map(OsString::from).collect(),
            env: Vec::new(),
            directory: None,
            after: Some(after.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::launch::tests::order, *};

    fn words(template: &str) -> String {
        let launch = Engine::new("podman").launch(&order("hello-0123456789-0", template), 20_001);
        assert_eq!(launch.after.unwrap(), "podman rm --force lambent-shop-hello-0123456789-0");
        let words: Vec<_> = launch.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn an_image_runs_with_its_port_published_on_this_machine_only() {
        assert_eq!(
            words("{image: 'a:1'}"),
            "run --rm --init --name lambent-shop-hello-0123456789-0 --label lambent.dev/function=hello \
             --publish 127.0.0.1:20001:8080 --env PORT=8080 a:1"
        );
    }

    #[test]
    fn command_and_arguments_mean_what_they_mean_in_a_pod() {
        let words = words(
            "{image: a, port: 80, command: [sh, -c], args: ['echo $(PORT)'], workingDir: /w, env: [{name: A, value: b}]}",
        );
        let expected = "--publish 127.0.0.1:20001:80 --env PORT=80 --env A=b --workdir /w --entrypoint sh a -c echo 80";
        assert!(words.ends_with(expected), "{words}");
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_says_so() {
        assert!(Engine::new("no-such-engine").check().await.unwrap_err().contains("No such file"));
    }
}
