//! The log on standard error: lines of bounded length at a bounded rate, whatever peers send.
//!
//! A line's values come from peers, too. So control characters are escaped, and a line is cut where
//! it is long enough; the rest of it is not even formatted. How much is written is bounded in
//! bytes, over all and for each *kind* of line, which is a place in the code; what is left out is
//! counted before anything of it is formatted, and told. A part of what may be written is kept for
//! errors and for kinds that were silent for a while, so that no flood hides them.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, callsite};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer};

/// Bytes of a line's text and values; what is around them is short.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// How far a value is formatted beyond that, to say how much was cut.
const CUT_BYTES_MAX: usize = 1024 * 1024;

/// Kinds of lines of which something is remembered; there are fewer places that log.
const KINDS_MAX: usize = 1024;

/// A kind that was silent for so long may use what is kept for errors.
const SILENT: Duration = Duration::from_secs(60);

/// How often what was left out is told.
pub(crate) const TELL_EVERY: Duration = Duration::from_secs(10);

/// Kinds that are named when lines were left out.
const NAMED_MAX: usize = 4;

/// In which form lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Human { colours: bool },
    Json,
}

/// How much may be written. It fills up with time, to a most.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    bytes: f64,
    most: f64,
    per_second: f64,
    at: Instant,
}

impl Allowance {
    /// So that in no minute more than `bytes_per_minute` is used: a half at once, a half over time.
    fn new(bytes_per_minute: f64, now: Instant) -> Self {
        let most = bytes_per_minute / 2.0;
        Self {
            bytes: most,
            most,
            per_second: most / 60.0,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.bytes = (self.bytes + passed * self.per_second).min(self.most);
        self.at = now;
    }
}

/// What is known of one kind of line.
#[derive(Debug)]
struct Kind {
    metadata: &'static Metadata<'static>,
    allowance: Allowance,
    written_at: Option<Instant>,
    left_out: u64,
}

/// Decides which lines are written.
#[derive(Debug)]
struct Rate {
    all: Allowance,
    kinds: HashMap<callsite::Identifier, Kind>,
    told_at: Instant,
}

impl Rate {
    fn new(bytes_per_minute: f64, now: Instant) -> Self {
        Self {
            all: Allowance::new(bytes_per_minute, now),
            kinds: HashMap::new(),
            told_at: now,
        }
    }

    /// Whether a line may be written now. An eighth of all is kept for lines that must not drown:
    /// errors, and the first of a kind in a while.
    fn admits(&mut self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        self.all.fill(now);
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&metadata.callsite()) {
            return self.all.bytes > self.all.most / 8.0;
        }
        let half = self.all.most;
        let kind = self
            .kinds
            .entry(metadata.callsite())
            .or_insert_with(|| Kind {
                metadata,
                allowance: Allowance::new(half, now),
                written_at: None,
                left_out: 0,
            });
        kind.allowance.fill(now);
        let silent = |at: Instant| now.saturating_duration_since(at) > SILENT;
        let first = kind.written_at.is_none_or(silent);
        let kept = if first || *metadata.level() == Level::ERROR {
            0.0
        } else {
            self.all.most / 8.0
        };
        if kind.allowance.bytes <= 0.0 || self.all.bytes <= kept {
            kind.left_out += 1;
            return false;
        }
        kind.written_at = Some(now);
        true
    }

    /// A line was written; the last one may exceed what was left.
    fn wrote(&mut self, metadata: &'static Metadata<'static>, bytes: usize) {
        self.all.bytes -= bytes as f64;
        if let Some(kind) = self.kinds.get_mut(&metadata.callsite()) {
            kind.allowance.bytes -= bytes as f64;
        }
    }

    /// What was left out since it was last told, if that is long ago or it is `last` call.
    fn left_out(&mut self, now: Instant, last: bool) -> Option<LeftOut> {
        if !last && now.saturating_duration_since(self.told_at) < TELL_EVERY {
            return None;
        }
        self.told_at = now;
        let mut kinds: Vec<_> = self
            .kinds
            .values_mut()
            .filter(|kind| kind.left_out > 0)
            .map(|kind| (std::mem::take(&mut kind.left_out), kind.metadata))
            .collect();
        kinds.sort_by_key(|(lines, _)| std::cmp::Reverse(*lines));
        let lines = kinds.iter().map(|(lines, _)| lines).sum();
        kinds.truncate(NAMED_MAX);
        (lines > 0).then_some(LeftOut { lines, kinds })
    }
}

/// Lines that were not written.
#[derive(Debug)]
struct LeftOut {
    lines: u64,
    kinds: Vec<(u64, &'static Metadata<'static>)>,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (lines, metadata)) in self.kinds.iter().enumerate() {
            let file = metadata.file().unwrap_or_else(|| metadata.target());
            let line = metadata.line().unwrap_or(0);
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{lines} of {} at {file}:{line}", metadata.level())?;
        }
        Ok(())
    }
}

/// Takes text up to a limit, with everything escaped that could end a line or that a terminal would
/// obey, and counts what is beyond the limit.
struct Cut {
    json: bool,
    text: String,
    bytes_max: usize,
    cut: usize,
}

impl Cut {
    fn new(form: Form, bytes_max: usize) -> Self {
        Self {
            json: form == Form::Json,
            text: String::new(),
            bytes_max,
            cut: 0,
        }
    }

    fn push(&mut self, c: char) {
        // What changes the direction of writing, or separates lines, forges as well.
        let hidden = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '"' | '\\' if self.json => self.text.extend(['\\', c]),
            c if self.json && (c.is_control() || hidden) => {
                let _ = write!(self.text, "\\u{:04x}", u32::from(c));
            }
            c if c.is_control() || hidden => self.text.extend(c.escape_default()),
            c => self.text.push(c),
        }
    }

    /// The text, which says how much of it was cut.
    fn end(mut self) -> String {
        if self.cut > 0 {
            let more = if self.cut > CUT_BYTES_MAX {
                "at least "
            } else {
                ""
            };
            let _ = write!(self.text, "... ({more}{} bytes cut)", self.cut);
        }
        self.text
    }
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (at, c) in text.char_indices() {
            let before = self.text.len();
            if self.cut == 0 {
                self.push(c);
            }
            if self.cut > 0 || self.text.len() > self.bytes_max {
                self.text.truncate(before);
                self.cut += text.len() - at;
                break;
            }
        }
        // Whoever formats stops here, however much is left.
        if self.cut > CUT_BYTES_MAX {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

/// One line, while its values are visited.
struct Line {
    form: Form,
    message: String,
    fields: String,
    /// That of an event of the crate `log`, which has another one in its metadata.
    target: Option<String>,
    /// Bytes of text and values that may still come.
    left: usize,
}

impl Line {
    fn value(&mut self, field: &Field, value: &dyn fmt::Debug, quoted: bool) {
        let name = field.name().trim_start_matches("r#");
        let mut cut = Cut::new(self.form, self.left.saturating_sub(name.len()));
        let _ = write!(cut, "{value:?}");
        self.left = self.left.saturating_sub(name.len() + cut.text.len());
        let value = cut.end();
        if name.starts_with("log.") {
            if name == "log.target" {
                self.target = Some(value);
            }
            return;
        }
        match self.form {
            Form::Human { .. } if name == "message" => self.message = value,
            Form::Human { .. } => self.fields.extend([" ", name, "=", &value]),
            Form::Json => {
                let comma = if self.fields.is_empty() { "" } else { "," };
                let quote = if quoted { "\"" } else { "" };
                self.fields
                    .extend([comma, "\"", name, "\":", quote, &value, quote]);
            }
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, value, true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match self.form {
            Form::Human { .. } if field.name() != "message" => self.value(field, &value, true),
            _ => self.value(field, &format_args!("{value}"), true),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, &value, false);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, &value, false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, &value, false);
    }
}

/// A layer that writes each event as a line.
#[derive(Debug)]
pub(crate) struct Log<W = std::io::Stderr>(Arc<Lines<W>>);

#[derive(Debug)]
struct Lines<W> {
    form: Form,
    rate: Mutex<Rate>,
    to: Mutex<W>,
}

impl<W> Clone for Log<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Log {
    /// A log on standard error of at most so many bytes in a minute.
    pub(crate) fn new(form: Form, bytes_per_minute: usize) -> Self {
        Self::to(form, bytes_per_minute, std::io::stderr())
    }
}

impl<W: Write> Log<W> {
    fn to(form: Form, bytes_per_minute: usize, to: W) -> Self {
        Self(Arc::new(Lines {
            form,
            rate: Mutex::new(Rate::new(bytes_per_minute as f64, Instant::now())),
            to: Mutex::new(to),
        }))
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.0.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was left out, if something was: at most every [`TELL_EVERY`], unless it is the
    /// last time.
    pub(crate) fn tell_left_out(&self, last: bool) {
        let Some(left_out) = self.rate().left_out(Instant::now(), last) else {
            return;
        };
        let message = "lines were left out, since there were too many";
        let (lines, kinds) = (left_out.lines, left_out.to_string());
        let fields = match self.0.form {
            Form::Human { .. } => format!(" lines={lines} kinds=\"{kinds}\""),
            Form::Json => {
                format!("\"message\":\"{message}\",\"lines\":{lines},\"kinds\":\"{kinds}\"")
            }
        };
        let (level, target) = (Level::WARN, "reconverge::log");
        self.write(&assemble(self.0.form, level, target, message, &fields));
    }

    fn write(&self, line: &str) {
        let mut to = self.0.to.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nowhere to tell that the log cannot be written.
        let _ = to.write_all(line.as_bytes());
    }
}

fn assemble(form: Form, level: Level, target: &str, message: &str, fields: &str) -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    match form {
        Form::Human { colours: false } => {
            format!("{time} {level:>5} {target}: {message}{fields}\n")
        }
        Form::Human { colours: true } => {
            let colour = match level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                Level::DEBUG => 34,
                _ => 35,
            };
            format!(
                "\x1b[2m{time}\x1b[0m \x1b[{colour}m{level:>5}\x1b[0m \x1b[2m{target}:\x1b[0m {message}{fields}\n"
            )
        }
        Form::Json => format!(
            "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"fields\":{{{fields}}},\"target\":\"{target}\"}}\n"
        ),
    }
}

impl<S: Subscriber, W: Write + 'static> Layer<S> for Log<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let admits = self.rate().admits(metadata, Instant::now());
        if admits {
            let mut line = Line {
                form: self.0.form,
                message: String::new(),
                fields: String::new(),
                target: None,
                left: LINE_BYTES_MAX,
            };
            event.record(&mut line);
            let Line {
                message,
                fields,
                target,
                ..
            } = line;
            let target = target.as_deref().unwrap_or_else(|| metadata.target());
            let line = assemble(self.0.form, *metadata.level(), target, &message, &fields);
            self.rate().wrote(metadata, line.len());
            self.write(&line);
        }
        self.tell_left_out(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{error, info, subscriber};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(form: Form, bytes_per_minute: usize, act: impl FnOnce()) -> Vec<String> {
        let to = Written::default();
        let log = Log::to(form, bytes_per_minute, to.clone());
        subscriber::with_default(registry().with(log.clone()), act);
        log.tell_left_out(true);
        let bytes = std::mem::take(&mut *to.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }

    const HUMAN: Form = Form::Human { colours: false };
    const MUCH: usize = 100 * 1024 * 1024;

    #[test]
    fn a_line_looks_as_it_always_did() {
        let log = || {
            let (peer, error) = ("ann \"a\"", "too \"long\"");
            info!(connection = 7, %peer, space = peer, error, ok = true, "joined {}", 1);
        };
        let [human] = &written(HUMAN, MUCH, log)[..] else {
            panic!("one line");
        };
        let (time, rest) = human.split_once("  INFO ").unwrap();
        assert_eq!(time.len(), "2026-11-29T07:28:48.123456Z".len());
        let (_, rest) = rest.split_once(": ").unwrap();
        assert_eq!(
            rest,
            r#"joined 1 connection=7 peer=ann "a" space="ann \"a\"" error="too \"long\"" ok=true"#
        );
        let [json] = &written(Form::Json, MUCH, log)[..] else {
            panic!("one line");
        };
        let (_, fields) = json.split_once("\"fields\":").unwrap();
        assert!(
            fields.starts_with(
                r#"{"message":"joined 1","connection":7,"peer":"ann \"a\"","space":"ann \"a\"","error":"too \"long\"","ok":true},"target":"#
            ),
            "{fields}"
        );
    }

    #[test]
    fn a_long_line_is_cut_and_no_text_makes_two() {
        for form in [HUMAN, Form::Json] {
            let lines = written(form, MUCH, || {
                let forged = "x\n2026-11-29T07:28:48Z ERROR disk: gone\r\x1b[31m\u{202e}\u{2028}";
                info!(forged, as_shown = %forged, "{forged}");
                info!(long = %"ö\n".repeat(10_000), after = "b".repeat(9000), "long");
                info!(huge = ?vec![7u8; 20_000_000], "huge");
            });
            assert_eq!(lines.len(), 3, "{lines:?}");
            for line in &lines {
                assert!(line.len() < LINE_BYTES_MAX + 512, "{}", line.len());
                assert!(!line.contains(['\u{1b}', '\r', '\u{202e}', '\u{2028}']));
            }
            assert!(lines[1].contains("bytes cut)"), "{}", lines[1]);
            assert!(lines[1].contains("after"), "{}", lines[1]);
            assert!(lines[2].contains("(at least "), "{}", lines[2]);
        }
    }

    /// The metadata of a line that floods, and of one that must not drown.
    fn kinds() -> [&'static Metadata<'static>; 3] {
        struct Collect(Arc<Mutex<Vec<&'static Metadata<'static>>>>);
        impl<S: Subscriber> Layer<S> for Collect {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                self.0.lock().unwrap().push(event.metadata());
            }
        }
        let kinds = Arc::default();
        subscriber::with_default(registry().with(Collect(Arc::clone(&kinds))), || {
            info!("flood");
            info!("other flood");
            error!("the disk fails");
        });
        let kinds = kinds.lock().unwrap().clone();
        kinds.try_into().unwrap()
    }

    #[test]
    fn no_minute_has_more_than_its_bytes_and_errors_are_not_drowned() {
        const PER_MINUTE: usize = 600_000;
        let [flood, other, error] = kinds();
        let start = Instant::now();
        let mut rate = Rate::new(PER_MINUTE as f64, start);
        let mut bytes = Vec::new();
        for ms in 0..300_000 {
            let now = start + Duration::from_millis(ms);
            let mut minute = 0;
            for _ in 0..10 {
                for kind in [flood, other] {
                    if rate.admits(kind, now) {
                        rate.wrote(kind, 200);
                        minute += 200;
                    }
                }
            }
            if ms % 10_000 == 0 {
                assert!(rate.admits(error, now), "after {ms} ms");
                rate.wrote(error, 200);
            }
            bytes.push(minute);
        }
        let most = bytes.windows(60_000).step_by(1_000);
        let most = most.map(|minute| minute.iter().sum::<usize>()).max();
        assert!(most < Some(PER_MINUTE), "{most:?}");
        assert!(most > Some(PER_MINUTE / 3), "{most:?}");
        let left_out = rate.left_out(start + Duration::from_secs(300), false);
        let left_out = left_out.unwrap();
        assert!(left_out.lines > 5_000_000);
        assert_eq!(left_out.kinds.len(), 2);
        let again = rate.left_out(start + Duration::from_secs(301), true);
        assert!(again.is_none());
    }

    #[test]
    fn what_was_left_out_is_told_and_one_kind_leaves_room_for_others() {
        let lines = written(HUMAN, 100_000, || {
            for n in 0..10_000 {
                info!(n, "flood");
            }
            for n in 0..10 {
                info!(n, "another kind");
            }
            error!("the disk fails");
        });
        let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(count("another kind"), 10);
        assert_eq!(count("the disk fails"), 1);
        let floods = count("flood");
        assert!(floods > 100 && floods < 1_000, "{floods}");
        let told = lines.last().unwrap();
        let left_out = format!(" lines={} ", 10_000 - floods);
        assert!(
            told.contains("left out") && told.contains(&left_out),
            "{told}"
        );
        assert!(told.contains("log.rs:"), "{told}");
    }
}
