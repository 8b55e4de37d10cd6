//! Logs: JSON for machines, text for people, both to standard output.

use anyhow::Context;
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
