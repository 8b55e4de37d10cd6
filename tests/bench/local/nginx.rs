//! nginx, of this machine or as `tests/bench/deps` has unpacked it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use lambent_tests::command::checkout;

use super::PREFIX;
use crate::{
    load::Target,
    machine,
    process::{self, Started},
};

fn binary() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let unpacked = cache.join("lambent/bench/nginx/usr/sbin/nginx");
    process::program("nginx").or(Some(unpacked).filter(|file| file.is_file()))
}

/// Its version, if it is there.
pub fn version() -> Option<String> {
    let text = machine::say(Command::new(binary()?).arg("-v"))?;
    text.rsplit('/').next().map(str::to_owned)
}

/// Starts it in front of the backend.
pub async fn start(backend: &Target, folder: &Path) -> anyhow::Result<Started> {
    let binary = binary().context("it is missing; tests/bench/deps gets it")?;
    let folder = super::fresh_folder(folder.join("nginx"))?;
    let address = process::free_address()?;
    let template = fs::read_to_string(checkout("tests/bench/peers/nginx.conf"))?;
    let values = [
        ("@BACKEND@", backend.address.to_string()),
        ("@LISTEN@", format!("{address} backlog=1024")),
        ("@PREFIX@", PREFIX.to_owned()),
    ];
    let text = values.iter().fold(template, |text, (name, value)| text.replace(name, value));
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(binary);
    command.arg("-p").arg(&folder).arg("-c").arg(&file).args(["-e", "stderr"]);
    Started::new("nginx", &mut command, address, &folder).await
}
