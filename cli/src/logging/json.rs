//! A line of JSON for each event, as tracing-subscriber's own format has it: one object with the time,
//! the level, the event's fields and its target. Every request writes one, so it is written straight
//! into the line's buffer.

use std::fmt::{self, Debug, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// The format.
pub struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        line.write_str(r#"{"timestamp":""#)?;
        SystemTime.format_time(&mut line)?;
        write!(line, r#"","level":"{}""#, event.metadata().level())?;
        let mut fields = Fields { line: &mut line, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        line.write_str(r#","target":"#)?;
        string(&mut line, event.metadata().target())?;
        line.write_str("}\n")
    }
}

/// Writes fields, each after a comma; remembers the first failure.
struct Fields<'a, 'line> {
    line: &'a mut Writer<'line>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        self.result = self.result.and_then(|()| {
            self.line.write_char(',')?;
            string(self.line, field.name())?;
            self.line.write_char(':')?;
            value(self.line)
        });
    }
}

impl Visit for Fields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Debug is the shortest text that is this number again, with a point; JSON knows no infinity.
        self.field(field, |line| if value.is_finite() { write!(line, "{value:?}") } else { line.write_str("null") });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |line| write!(line, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, |line| write!(line, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, |line| string(line, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, |line| {
            line.write_char('"')?;
            write!(Escaped(line), "{value:?}")?;
            line.write_char('"')
        });
    }
}

fn string(line: &mut Writer<'_>, text: &str) -> fmt::Result {
    line.write_char('"')?;
    Escaped(line).write_str(text)?;
    line.write_char('"')
}

/// Writes text as the inside of a JSON string (RFC 8259 section 7).
struct Escaped<'a, 'line>(&'a mut Writer<'line>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            self.0.write_str(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'\n' => self.0.write_str("\\n")?,
                byte @ (b'"' | b'\\') => write!(self.0, "\\{}", char::from(byte))?,
                byte => write!(self.0, "\\u{byte:04x}")?,
            }
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
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
