//! A line of JSON for each event, as tracing-subscriber's own format has it: one object with the time,
//! the level, the event's fields and its target.

use std::{
    cell::RefCell,
    fmt::{self, Debug},
    time::SystemTime,
};

use serde::{Serialize, Serializer};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::timestamp;

/// A longer buffer is not kept for the next line.
const KEPT: usize = 4 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The format.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Taken: what formats a field may log as well.
        let mut line = Line(BUFFER.take());
        line.0.clear();
        line.event(event);
        let written = std::str::from_utf8(&line.0).map_err(|_| fmt::Error).and_then(|text| out.write_str(text));
        if line.0.capacity() <= KEPT {
            BUFFER.set(line.0);
        }
        written
    }
}

struct Line(Vec<u8>);

impl Line {
    fn event(&mut self, event: &Event<'_>) {
        self.0.extend_from_slice(br#"{"timestamp":""#);
        timestamp::write(&mut self.0, SystemTime::now());
        self.0.extend_from_slice(br#"","level":"#);
        self.text(event.metadata().level().as_str());
        event.record(self);
        self.0.extend_from_slice(br#","target":"#);
        self.text(event.metadata().target());
        self.0.extend_from_slice(b"}\n");
    }

    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Self)) {
        // An identifier: nothing in it needs to be escaped.
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(field.name().as_bytes());
        self.0.extend_from_slice(b"\":");
        value(self);
    }

    /// Most text is written as it is.
    fn text(&mut self, text: &str) {
        if text.bytes().fold(true, |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\')) {
            self.0.push(b'"');
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(b'"');
        } else {
            self.value(text);
        }
    }

    fn value(&mut self, value: impl Serialize) {
        let before = self.0.len();
        if serde_json::to_writer(&mut self.0, &value).is_err() {
            // Its own text failed half way: the line is whole without it.
            self.0.truncate(before);
            self.0.extend_from_slice(b"null");
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, |line| line.value(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |line| line.value(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |line| line.value(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, |line| line.value(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, |line| line.text(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, |line| line.value(AsText(value)));
    }
}

/// What Debug says, as a string.
struct AsText<'a>(&'a dyn Debug);

impl Serialize for AsText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}
#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use parking_lot::Mutex;
    use serde_json::Value;
    use tracing::{error, info, subscriber::with_default};
    use tracing_subscriber::{Layer, fmt::layer, layer::SubscriberExt, registry};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(of: impl FnOnce(Lines) -> Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>) -> Vec<Value> {
        let lines = Lines::default();
        with_default(registry().with(of(lines.clone())), || {
            info!(
                target: "access", request_id = "a\"b\\c\nd\te\u{1}é", status = 200_u16, reason = Some("Why"),
                missing = None::<&str>, duration_ms = 5.0, waited_ms = 1.25e-7, cold_start = true, sent = 7_u64,
                below = -3_i64, "request"
            );
            let error = io::Error::other("no \"way\"\nout");
            error!(%error, ?error, endless = f64::INFINITY, path = ?"a\\b", "it {} failed", "\"really\"");
        });
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_say_what_those_of_the_library_say() {
        let mut ours = lines(|to| Box::new(layer().event_format(Json).with_writer(move || to.clone())));
        let library = |to: Lines| layer().json().flatten_event(true).with_writer(move || to.clone());
        let mut theirs = lines(|to| Box::new(library(to).with_current_span(false).with_span_list(false)));
        for line in ours.iter_mut().chain(&mut theirs) {
            let at = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            assert!(at.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{at}");
        }
        assert_eq!(ours.len(), 2);
        assert_eq!(ours, theirs);
        assert_eq!(ours[0]["request_id"], "a\"b\\c\nd\te\u{1}é");
    }
}
