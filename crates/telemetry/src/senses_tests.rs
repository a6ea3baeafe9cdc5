//! The admin port, asked as a scraper and an operator ask it.

use std::collections::BTreeMap;

use super::*;
use crate::requests::Who;

/// Takes batches, unless it is away.
#[derive(Default)]
struct Desk {
    away: std::sync::atomic::AtomicBool,
    arrived: Mutex<BTreeMap<(uuid::Uuid, u32), Batch>>,
}

impl Deliver for Desk {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            if self.away.load(std::sync::atomic::Ordering::SeqCst) {
                return Err("away".to_owned());
            }
            self.arrived.lock().unwrap().insert((batch.id, batch.part), batch.clone());
            Ok(())
        })
    }
}

impl Desk {
    fn total(&self, meter: Meter) -> u64 {
        self.arrived.lock().unwrap().values().flat_map(|batch| &batch.entries).map(|entry| entry.amounts.get(meter)).sum()
    }
}

fn request(no: i64, slug: &str, status: u16) -> Finished<'_> {
    Finished {
        who: Some(Who { no: TenantNo::new(no).unwrap(), slug, tier: "gold", cell: "main" }),
        principal: None,
        request_id: "r",
        trace_id: None,
        method: "GET",
        path: "/",
        class: "default",
        status: Some(status),
        whole: true,
        head: Duration::from_millis(1),
        total: Duration::from_millis(2),
        bytes_in: 3,
        bytes_out: 10,
        cpu: Duration::from_micros(7),
    }
}

fn settings(folder: &std::path::Path, desk: &Arc<Desk>, bills: Bills) -> Settings {
    Settings { spool: Some(folder.to_owned()), deliver: Some(desk.clone()), bills, ..Settings::default() }
}

#[test]
fn a_clean_stop_loses_nothing_and_what_could_not_be_sent_waits_for_the_next_start() {
    let (folder, desk) = (tempfile::tempdir().unwrap(), Arc::new(Desk::default()));
    let senses = Senses::start(settings(folder.path(), &desk, Bills::All)).unwrap();
    for _ in 0..1000 {
        senses.finished(&request(1, "acme", 200));
    }
    senses.close();
    assert_eq!((desk.total(Meter::Requests), desk.total(Meter::BytesOut), desk.total(Meter::Cpu)), (1000, 10_000, 7_000));

    desk.away.store(true, std::sync::atomic::Ordering::SeqCst);
    let senses = Senses::start(settings(folder.path(), &desk, Bills::Work)).unwrap();
    senses.finished(&request(2, "other", 200));
    senses.usage().add(TenantNo::new(2).unwrap(), Meter::Rows, 5);
    senses.close();
    assert_eq!(desk.total(Meter::Rows), 0);

    desk.away.store(false, std::sync::atomic::Ordering::SeqCst);
    Senses::start(settings(folder.path(), &desk, Bills::Work)).unwrap().close();
    // Requests are billed at the gateway.
    assert_eq!((desk.total(Meter::Rows), desk.total(Meter::Cpu), desk.total(Meter::Requests)), (5, 7_007, 1000));
}

/// The cardinality budget: thousands of tenants, no more series than there are tiers, cells and classes, and nobody's name.
#[test]
fn thousands_of_tenants_make_no_more_series_than_one() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let series = || handle.render().lines().filter(|line| line.starts_with("insula_request")).count();
    metrics::with_local_recorder(&crate::budget::Budgeted::new(recorder), || {
        let senses = Senses::default();
        for status in [200, 404, 429, 500] {
            senses.finished(&request(1, "warmup", status));
        }
        let before = series();
        for no in 1..=5_000 {
            let slug = format!("customer-{no}");
            senses.finished(&Finished { principal: Some("somebody@example.org"), ..request(no, &slug, 200) });
        }
        let text = handle.render();
        assert_eq!(series(), before, "{text}");
        assert!(!text.contains("customer-") && !text.contains("somebody"), "{text}");
        assert!(
            text.contains(r#"insula_requests_total{tier="gold",cell="main",class="default",ending="throttled"} 1"#),
            "{text}"
        );
        // Also a caller who makes up classes stays within the bound: five endings and a histogram (a summary here) for each.
        for no in 0..2_000 {
            let class = format!("class-{no}");
            senses.finished(&Finished { class: &class, ..request(1, "warmup", 200) });
        }
        let text = handle.render();
        assert!(text.matches("ending=\"ok\"").count() <= crate::requests::MOST_SERIES + 1, "{}", series());
        assert!(
            text.contains(r#"tier="other",cell="other",class="other",ending="ok""#) && !text.contains("insula_metrics_refused")
        );
    });
}

#[test]
fn top_names_the_heavy_one() {
    let senses = Senses::start(Settings::default()).unwrap();
    senses.set_names(Box::new(|wanted| wanted.iter().map(|no| (*no, format!("tenant-{no}"))).collect()));
    for _ in 0..50 {
        senses.finished(&request(7, "heavy", 429));
    }
    senses.finished(&request(8, "light", 200));
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut view = senses.top();
    while view.top["requests"].len() < 2 && Instant::now() < deadline {
        std::thread::yield_now();
        view = senses.top();
    }
    assert_eq!((view.top["requests"][0].tenant.as_str(), view.top["requests"][0].amount), ("tenant-7", 50));
    assert_eq!(view.top["throttled"].len(), 1);
}

#[test]
fn a_successor_keeps_count_until_the_process_before_lets_go_of_the_folder() {
    let (folder, desk) = (tempfile::tempdir().unwrap(), Arc::new(Desk::default()));
    let before = Senses::start(settings(folder.path(), &desk, Bills::All)).unwrap();
    assert!(Senses::start(settings(folder.path(), &desk, Bills::All)).is_err(), "by mistake, two are one too many");
    let after = Senses::start(Settings { takes_over: true, ..settings(folder.path(), &desk, Bills::All) }).unwrap();
    after.set_names(Box::new(|wanted| wanted.iter().map(|no| (*no, no.to_string())).collect()));
    for _ in 0..10 {
        before.finished(&request(1, "acme", 200));
        after.finished(&request(1, "acme", 200));
    }
    // It has looked at least once while it had no folder.
    let deadline = Instant::now() + Duration::from_secs(10);
    while after.top().top.get("requests").is_none_or(Vec::is_empty) && Instant::now() < deadline {
        std::thread::yield_now();
    }
    before.close();
    after.finished(&request(1, "acme", 200));
    after.close();
    assert_eq!(desk.total(Meter::Requests), 21);
}
