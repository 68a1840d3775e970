//! The process's own metrics, in the names that every Prometheus client uses; read off `/proc/self` when asked for.

use std::fs;

use prometheus::{
    Counter, Gauge, IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::clock;

/// Reads `/proc/self` at every scrape; what cannot be read stays at its last value.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    start_time: Gauge,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let whole = |name: &str, help: &str| IntGauge::new(name, help).expect("the name is a valid constant");
        let float = |name: &str, help: &str| Gauge::new(name, help).expect("the name is a valid constant");
        let start_time = float("process_start_time_seconds", "When the process started, since 1970.");
        start_time.set(clock::unix_seconds());
        Self {
            cpu_seconds: Counter::new("process_cpu_seconds_total", "User and system time, in seconds.")
                .expect("the name is a valid constant"),
            resident_bytes: whole("process_resident_memory_bytes", "Resident memory."),
            virtual_bytes: whole("process_virtual_memory_bytes", "Virtual memory."),
            open_fds: whole("process_open_fds", "Open file descriptors."),
            max_fds: whole("process_max_fds", "File descriptors that may be open."),
            threads: whole("process_threads", "Threads."),
            start_time,
        }
    }

    fn read(&self) {
        if let Some(stat) = Stat::read() {
            #[expect(clippy::cast_precision_loss, reason = "ticks of a process stay far below 2^52")]
            let cpu_seconds = stat.cpu_ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
            // A total never goes back, not even by a rounding.
            self.cpu_seconds.inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.resident_bytes
                .set(stat.resident_pages.saturating_mul(i64::try_from(rustix::param::page_size()).unwrap_or(4096)));
            self.virtual_bytes.set(stat.virtual_bytes);
            self.threads.set(stat.threads);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(open.count()).unwrap_or(i64::MAX));
        }
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.max_fds.set(most.and_then(|most| i64::try_from(most).ok()).unwrap_or(i64::MAX));
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.resident_bytes,
            &self.virtual_bytes,
            &self.open_fds,
            &self.max_fds,
            &self.threads,
            &self.start_time,
        ]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

/// What is needed of `/proc/self/stat` (proc(5)).
struct Stat {
    cpu_ticks: u64,
    threads: i64,
    virtual_bytes: i64,
    resident_pages: i64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The name may hold anything; what follows its last parenthesis begins with the third field.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        let ticks = |number| field(number)?.parse::<u64>().ok();
        let whole = |number| field(number)?.parse::<i64>().ok();
        Some(Self {
            cpu_ticks: ticks(14)? + ticks(15)?,
            threads: whole(20)?,
            virtual_bytes: whole(23)?,
            resident_pages: whole(24)?,
        })
    }
}
