//! A report as one page that needs nothing else: no script, no font, no network.

use std::fmt::Write as _;

use crate::plot::{Axis, COLOURS, Line, Scale, svg, text};
use crate::report::{Report, TenantReport};

/// Lines of one plot; with more tenants, those with the worst p99 are drawn.
const MOST_LINES: usize = COLOURS;

/// The whole page.
#[must_use]
pub fn page(report: &Report) -> String {
    let failed = report.expectations.iter().filter(|verdict| !verdict.holds).count();
    let verdict = match (report.expectations.len(), failed) {
        (0, _) => String::new(),
        (all, 0) => format!("<p class=\"good\">All {all} expectations hold.</p>"),
        (all, failed) => format!("<p class=\"bad\">{failed} of {all} expectations fail.</p>"),
    };
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>insula load</title><style>{STYLE}</style></head><body><h1>Load report</h1>{}{verdict}{}{}{}</body></html>\n",
        facts(report),
        expectations(report),
        table(report),
        plots(report)
    )
}

fn facts(report: &Report) -> String {
    let lag = if report.generator.lag_p99_us > 1_000 {
        let late = micros(as_f64(report.generator.lag_p99_us));
        format!(
            "<p class=\"bad\">The generator itself was late by {late} (p99): it had too little of the machine, and the latencies include that.</p>"
        )
    } else {
        String::new()
    };
    let started = chrono_free_utc(report.started_unix);
    format!(
        "<p class=\"facts\">{started} · {} · {} s · {} thread(s) · arrivals {} · generator {} cores, late by {} at p99</p>{lag}",
        text(&report.addr),
        report.seconds,
        report.threads,
        text(&report.arrivals),
        report.generator.cpu_cores,
        micros(as_f64(report.generator.lag_p99_us)),
    )
}

fn expectations(report: &Report) -> String {
    let mut out = String::new();
    for verdict in &report.expectations {
        let (class, mark) = if verdict.holds { ("good", "✓") } else { ("bad", "✗") };
        let (wanted, actual) = (text(&verdict.expectation), text(&verdict.actual));
        let _ = write!(out, "<li class=\"{class}\">{mark} <code>{wanted}</code> — {actual}</li>");
    }
    if out.is_empty() { out } else { format!("<ul>{out}</ul>") }
}

fn table(report: &Report) -> String {
    let mut out = String::from(
        "<table><thead><tr><th>tenant<th>target<th>served/s<th>requests<th>errors<th>429<th>p50<th>p90<th>p99<th>p99.9<th>max<th>other endings</tr></thead><tbody>",
    );
    let all = (report.tenants.len() > 1).then_some(&report.total);
    for tenant in report.tenants.iter().chain(all) {
        let l = &tenant.latency;
        let cells = [
            text(&tenant.target),
            format!("{:.1}", tenant.served_rps),
            tenant.requests.to_string(),
            share(tenant.errors, tenant.requests),
            share(tenant.throttled, tenant.requests),
            micros(as_f64(l.p50_us)),
            micros(as_f64(l.p90_us)),
            micros(as_f64(l.p99_us)),
            micros(as_f64(l.p999_us)),
            micros(as_f64(l.max_us)),
            endings(tenant),
        ];
        let _ = write!(out, "<tr><th>{}", text(&tenant.name));
        for cell in cells {
            let _ = write!(out, "<td>{cell}");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    out
}

fn endings(tenant: &TenantReport) -> String {
    let statuses = tenant.statuses.iter().filter(|(status, _)| !(200..400).contains(*status)).map(|(s, n)| format!("{s}: {n}"));
    let failures = tenant.failures.iter().map(|(reason, count)| format!("{}: {count}", text(reason)));
    statuses.chain(failures).collect::<Vec<_>>().join(", ")
}

fn share(part: u64, all: u64) -> String {
    if part == 0 { "0".to_owned() } else { format!("{part} ({:.2}%)", as_f64(part) * 100.0 / as_f64(all.max(1))) }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

/// A time as people read it.
#[must_use]
pub fn micros(us: f64) -> String {
    match us {
        us if us >= 10e6 => format!("{:.1} s", us / 1e6),
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 100e3 => format!("{:.0} ms", us / 1e3),
        us if us >= 10e3 => format!("{:.1} ms", us / 1e3),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us => format!("{us:.0} µs"),
    }
}

/// `2026-01-02 03:04:05Z` (Hinnant, "chrono-compatible low-level date algorithms": `civil_from_days`).
fn chrono_free_utc(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400 + 719_468, unix % 86_400);
    let era = days / 146_097;
    let doe = days % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn plots(report: &Report) -> String {
    let mut drawn: Vec<&TenantReport> = report.tenants.iter().collect();
    let left_out = drawn.len().saturating_sub(MOST_LINES);
    if left_out > 0 {
        drawn.sort_by_key(|tenant| std::cmp::Reverse(tenant.latency.p99_us));
        drawn.truncate(MOST_LINES);
    }
    let note = if left_out == 0 {
        String::new()
    } else {
        format!("<p>The {MOST_LINES} tenants with the worst p99; {left_out} more are in the table.</p>")
    };
    let line = |points: &dyn Fn(&TenantReport) -> Vec<(f64, f64)>| -> Vec<Line> {
        drawn
            .iter()
            .enumerate()
            .map(|(colour, tenant)| Line { name: tenant.name.clone(), colour, points: points(tenant) })
            .collect()
    };
    // Shares are drawn by how many requests there are for each that was slower: 10 is 90%, 100 is 99%.
    let curve = line(&|tenant| {
        let finite = tenant.curve.iter().filter(|(share, _)| *share < 1.0);
        finite.map(|(share, us)| (1.0 / (1.0 - share), as_f64((*us).max(1)))).collect()
    });
    let over_time = line(&|tenant| tenant.moments.iter().map(|m| (m.second, as_f64(m.p99_us.max(1)))).collect());
    let served = line(&|tenant| tenant.moments.iter().map(|m| (m.second, m.served)).collect());
    let errors = line(&|tenant| tenant.moments.iter().map(|m| (m.second, as_f64(m.errors))).collect());
    let time = || Axis::linear("seconds", most(&served, |p| p.0), |v| format!("{v}"));
    let share = Axis {
        scale: Scale::Log,
        marks: [(1.0, "0"), (2.0, "50%"), (10.0, "90%"), (100.0, "99%"), (1e3, "99.9%"), (1e4, "99.99%"), (1e5, "99.999%")]
            .into_iter()
            .filter(|(at, _)| *at <= 10.0 * most(&curve, |p| p.0).max(2.0))
            .map(|(at, label)| (at, label.to_owned()))
            .collect(),
        title: "share of requests",
    };
    let mut out = note;
    out.push_str(&svg("Latency that this share of the requests kept below", &share, &latency_axis(&curve), &curve));
    out.push_str(&svg("p99 latency, second by second", &time(), &latency_axis(&over_time), &over_time));
    out.push_str(&svg(
        "Served requests a second",
        &time(),
        &Axis::linear("", most(&served, |p| p.1), |v| format!("{v}")),
        &served,
    ));
    if most(&errors, |p| p.1) > 0.0 {
        out.push_str(&svg(
            "Errors in each second",
            &time(),
            &Axis::linear("", most(&errors, |p| p.1), |v| format!("{v}")),
            &errors,
        ));
    }
    out
}

fn latency_axis(lines: &[Line]) -> Axis {
    let least = lines.iter().flat_map(|line| &line.points).map(|p| p.1).fold(f64::INFINITY, f64::min);
    let least = if least.is_finite() { least } else { 1.0 };
    Axis::log("latency", least, most(lines, |p| p.1).max(least), micros)
}

fn most(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    lines.iter().flat_map(|line| &line.points).map(of).fold(0.0, f64::max)
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--paper:#fff;--soft:#e3e7ee;--dim:#5d6878;--good:#17743a;--bad:#b3261e;\
--c0:#1f6fd6;--c1:#d1490c;--c2:#158a5f;--c3:#8a3fc0;--c4:#b08300;--c5:#c02766;--c6:#0b8a9e;--c7:#5f6b7a}\
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf2;--paper:#12161d;--soft:#2a313c;--dim:#9aa6b6;--good:#5fcf87;--bad:#ff8a80;\
--c0:#6cacff;--c1:#ff945c;--c2:#52d19f;--c3:#c895f0;--c4:#e6bd47;--c5:#f280ae;--c6:#5cd0e0;--c7:#aab6c5}}\
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1100px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}.facts,.axis{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad)}ul{list-style:none;padding:0}\
table{border-collapse:collapse;display:block;overflow-x:auto;font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .5rem;text-align:right;border-bottom:1px solid var(--soft);white-space:nowrap}th:first-child{text-align:left}\
figure{margin:1.8rem 0}figcaption{font-weight:600;margin-bottom:.4rem}svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--dim)}\
.end{text-anchor:end}.mid{text-anchor:middle}.grid{stroke:var(--soft)}polyline{fill:none;stroke-width:1.8}\
.legend span{margin-right:1.2rem}.legend i{display:inline-block;width:1.2em;height:.25em;vertical-align:middle;margin-right:.4em}\
.c0{stroke:var(--c0);background:var(--c0)}.c1{stroke:var(--c1);background:var(--c1)}.c2{stroke:var(--c2);background:var(--c2)}\
.c3{stroke:var(--c3);background:var(--c3)}.c4{stroke:var(--c4);background:var(--c4)}.c5{stroke:var(--c5);background:var(--c5)}\
.c6{stroke:var(--c6);background:var(--c6)}.c7{stroke:var(--c7);background:var(--c7)}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_dates_as_people_read_them() {
        assert_eq!(
            [740.0, 1_234.0, 45_678.0, 250_000.0, 1_500_000.0].map(micros),
            ["740 µs", "1.23 ms", "45.7 ms", "250 ms", "1.50 s"]
        );
        assert_eq!(chrono_free_utc(1_767_323_045), "2026-01-02 03:04:05Z");
        assert_eq!(chrono_free_utc(951_782_400), "2000-02-29 00:00:00Z");
    }
}
