//! Logs: JSON for machines, text for people, both to standard output.

use anyhow::Context;
use lambent_dev::screen::Screen;
use tracing_subscriber::{EnvFilter, fmt};

use crate::args::LogFormat;

/// Starts logging; once, before anything else.
pub fn init(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level).with_context(|| format!("--log-level {level}"))?;
    let builder = fmt().with_env_filter(filter);
    let done = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    done.map_err(|error| anyhow::anyhow!("logging: {error}"))
}

/// Starts logging for people, above the table of `lambent dev`.
pub fn init_screen(screen: Screen, level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level).with_context(|| format!("--log-level {level}"))?;
    let colours = screen.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = fmt().with_env_filter(filter).with_ansi(colours).with_target(false);
    let done = builder.with_writer(move || screen.clone()).try_init();
    done.map_err(|error| anyhow::anyhow!("logging: {error}"))
}
