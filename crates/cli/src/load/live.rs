//! The run as it goes, for whoever watches stderr.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
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
        let bars = MultiProgress::new();
        if !screen.progress() {
            return Self { bars, head: None, lines: Vec::new() };
        }
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
