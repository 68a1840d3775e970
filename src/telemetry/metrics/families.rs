//! Every family of metrics, with its name, help and labels.

use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use super::{
    Readings,
    labels::{OperatorChange, Reloaded},
};
use crate::store::Figures;

/// From 100 µs to five minutes, which is the default `outcome_timeout`.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0, 300.0];

/// All of them, registered.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) upstream_duration: HistogramVec,
    pub(super) prevented: IntCounterVec,
    pub(super) refused: IntCounterVec,
    pub(super) fenced: IntCounterVec,
    pub(super) unguarded: IntCounterVec,
    pub(super) observed: IntCounterVec,
    pub(super) released: IntCounterVec,
    pub(super) unknown: IntCounterVec,
    pub(super) in_flight: IntGauge,
    pub(super) waiters: IntGauge,
    pub(super) lapsed: IntCounter,
    pub(super) settled_late: IntCounter,
    pub(super) run_anew: IntCounter,
    pub(super) operator_changes: IntCounterVec,
    pub(super) abandoned: IntCounterVec,
    pub(super) unknown_expiring: IntGauge,
    pub(super) unknown_expired: IntCounter,
    pub(super) store_up: IntGauge,
    pub(super) store_operation: HistogramVec,
    pub(super) store_records: IntGaugeVec,
    pub(super) unknown_oldest_age: Gauge,
    pub(super) store_bytes: IntGauge,
    pub(super) store_bytes_max: IntGauge,
    pub(super) evictions: IntCounterVec,
    pub(super) wiped: IntCounter,
    pub(super) redis_evicted_keys: IntCounter,
    pub(super) connections: IntGaugeVec,
    pub(super) reloads: IntCounterVec,
    pub(super) loaded: Gauge,
}

/// Brings a counter up to a total that is kept elsewhere.
fn catch_up(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[expect(clippy::cast_possible_wrap, reason = "no count of a process comes near 2^63")]
fn whole(count: u64) -> i64 {
    count as i64
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        fn kept<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
            let collector = made.expect("names and labels are valid constants");
            registry.register(Box::new(collector.clone())).expect("each name is registered once");
            collector
        }
        let name = |name: &str| format!("oncegate_{name}");
        let counters = |of: &str, help: &str, labels: &[&str]| {
            kept(registry, IntCounterVec::new(Opts::new(name(of), help), labels))
        };
        let counter = |of: &str, help: &str| kept(registry, IntCounter::new(name(of), help));
        let gauge = |of: &str, help: &str| kept(registry, IntGauge::new(name(of), help));
        let gauges =
            |of: &str, help: &str, labels: &[&str]| kept(registry, IntGaugeVec::new(Opts::new(name(of), help), labels));
        let seconds = |of: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name(of), help).buckets(SECONDS.to_vec());
            kept(registry, HistogramVec::new(options, labels))
        };
        let float = |of: &str, help: &str| kept(registry, Gauge::new(name(of), help));

        let build = GaugeVec::new(Opts::new(name("build_info"), "Which version this is; always 1."), &["version"]);
        kept(registry, build).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let families = Self {
            requests: counters("requests_total", "Requests, by how they ended.", &["route", "class", "outcome"]),
            request_duration: seconds(
                "request_duration_seconds",
                "From a request's head to the end of its answer.",
                &["route", "outcome"],
            ),
            upstream_duration: seconds(
                "upstream_duration_seconds",
                "Of a guarded exchange, or to the head of a passed answer.",
                &["upstream"],
            ),
            prevented: counters(
                "duplicates_prevented_total",
                "Requests that would have run again without Oncegate.",
                &["route", "how"],
            ),
            refused: counters("refused_total", "Requests that Oncegate refused itself.", &["route", "reason"]),
            fenced: counters("fenced_total", "Outcomes refused since somebody else had written.", &["route"]),
            unguarded: counters("unguarded_total", "Requests forwarded without their guard.", &["route", "why"]),
            observed: counters("observed_total", "What enforcing would have done.", &["route", "would"]),
            released: counters("released_total", "Keys freed: nothing was executed.", &["route", "reason"]),
            unknown: counters("unknown_total", "Records that became unknown.", &["route", "reason"]),
            in_flight: gauge("in_flight", "Guarded exchanges under way."),
            waiters: gauge("waiters", "Requests that wait for an owner."),
            lapsed: counter("leases_lapsed_total", "Leases that lapsed: their records read as unknown."),
            settled_late: counter("settled_late_total", "Settlements of records whose lease had lapsed."),
            run_anew: counter("unknown_run_anew_total", "Unknown records run anew, since their route says retry."),
            operator_changes: counters("operator_changes_total", "Records changed by an operator.", &["change"]),
            abandoned: counters("claims_abandoned_total", "Claims of uncertain fate, taken back.", &["result"]),
            unknown_expiring: gauge("unknown_expiring", "Unknown records that will be forgotten within a day."),
            unknown_expired: counter("unknown_expired_total", "Unknown records forgotten unresolved."),
            store_up: gauge("store_up", "Whether the store answers, and is fit for guarded requests."),
            store_operation: seconds(
                "store_operation_duration_seconds",
                "Of one operation of the store.",
                &["store", "operation", "result"],
            ),
            store_records: gauges("store_records", "Records in the store; use max over replicas.", &["state"]),
            unknown_oldest_age: float("unknown_oldest_age_seconds", "Age of the oldest unknown record."),
            store_bytes: gauge("store_bytes", "Bytes that the records take."),
            store_bytes_max: gauge("store_bytes_max", "Bytes that the records may take; 0 without a bound."),
            evictions: counters("store_evictions_total", "Dropped for want of room.", &["what"]),
            wiped: counter("store_wiped_total", "Times the store came back empty."),
            redis_evicted_keys: counter("redis_evicted_keys_total", "Keys that the Redis server evicted."),
            connections: gauges("connections", "Open connections.", &["side"]),
            reloads: counters("config_reloads_total", "Reloads of the configuration.", &["result"]),
            loaded: float("config_loaded_timestamp_seconds", "When the configuration was last loaded."),
        };
        OperatorChange::WORDS.iter().for_each(|word| _ = families.operator_changes.with_label_values(&[word]));
        Reloaded::WORDS.iter().for_each(|word| _ = families.reloads.with_label_values(&[word]));
        families
    }

    pub(super) fn read(&self, readings: &Readings) {
        let Readings { figures, in_flight, waiters, settled_late, run_anew, claims_abandoned, downstream, upstream } =
            *readings;
        self.in_flight.set(whole(in_flight as u64));
        self.waiters.set(whole(waiters as u64));
        catch_up(&self.settled_late, settled_late);
        catch_up(&self.run_anew, run_anew);
        for (result, total) in ["ok", "refused", "failed"].into_iter().zip(claims_abandoned) {
            catch_up(&self.abandoned.with_label_values(&[result]), total);
        }
        self.connections.with_label_values(&["downstream"]).set(whole(downstream as u64));
        self.connections.with_label_values(&["upstream"]).set(whole(upstream as u64));
        let Figures {
            up,
            in_flight,
            completed,
            unknown,
            unknown_expiring,
            unknown_oldest_age,
            bytes,
            bytes_max,
            evicted_bodies,
            evicted_records,
            redis_evicted_keys,
        } = figures;
        self.store_up.set(i64::from(up));
        for (state, records) in [("in_flight", in_flight), ("completed", completed), ("unknown", unknown)] {
            self.store_records.with_label_values(&[state]).set(whole(records));
        }
        self.unknown_expiring.set(whole(unknown_expiring));
        self.unknown_oldest_age.set(unknown_oldest_age.as_secs_f64());
        self.store_bytes.set(whole(bytes));
        self.store_bytes_max.set(whole(bytes_max));
        catch_up(&self.evictions.with_label_values(&["body"]), evicted_bodies);
        catch_up(&self.evictions.with_label_values(&["record"]), evicted_records);
        catch_up(&self.redis_evicted_keys, redis_evicted_keys);
    }
}
