//! The test cluster's own daemons (`apiserver`, `kubelet`, `etcd` and so on), which it notes beside its
//! kubeconfig: frozen for a while, or killed and started again.

use std::{
    fs::{self, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    Cluster, await_condition,
    process::{Frozen, signal},
};

/// One daemon.
pub struct Daemon {
    pid: u32,
    /// The folder of the cluster's state.
    folder: PathBuf,
    name: String,
}

impl Daemon {
    /// The one that the test cluster started under this name.
    ///
    /// # Errors
    /// On any other cluster, or if it doesn't run.
    pub fn find(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        let folder = cluster.kubeconfig.parent().context("the kubeconfig has no folder")?.to_owned();
        let file = folder.join("pid").join(name);
        let text = fs::read_to_string(&file)
            .with_context(|| format!("{}: only the test cluster's own daemons can be touched", file.display()))?;
        let pid = text.trim().parse()?;
        // Its environment has the cluster's mark: a number may be another process's by now.
        let mark = format!("LAMBENT_TEST_CLUSTER_PROCESS={}", folder.display());
        let marked = variables(pid)?.contains(&mark);
        ensure!(marked, "process {pid} is not the cluster's {name}");
        Ok(Self { pid, folder, name: name.to_owned() })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Stops it until what is returned is dropped: it keeps its connections and answers nobody, as one
    /// that hangs.
    ///
    /// # Errors
    /// If it doesn't run any more.
    pub fn freeze(&self, limit: Duration) -> anyhow::Result<Frozen> {
        Frozen::new(vec![self.pid], limit)
    }

    /// Kills it and starts it again as it was started.
    ///
    /// # Errors
    /// If it can't be started.
    pub async fn restart(&self) -> anyhow::Result<()> {
        let of = |what: &str| PathBuf::from(format!("/proc/{}/{what}", self.pid));
        let arguments = split(&fs::read_to_string(of("cmdline"))?);
        let (program, arguments) = arguments.split_first().context("no command")?;
        let log = OpenOptions::new().append(true).open(self.folder.join("log").join(format!("{}.log", self.name)))?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(fs::read_link(of("cwd"))?).env_clear();
        command.envs(variables(self.pid)?.iter().filter_map(|pair| pair.split_once('=')));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        signal("KILL", self.pid)?;
        await_condition(format!("the end of {}", self.name), async || {
            ensure!(!is_alive(&of("")), "{} is there", self.pid);
            Ok(())
        })
        .await;
        let mut child = command.spawn().with_context(|| program.clone())?;
        fs::write(self.folder.join("pid").join(&self.name), child.id().to_string())?;
        std::thread::spawn(move || child.wait());
        Ok(())
    }
}

/// A zombie holds nothing any more, once its last thread has ended: until then its ports are taken.
fn is_alive(process: &Path) -> bool {
    let threads = || fs::read_dir(process.join("task")).map_or(0, Iterator::count);
    fs::read_to_string(process.join("stat")).is_ok_and(|text| !text.contains(") Z ") || threads() > 1)
}

fn variables(pid: u32) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/environ")).with_context(|| format!("no process {pid}"))?;
    Ok(split(&text))
}

fn split(text: &str) -> Vec<String> {
    text.split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Makes etcd forget all former states: who watches from one of them is told to list again.
///
/// # Errors
/// If etcd doesn't answer.
pub async fn compact(cluster: &Cluster) -> anyhow::Result<()> {
    Daemon::find(cluster, "etcd")?;
    let ask = async |path: &str, body: String| {
        let mut connection = crate::Gateway::new("http://127.0.0.1:2379").connect().await?;
        let answer = connection.send(crate::Request::post(path, body)).await?;
        ensure!(answer.status == 200, "{answer:?}");
        anyhow::Ok(answer.json())
    };
    // The key "\0" to "\0": all, of which only the count is asked for.
    let range = r#"{"key": "AA==", "range_end": "AA==", "count_only": true}"#;
    let revision = ask("/v3/kv/range", range.to_owned()).await?["header"]["revision"].clone();
    let revision = revision.as_str().context("no revision")?.to_owned();
    ask("/v3/kv/compaction", format!(r#"{{"revision": "{revision}", "physical": true}}"#)).await?;
    Ok(())
}
