//! The cardinality budget: what metrics may not become.
//!
//! A metric whose label takes a value per tenant grows with the customers until the scraper falls over, and shows one customer's name to
//! whoever reads the dashboards. So the recorder refuses such labels, and caps the number of series. What is refused
//! records nothing, is counted in `insula_metrics_refused_total` and logged once a metric. Always: a refusal never fails the caller.
//!
//! A lookup costs one read lock and one hash probe on top of the recorder's own: on a hot path keep the handle that the macro returns.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit};

/// Label names that identify somebody or something without bound.
pub const FORBIDDEN_LABELS: &[&str] = &[
    "tenant",
    "tenant_id",
    "tenant_no",
    "slug",
    "customer",
    "organisation",
    "host",
    "domain",
    "user",
    "user_id",
    "email",
    "principal",
    "session",
    "token",
    "request_id",
    "trace_id",
    "span_id",
    "id",
    "ip",
    "client",
    "path",
    "url",
    "uri",
    "query",
    "sql",
    "role",
    "message",
    "error",
];

/// Series of one metric.
pub const SERIES_PER_METRIC: usize = 1024;

/// Series of one process.
pub const SERIES: usize = 4096;

/// Why a series was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A label that must not be one.
    Label,
    /// The metric, or the process, has too many series.
    Series,
}

impl Refusal {
    const fn name(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Series => "series",
        }
    }
}

/// The first forbidden label, if any.
#[must_use]
pub fn forbidden<'a>(labels: impl Iterator<Item = &'a Label>) -> Option<&'a str> {
    labels.map(Label::key).find(|name| FORBIDDEN_LABELS.iter().any(|no| no.eq_ignore_ascii_case(name)))
}

/// A recorder that admits only what keeps the budget.
pub struct Budgeted<R> {
    inner: R,
    admitted: RwLock<Admitted>,
    per_metric: usize,
    total: usize,
}

#[derive(Default)]
struct Admitted {
    series: HashSet<u64>,
    by_metric: HashMap<String, usize>,
    refused: HashSet<String>,
}

impl<R: Recorder> Budgeted<R> {
    /// With the house's caps.
    pub fn new(inner: R) -> Self {
        Self::with_caps(inner, SERIES_PER_METRIC, SERIES)
    }

    /// With caps of one's own.
    pub fn with_caps(inner: R, per_metric: usize, total: usize) -> Self {
        Self { inner, admitted: RwLock::default(), per_metric, total }
    }

    fn admits(&self, key: &Key) -> bool {
        let hash = key.get_hash();
        if self.admitted.read().unwrap_or_else(PoisonError::into_inner).series.contains(&hash) {
            return true;
        }
        match self.admit(key, hash) {
            Ok(()) => true,
            Err((refusal, first)) => {
                let metadata = Metadata::new(module_path!(), metrics::Level::INFO, None);
                let counted = Key::from_parts("insula_metrics_refused_total", vec![Label::new("reason", refusal.name())]);
                self.inner.register_counter(&counted, &metadata).increment(1);
                if first {
                    let labels: Vec<_> = key.labels().map(Label::key).collect();
                    tracing::warn!(
                        metric = key.name(),
                        reason = refusal.name(),
                        ?labels,
                        "metric refused: it breaks the cardinality budget"
                    );
                }
                false
            }
        }
    }

    /// Admits a new series, or says why not and whether it is the metric's first refusal.
    fn admit(&self, key: &Key, hash: u64) -> Result<(), (Refusal, bool)> {
        let mut admitted = self.admitted.write().unwrap_or_else(PoisonError::into_inner);
        let of_metric = admitted.by_metric.get(key.name()).copied().unwrap_or(0);
        let refusal = if forbidden(key.labels()).is_some() {
            Refusal::Label
        } else if of_metric >= self.per_metric || admitted.series.len() >= self.total {
            Refusal::Series
        } else {
            if admitted.series.insert(hash) {
                *admitted.by_metric.entry(key.name().to_owned()).or_default() += 1;
            }
            return Ok(());
        };
        // Bounded as well: names come from code, but nothing here may grow for ever.
        let first = admitted.refused.len() < self.total && admitted.refused.insert(key.name().to_owned());
        Err((refusal, first))
    }
}

impl<R: Recorder> Recorder for Budgeted<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        if self.admits(key) { self.inner.register_counter(key, metadata) } else { Counter::noop() }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        if self.admits(key) { self.inner.register_gauge(key, metadata) } else { Gauge::noop() }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        if self.admits(key) { self.inner.register_histogram(key, metadata) } else { Histogram::noop() }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn rendered(per_metric: usize, total: usize, record: impl FnOnce()) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&Budgeted::with_caps(recorder, per_metric, total), record);
        handle.render()
    }

    #[test]
    fn a_label_that_names_somebody_is_refused_and_counted() {
        let text = rendered(10, 10, || {
            metrics::counter!("requests_total", "status" => "200").increment(1);
            metrics::counter!("leaky_total", "tenant" => "acme-corp").increment(1);
            metrics::gauge!("leaky_gauge", "Slug" => "acme-corp").set(1.0);
            metrics::histogram!("leaky_seconds", "user" => "acme-corp").record(1.0);
        });
        assert!(text.contains("requests_total{status=\"200\"} 1"), "{text}");
        assert!(!text.contains("acme-corp") && !text.contains("leaky"), "{text}");
        assert!(text.contains("insula_metrics_refused_total{reason=\"label\"} 3"), "{text}");
    }

    #[test]
    fn series_are_capped_by_metric_and_old_ones_go_on() {
        let text = rendered(3, 100, || {
            for round in 0..2 {
                for code in 0..5 {
                    metrics::counter!("codes_total", "code" => code.to_string()).increment(1);
                }
                metrics::counter!("other_total").increment(round);
            }
        });
        assert_eq!(text.matches("codes_total{").count(), 3, "{text}");
        assert!(text.contains("codes_total{code=\"0\"} 2"), "{text}");
        assert!(text.contains("insula_metrics_refused_total{reason=\"series\"} 4"), "{text}");
    }

    #[test]
    fn series_are_capped_in_all() {
        let text = rendered(100, 2, || {
            for name in ["a_total", "b_total", "c_total"] {
                metrics::counter!(name).increment(1);
            }
        });
        assert!(text.contains("a_total 1") && text.contains("b_total 1") && !text.contains("c_total"), "{text}");
    }
}
