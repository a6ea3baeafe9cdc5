//! What is expected of a load run, read and judged.

use proptest::prelude::*;

use super::*;

fn fault(text: &str) -> String {
    parse(text).expect_err("refused").to_string()
}

fn report() -> Report {
    serde_json::from_value(serde_json::json!({
        "started_unix": 0, "addr": "", "seconds": 10.0, "threads": 1, "arrivals": "even",
        "generator": {"cpu_cores": 0.0, "lag_p99_us": 0, "lag_max_us": 0},
        "total": TenantReport::default(),
        "tenants": [
            TenantReport {
                name: "light".to_owned(), requests: 200, served: 198, errors: 2, throttled: 1, rps: 20.0, served_rps: 19.8,
                statuses: [(200, 198), (429, 1), (503, 1)].into(),
                latency: crate::report::Quantiles { count: 199, max_us: 90_000, ..Default::default() },
                curve: vec![(0.5, 1_000), (0.99, 20_000), (1.0, 90_000)],
                ..TenantReport::default()
            },
            TenantReport { name: "silent".to_owned(), ..TenantReport::default() },
        ],
        "expectations": []
    }))
    .unwrap()
}

fn verdict(text: &str) -> (bool, String) {
    let verdict = parse(text).unwrap()[0].judge(&report());
    (verdict.holds, verdict.actual)
}

#[test]
fn a_list_is_read_and_written_alike() {
    let items = parse("light.p99<250ms, light.errors<1%,all.rps>=100rps,www.acme.example.p99.9<=1.5s,x.503=0").unwrap();
    let texts: Vec<_> = items.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["light.p99<250ms", "light.errors<1%", "all.rps>=100", "www.acme.example.p99.9<=1.5s", "x.503=0"]);
}

#[test]
fn faults_quote_the_item_and_say_what_is_right() {
    assert!(fault("light.p99").contains("cannot expect \"light.p99\": it compares nothing"));
    assert!(fault("light.p99<250").contains("\"250\" is no time: write 250us, 250ms or 1.5s"));
    assert!(fault("light.p101<1s").contains("\"light.p101\" is no TENANT.METRIC; metrics: p99 (any percentile)"));
    assert!(fault("p99<1s").contains("is no TENANT.METRIC"));
    assert!(fault("light.errors<1ms").contains("neither a count as 3 nor a share as 1%"));
    assert!(fault("light.errors<1.5").contains("neither a count"));
    assert!(fault("light.rps>fast").contains("is no rate"));
    assert!(fault("light.errors<1%,").contains("cannot expect \"\""));
}

#[test]
fn verdicts() {
    assert_eq!(verdict("light.p99<250ms"), (true, "20ms".to_owned()));
    assert_eq!(verdict("light.p99.5<20ms"), (false, "90ms".to_owned()));
    assert_eq!(verdict("light.errors<1%"), (false, "1%".to_owned()));
    assert_eq!(verdict("light.errors<=2"), (true, "2".to_owned()));
    assert_eq!(verdict("light.503=1"), (true, "1".to_owned()));
    assert_eq!(verdict("light.rps>=20"), (true, "20".to_owned()));
    assert_eq!(verdict("silent.errors<1%"), (false, "no requests".to_owned()));
    assert!(!verdict("unknown.p50<1s").0);
}

fn metric() -> impl Strategy<Value = Metric> {
    prop_oneof![
        (0u32..=10_000).prop_map(|hundredths| Metric::Percentile(f64::from(hundredths) / 100.0)),
        Just(Metric::Min),
        Just(Metric::Mean),
        Just(Metric::Max),
        Just(Metric::Errors),
        Just(Metric::Throttled),
        Just(Metric::Unsent),
        (100u16..1000).prop_map(Metric::Status),
        Just(Metric::Rps),
        Just(Metric::Served),
    ]
}

prop_compose! {
    fn expectation()(
        subject in "[a-z][a-z0-9-]{0,10}(\\.[a-z][a-z0-9]{3,6})?",
        metric in metric(),
        op in prop::sample::select(vec![Op::Less, Op::AtMost, Op::More, Op::AtLeast, Op::Equal]),
        number in 0u32..1_000_000,
        percent in 0u32..=10_000,
        whole in any::<bool>(),
    ) -> Expectation {
        let value = match metric {
            m if m.is_latency() => Value::Micros(f64::from(number)),
            m if m.is_rate() || whole => Value::Number(f64::from(number)),
            _ => Value::Percent(f64::from(percent) / 100.0),
        };
        Expectation { subject, metric, op, value }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(expectation in expectation()) {
        // A host whose last label is a metric's name is read as the metric.
        prop_assume!(!expectation.subject.split('.').skip(1).any(|label| label.parse::<Metric>().is_ok()));
        let read: Expectation = expectation.to_string().parse().unwrap();
        prop_assert_eq!(&read.subject, &expectation.subject);
        prop_assert_eq!((read.metric, read.op), (expectation.metric, expectation.op));
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-3 * b.max(1.0);
        let same = match (read.value, expectation.value) {
            (Value::Micros(a), Value::Micros(b)) | (Value::Percent(a), Value::Percent(b)) | (Value::Number(a), Value::Number(b)) => close(a, b),
            _ => false,
        };
        prop_assert!(same, "{read:?} {expectation:?}");
    }

    #[test]
    fn no_text_panics_and_faults_quote_it(text in "[a-z.<>=0-9%pms ]{0,24}") {
        if let Err(error) = text.trim().parse::<Expectation>() {
            let quoted = format!("{:?}", text.trim());
            prop_assert!(error.to_string().contains(&quoted), "{error}");
        }
    }
}
