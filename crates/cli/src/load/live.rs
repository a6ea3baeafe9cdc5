//! The run as it goes, for whoever watches stderr.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use insula_load::html::micros;
use insula_load::{Plan, Progress};

use crate::screen::Screen;

/// Tenants that have a line of their own.
const MOST_LINES: usize = 12;

/// Lines that are drawn anew each second; nothing when nobody watches.
pub(crate) struct View {
    bars: MultiProgress,
    head: Option<ProgressBar>,
    lines: Vec<ProgressBar>,
}

impl View {
    pub(crate) fn new(screen: Screen, plan: &Plan) -> Self {
        if screen.progress() {
            return Self::drawn_on(ProgressDrawTarget::stderr(), plan);
        }
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()), head: None, lines: Vec::new() }
    }

    fn drawn_on(target: ProgressDrawTarget, plan: &Plan) -> Self {
        let bars = MultiProgress::with_draw_target(target);
        let line = |template: &str| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
            bars.add(ProgressBar::new(plan.length.as_secs().max(1)).with_style(style))
        };
        let head = line("{bar:30} {pos}/{len} s  {msg}");
        head.set_message(if plan.warmup.is_zero() { String::new() } else { "warming up".to_owned() });
        let lines = (0..plan.traffic.len().min(MOST_LINES)).map(|_| line("{msg}")).collect();
        Self { bars, head: Some(head), lines }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        let Some(head) = &self.head else { return };
        head.set_position(progress.elapsed.as_secs());
        let served: f64 = progress.tenants.iter().map(|tenant| tenant.now.served).sum();
        let errors: u64 = progress.tenants.iter().map(|tenant| tenant.now.errors).sum();
        head.set_message(format!("{served:.0} served/s, {errors} errors"));
        let width = progress.tenants.iter().map(|tenant| tenant.name.len()).max().unwrap_or(0);
        for (line, tenant) in self.lines.iter().zip(&progress.tenants) {
            let now = &tenant.now;
            #[allow(clippy::cast_precision_loss, reason = "figures for people")]
            let [p50, p99, max] = [now.p50_us, now.p99_us, now.max_us].map(|us| micros(us as f64));
            let (name, served, errors) = (&tenant.name, now.served, now.errors);
            line.set_message(format!(
                "{name:width$}  {served:>8.0}/s  p50 {p50:>8}  p99 {p99:>8}  max {max:>8}  errors {errors}"
            ));
        }
    }

    pub(crate) fn end(self) {
        // The tables take their place.
        let _ = self.bars.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use indicatif::InMemoryTerm;
    use insula_load::report::Moment;
    use insula_load::{Arrivals, Live, Rate, Target, Traffic};

    use super::*;

    fn plan(tenants: &[&str]) -> Plan {
        let target = Target {
            method: "GET".parse().expect("a method"),
            uri: "/".parse().expect("a path"),
            headers: reqwest::header::HeaderMap::new(),
            body: "".into(),
        };
        let one = |name: &&str| Traffic {
            name: (*name).to_owned(),
            rate: Rate::PerSecond(10.0),
            target: target.clone(),
            connections: 4,
        };
        Plan {
            addr: ([127, 0, 0, 1], 1).into(),
            traffic: tenants.iter().map(one).collect(),
            arrivals: Arrivals::Even,
            warmup: Duration::ZERO,
            length: Duration::from_secs(30),
            timeout: Duration::from_secs(1),
            threads: 1,
        }
    }

    fn live(name: &str, served: f64, errors: u64) -> Live {
        let now = Moment { served, errors, p50_us: 950, p99_us: 12_345, max_us: 1_500_000, ..Moment::default() };
        Live { name: name.to_owned(), now, requests: 0 }
    }

    #[test]
    fn each_tenant_has_its_line_while_it_runs_and_none_is_left_behind() {
        let screen = InMemoryTerm::new(10, 120);
        let mut view = View::drawn_on(ProgressDrawTarget::term_like(Box::new(screen.clone())), &plan(&["heavy", "light"]));
        let tenants = vec![live("heavy", 20.0, 980), live("light", 10.0, 0)];
        view.show(&Progress { elapsed: Duration::from_secs(3), tenants });
        let shown = screen.contents();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3, "{shown}");
        assert!(lines[0].ends_with("3/30 s  30 served/s, 980 errors"), "{shown}");
        assert_eq!(lines[1], "heavy        20/s  p50   950 µs  p99  12.3 ms  max   1.50 s  errors 980");
        assert_eq!(lines[2], "light        10/s  p50   950 µs  p99  12.3 ms  max   1.50 s  errors 0");
        // Drawn anew, not below what was there.
        view.show(&Progress { elapsed: Duration::from_secs(4), tenants: vec![live("heavy", 21.0, 981), live("light", 9.0, 1)] });
        let shown = screen.contents();
        assert!(shown.lines().count() == 3 && shown.contains("4/30 s  30 served/s, 982 errors"), "{shown}");
        view.end();
        assert_eq!(screen.contents(), "");
    }

    #[test]
    fn a_crowd_is_summed_up_in_the_first_line() {
        let names: Vec<String> = (0..40).map(|no| format!("t{no}")).collect();
        let screen = InMemoryTerm::new(50, 120);
        let plan = plan(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut view = View::drawn_on(ProgressDrawTarget::term_like(Box::new(screen.clone())), &plan);
        view.show(&Progress { elapsed: Duration::from_secs(1), tenants: names.iter().map(|name| live(name, 1.0, 0)).collect() });
        let shown = screen.contents();
        assert!(shown.contains("40 served/s") && shown.lines().count() == 1 + MOST_LINES, "{shown}");
    }
}
