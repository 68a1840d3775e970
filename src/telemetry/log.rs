//! The log: events by `tracing`, access lines written straight; both through one bounded buffer, so that lines never
//! mix, and a slow reader of stderr never holds a request up.
//!
//! Lines leave every 50 ms, sooner where an operator must act (warn and above), and at the end. When the buffer is full
//! lines are dropped, and it is said how many.

use std::{
    io::{self, IsTerminal, Write},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::Registry,
    reload,
    util::SubscriberInitExt,
};

use super::access::Line;
use crate::config::settled::{self, LogFormat};

/// Between two flushes.
const PAUSE: Duration = Duration::from_millis(50);
/// Flushed sooner beyond this many bytes.
const EAGER: usize = 64 << 10;
/// How long the end waits for a slow stderr.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Lines beyond this many bytes are dropped.
const MOST: usize = 4 << 20;

/// The process's log.
#[derive(Debug)]
pub struct Log {
    buffer: Arc<Buffer>,
    access: AtomicBool,
    format: AtomicU8,
    level: Option<reload::Handle<LevelFilter, Registry>>,
}

impl Log {
    /// Starts the log on stderr. A second one in a process shares the first one's events.
    ///
    /// # Errors
    ///
    /// When the writer's thread cannot be started.
    pub fn start(settings: &settled::Log) -> io::Result<Arc<Self>> {
        let buffer = Arc::new(Buffer::default());
        let (writer, format) = (Arc::clone(&buffer), settings.format);
        thread::Builder::new().name("log".into()).spawn(move || writer.drain(format, &mut io::stderr()))?;

        let (level, handle) = reload::Layer::new(LevelFilter::from_level(settings.level));
        let events = Events(Arc::clone(&buffer));
        let begun = match settings.format {
            LogFormat::Text => {
                let layer = fmt::layer().with_target(false).with_ansi(io::stderr().is_terminal()).with_writer(events);
                tracing_subscriber::registry().with(level).with(layer).try_init()
            }
            LogFormat::Json => {
                let layer = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
                tracing_subscriber::registry().with(level).with(layer.with_writer(events)).try_init()
            }
        };
        let log = Self {
            buffer,
            access: AtomicBool::new(settings.access),
            format: AtomicU8::new(settings.format as u8),
            level: begun.is_ok().then_some(handle),
        };
        Ok(Arc::new(log))
    }

    /// Takes a reload's settings; the format of events stays as it was started.
    pub fn set(&self, settings: &settled::Log) {
        self.access.store(settings.access, Ordering::Relaxed);
        self.format.store(settings.format as u8, Ordering::Relaxed);
        if let Some(level) = &self.level {
            // Fails only when the subscriber is gone, with nobody left to filter for.
            _ = level.modify(|level| *level = LevelFilter::from_level(settings.level));
        }
    }

    /// Whether access lines are written.
    #[must_use]
    pub fn access_is_on(&self) -> bool {
        self.access.load(Ordering::Relaxed)
    }

    /// Writes an access line.
    pub fn access(&self, line: &Line<'_>) {
        let format = if self.format.load(Ordering::Relaxed) == LogFormat::Json as u8 {
            LogFormat::Json
        } else {
            LogFormat::Text
        };
        self.buffer.add(false, |text| line.write(format, text));
    }

    /// Waits until everything that was told so far is written, but not for ever: a process whose stderr nobody reads
    /// must still end.
    pub fn flush(&self) {
        self.buffer.flush(LAST_WORDS);
    }
}

/// Lines on their way to stderr. One thread writes; nobody else ever waits for stderr.
#[derive(Debug, Default)]
struct Buffer {
    pending: Mutex<Pending>,
    /// Wakes the writer before its pause ends.
    eager: Condvar,
    /// Wakes who waits for lines to be written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    text: String,
    dropped: u64,
    /// Somebody must act: no waiting.
    urgent: bool,
    /// Counts what the writer took.
    taken: u64,
    /// Which of that is written.
    written: u64,
}

impl Pending {
    fn can_wait(&self) -> bool {
        self.text.len() < EAGER && !self.urgent
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.dropped == 0
    }
}

impl Buffer {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, urgent: bool, write: impl FnOnce(&mut String)) {
        let mut pending = self.pending();
        if pending.text.len() >= MOST {
            pending.dropped += 1;
            return;
        }
        let could_wait = pending.can_wait();
        write(&mut pending.text);
        pending.urgent |= urgent;
        let wake = could_wait && !pending.can_wait();
        drop(pending);
        // The lock is free again: the writer does not wake only to wait for it.
        if wake {
            self.eager.notify_one();
        }
    }

    fn flush(&self, patience: Duration) {
        let mut pending = self.pending();
        // What the writer holds now, and what it will take next.
        let last = pending.taken + u64::from(!pending.is_empty());
        pending.urgent = true;
        self.eager.notify_one();
        let waited = self.written.wait_timeout_while(pending, patience, |pending| pending.written < last);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The writer's thread; it ends with the process.
    fn drain(&self, format: LogFormat, out: &mut impl Write) {
        let mut text = String::new();
        loop {
            let dropped = self.take(&mut text);
            // A log that cannot be written has nobody to tell.
            _ = out.write_all(text.as_bytes());
            if dropped > 0 {
                _ = out.write_all(apology(format, dropped).as_bytes());
            }
            self.pending().written += 1;
            self.written.notify_all();
        }
    }

    /// Waits for lines, and takes them in exchange for an empty text; says how many were dropped before.
    fn take(&self, text: &mut String) -> u64 {
        text.clear();
        // A burst's room is not held for ever.
        text.shrink_to(EAGER);
        let mut pending = self.pending();
        loop {
            let waited = self.eager.wait_timeout_while(pending, PAUSE, |pending| pending.can_wait());
            (pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
            pending.urgent = false;
            if !pending.is_empty() {
                break;
            }
        }
        mem::swap(&mut pending.text, text);
        pending.taken += 1;
        mem::take(&mut pending.dropped)
    }
}

/// Says that lines were dropped, in the format of the others.
fn apology(format: LogFormat, dropped: u64) -> String {
    let now = super::access::timestamp();
    match format {
        LogFormat::Text => format!("{now}  WARN {dropped} log lines were dropped, since stderr is too slow\n"),
        LogFormat::Json => format!(
            "{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"message\":\"log lines were dropped, since stderr is too slow\",\
             \"dropped\":{dropped}}}\n"
        ),
    }
}

/// Where `tracing` writes.
struct Events(Arc<Buffer>);

/// One event on its way: added whole when it is done.
struct Event<'a> {
    buffer: &'a Buffer,
    text: Vec<u8>,
    urgent: bool,
}

impl<'a> MakeWriter<'a> for Events {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event { buffer: &self.0, text: Vec::new(), urgent: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Event<'a> {
        Event { buffer: &self.0, text: Vec::new(), urgent: *metadata.level() <= Level::WARN }
    }
}

impl Write for Event<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        self.buffer.add(self.urgent, |pending| pending.push_str(&text));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock;

    /// A stderr that takes nothing until it is told to.
    struct Stuck {
        open: mpsc::Receiver<()>,
        written: mpsc::SyncSender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Open for good once the other side is gone.
            _ = self.open.recv();
            _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stuck(format: LogFormat) -> (Arc<Buffer>, mpsc::SyncSender<()>, mpsc::Receiver<String>) {
        let buffer = Arc::new(Buffer::default());
        let (opener, open) = mpsc::sync_channel(0);
        let (written, read) = mpsc::sync_channel(16);
        let writer = Arc::clone(&buffer);
        thread::spawn(move || writer.drain(format, &mut Stuck { open, written }));
        (buffer, opener, read)
    }

    #[test]
    fn a_stuck_stderr_holds_nobody_up_and_what_was_dropped_is_said() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (buffer, opener, read) = stuck(format);
            buffer.add(true, |text| text.push_str("first\n"));
            buffer.flush(Duration::from_millis(20));
            let line = "x".repeat(1023) + "\n";
            let most = MOST / line.len();
            for _ in 0..most + 7 {
                buffer.add(false, |text| text.push_str(&line));
            }
            let started = clock::now();
            buffer.flush(Duration::from_millis(20));
            assert!(clock::now() - started < Duration::from_secs(5), "the end waits for nobody");
            drop(opener);
            assert_eq!(read.recv().unwrap(), "first\n");
            assert_eq!(read.recv().unwrap().len(), most * line.len());
            let apology = read.recv().unwrap();
            assert!(apology.contains('7') && apology.ends_with('\n'), "{apology}");
            if format == LogFormat::Json {
                let json: serde_json::Value = serde_json::from_str(&apology).unwrap();
                assert_eq!((json["level"].as_str(), json["dropped"].as_u64()), (Some("WARN"), Some(7)));
            }
        }
    }

    #[test]
    fn flush_waits_for_what_was_told_before_it_even_while_a_write_is_under_way() {
        let (buffer, opener, read) = stuck(LogFormat::Text);
        buffer.add(true, |text| text.push_str("first\n"));
        while buffer.pending().taken == 0 {
            thread::yield_now();
        }
        buffer.add(false, |text| text.push_str("last\n"));
        drop(opener);
        buffer.flush(Duration::from_secs(30));
        assert_eq!(read.try_iter().collect::<Vec<_>>(), ["first\n", "last\n"]);
    }

    #[test]
    fn flush_with_nothing_to_write_returns_at_once() {
        let (buffer, _opener, _read) = stuck(LogFormat::Text);
        let started = clock::now();
        buffer.flush(Duration::from_secs(30));
        assert!(clock::now() - started < Duration::from_secs(5));
    }
}
