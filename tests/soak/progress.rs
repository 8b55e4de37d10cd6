//! What goes on, on standard error: standard output has only the table.

use std::{sync::OnceLock, time::Instant};

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Says what goes on.
pub fn say(text: &str) {
    let seconds = STARTED.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("soak {:>3}:{:02}  {text}", seconds / 60, seconds % 60);
}
