//! Days as bars, in SVG without a script.

use std::fmt::Write as _;

use crate::dashboard::Day;

const WIDTH: usize = 900;
const HEIGHT: i64 = 200;
const TOP: i64 = 14;
const BOTTOM: i64 = 24;

/// The bars: written below, changed above. Numbers and dates only: nothing in it needs escaping.
pub(crate) fn bars(days: &[Day]) -> String {
    let most = days.iter().map(|day| day.created + day.edited).max().unwrap_or(0).max(1);
    let space = HEIGHT - TOP - BOTTOM;
    // Anything above zero shows.
    let tall = |n: i64| if n == 0 { 0 } else { (n * space / most).max(2) };
    let step = WIDTH / days.len().max(1);
    let ground = HEIGHT - BOTTOM;
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Documents written and changed by day\">"
    );
    // Writing to a String cannot fail.
    let _ = write!(
        svg,
        "<line class=\"rule\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{TOP}\" y2=\"{TOP}\"/><text x=\"0\" y=\"10\">{most}</text>"
    );
    for (i, day) in days.iter().enumerate() {
        let (x, wide) = (i * step + step / 6, step * 2 / 3);
        let (created, edited) = (tall(day.created), tall(day.edited));
        let Day { day: date, created: made, edited: changed } = day;
        let _ = write!(svg, "<g><title>{date}: {made} written, {changed} changed</title>");
        for (class, height, below) in [("created", created, 0), ("edited", edited, created)] {
            if height > 0 {
                let y = (ground - below - height).max(0);
                let _ =
                    write!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{height}\" rx=\"2\"/>");
            }
        }
        svg.push_str("</g>");
        // One label a week, away from both edges.
        if (days.len() - i) % 7 == 4 {
            let (middle, low) = (x + wide / 2, HEIGHT - 6);
            let _ = write!(svg, "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">{}</text>", date.format("%-d %b"));
        }
    }
    let _ = write!(svg, "<line class=\"rule\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{ground}\" y2=\"{ground}\"/></svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_show_and_none_leaves_the_frame() {
        let day = |n, created, edited| Day { day: chrono::NaiveDate::from_ymd_opt(2026, 1, n).expect("a day"), created, edited };
        let svg = bars(&[day(1, 0, 0), day(2, 100_000, 1), day(3, 1, 0)]);
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(!svg.contains("y=\"-") && svg.contains("2026-01-02: 100000 written, 1 changed"));
        assert!(bars(&[]).ends_with("</svg>"));
    }
}
