//! Logs: JSON for machines, text for people, both to standard output, in batches.

use std::io;

use anyhow::Context;
use lambent_dev::screen::Screen;
use lambent_logging::{Batch, Json};
use tracing_subscriber::{EnvFilter, fmt};

use crate::args::LogFormat;

/// Lines on their way to standard output.
static LINES: Batch = Batch::new();

/// Starts logging; once, before anything else.
pub fn init(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level).with_context(|| format!("--log-level {level}"))?;
    let builder = fmt().with_env_filter(filter).with_writer(|| Line);
    let done = match format {
        LogFormat::Json => builder.event_format(Json).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    done.map_err(|error| anyhow::anyhow!("logging: {error}"))?;
    std::thread::Builder::new().name("log".into()).spawn(|| LINES.write_forever()).context("logging")?;
    Ok(())
}

/// Starts logging for people, above the table of `lambent dev`.
pub fn init_screen(screen: Screen, level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level).with_context(|| format!("--log-level {level}"))?;
    let colours = screen.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = fmt().with_env_filter(filter).with_ansi(colours).with_target(false);
    let done = builder.with_writer(move || screen.clone()).try_init();
    done.map_err(|error| anyhow::anyhow!("logging: {error}"))
}

/// Writes what is still on its way; before the process ends.
pub fn flush() {
    LINES.write();
}

/// Takes one line.
struct Line;

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
