//! What `deploy/` watches is what the code exports.

use std::collections::BTreeSet;

use super::tree;

/// Suffixes that Prometheus gives to a histogram's series.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Words that begin as our metrics do, wherever they stand.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_');
    words.filter(|word| word.starts_with("insula_")).map(str::to_owned).collect()
}

#[test]
fn dashboards_and_alerts_name_metrics_that_there_are() {
    let mut exported = String::new();
    for file in tree::files(&["rs"]).iter().filter(|file| file.starts_with("crates") && file.iter().any(|part| part == "src")) {
        exported.push_str(&tree::text(file));
    }
    for file in ["deploy/grafana/insula.json", "deploy/prometheus/alerts.yml"] {
        let metrics = named(&tree::text(file.as_ref()));
        assert!(metrics.len() > 5, "{file} watches nothing");
        for metric in metrics {
            let base = SUFFIXES.iter().find_map(|suffix| metric.strip_suffix(suffix)).unwrap_or(&metric);
            assert!(exported.contains(&format!("\"{base}\"")), "{file} watches {metric}, which nothing exports");
        }
    }
}

/// What an operator was promised to be woken for, by the names under which runbooks and guides speak of it.
#[test]
fn the_alerts_that_were_promised_are_there() {
    let text = tree::text("deploy/prometheus/alerts.yml".as_ref());
    let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
    let guide = tree::text("docs/guides/telemetry.md".as_ref());
    for (name, watches) in [
        ("InsulaSlowOperation", "insula_request_seconds_bucket"),
        ("InsulaCrossTenantAttempt", "insula_security_events_total"),
        ("InsulaCacheMisses", "insula_cache_reads_total"),
        ("InsulaPoolSaturated", "insula_data_connections"),
        ("InsulaStarvation", "insula_cell_waiting"),
    ] {
        let alert = alerts.iter().find(|alert| alert.lines().next() == Some(name)).unwrap_or_else(|| panic!("no alert {name}"));
        let expr = alert.split_once("expr:").and_then(|(_, rest)| rest.split_once("labels:")).map(|(expr, _)| expr);
        assert!(expr.is_some_and(|expr| expr.contains(watches)), "{name} does not look at {watches}");
        assert!(alert.contains("severity: ") && alert.contains("summary: "), "{name} tells nobody");
    }
    for name in alerts.iter().filter_map(|alert| alert.lines().next()) {
        assert!(guide.contains(&format!("`{name}`")), "docs/guides/telemetry.md does not say what to do about {name}");
    }
}

#[test]
fn the_dashboard_is_json_with_a_query_in_each_panel() {
    let text = tree::text("deploy/grafana/insula.json".as_ref());
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(panel["targets"][0]["expr"].is_string(), "{panel}");
    }
}
