//! The process's metrics, as Prometheus text (exposition format 0.0.4).
//!
//! Record with the `metrics` macros anywhere. Names: `insula_<noun>_<unit>`, counters end in `_total`, times are seconds. Histograms have the one
//! set of buckets below, so that panels compare. Always: one recorder a process, under the cardinality budget.

use std::fmt::Write as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::budget::Budgeted;
use crate::build;
use crate::error::Error;

/// Upper bounds of histogram buckets, seconds: from a warm point query to a slow provisioning.
pub const BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

// The `metrics` facade is global to the process by its nature; this is its handle, written once.
static METERS: OnceLock<Option<Meters>> = OnceLock::new();

/// The installed recorder.
#[derive(Clone)]
pub struct Meters {
    handle: PrometheusHandle,
}

/// Installs the recorder, or returns the one that is there.
///
/// # Errors
/// When somebody else installed another recorder.
pub fn install() -> Result<Meters, Error> {
    METERS.get_or_init(first).clone().ok_or(Error::Recorder)
}

#[allow(clippy::disallowed_methods, reason = "the one place that may")]
fn first() -> Option<Meters> {
    // `set_buckets` fails only on an empty list.
    let recorder = PrometheusBuilder::new().set_buckets(BUCKETS).ok()?.build_recorder();
    let meters = Meters { handle: recorder.handle() };
    metrics::set_global_recorder(Budgeted::new(recorder)).ok().map(|()| meters)
}

impl Meters {
    /// Everything, as text, with the process's own figures.
    #[must_use]
    pub fn render(&self, service: &str) -> String {
        let mut text = self.handle.render();
        let build = build::info();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# TYPE insula_build_info gauge\ninsula_build_info{{service=\"{service}\",version=\"{}\",commit=\"{}\"}} 1",
            build.version, build.commit
        );
        for (name, value) in process_figures() {
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
        }
        text
    }

    /// Folds recorded samples into their buckets; the admin thread calls it now and then, so that memory stays flat without a scraper.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// From `/proc/self`: memory, threads, open files.
fn process_figures() -> Vec<(&'static str, u64)> {
    let mut figures = Vec::new();
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        if let Some(kib) = status_field(&status, "VmRSS:") {
            figures.push(("process_resident_memory_bytes", kib * 1024));
        }
        if let Some(threads) = status_field(&status, "Threads:") {
            figures.push(("process_threads", threads));
        }
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        figures.push(("process_open_fds", files.count() as u64));
    }
    figures
}

fn status_field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_ours_the_build_and_the_process() {
        let meters = install().unwrap();
        metrics::counter!("insula_meters_test_total").increment(2);
        metrics::histogram!("insula_meters_test_seconds").record(0.003);
        let text = meters.render("test");
        assert!(text.contains("insula_meters_test_total 2"), "{text}");
        assert!(text.contains("insula_meters_test_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("insula_build_info{service=\"test\""), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn installing_twice_is_the_same_recorder() {
        let (one, two) = (install().unwrap(), install().unwrap());
        metrics::counter!("insula_twice_total").increment(1);
        assert!(one.render("a").contains("insula_twice_total 1") && two.render("a").contains("insula_twice_total 1"));
    }
}
