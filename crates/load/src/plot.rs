//! Line plots as SVG text. Colours come from the page's style sheet: `stroke` classes `c0` to `c7`.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
/// Half of a mark's label has room beside the last mark.
const RIGHT: f64 = 24.0;
/// The title of the axis has a line above the highest mark's label.
const TOP: f64 = 30.0;
const BOTTOM: f64 = 36.0;

/// Colours there are.
pub(crate) const COLOURS: usize = 8;

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// An axis with its marks, in the order of their values; its ends are the first and the last mark.
pub(crate) struct Axis {
    pub(crate) scale: Scale,
    pub(crate) marks: Vec<(f64, String)>,
    pub(crate) title: &'static str,
}

/// A line, by its colour.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Axis {
    /// Marks at 1, 2 and 5 times the powers of ten that hold `least` to `most`.
    pub(crate) fn log(title: &'static str, least: f64, most: f64, label: impl Fn(f64) -> String) -> Self {
        let steps: Vec<f64> = (-3..10).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power))).collect();
        let first = steps.iter().rposition(|step| *step <= least).unwrap_or(0);
        let last =
            steps.iter().position(|step| *step >= most.max(least)).unwrap_or(steps.len() - 1).max(first + 1).min(steps.len() - 1);
        Self { scale: Scale::Log, marks: steps[first..=last].iter().map(|step| (*step, label(*step))).collect(), title }
    }

    /// From 0, with four to ten round marks.
    pub(crate) fn linear(title: &'static str, most: f64, label: impl Fn(f64) -> String) -> Self {
        let most = most.max(1e-3);
        let power = 10f64.powf((most / 4.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| most / step <= 8.0).unwrap_or(most);
        let mut marks = vec![(0.0, label(0.0))];
        let mut at = step;
        while marks.last().is_some_and(|(last, _)| *last < most) && marks.len() < 20 {
            marks.push((at, label(at)));
            at += step;
        }
        Self { scale: Scale::Linear, marks, title }
    }

    /// Where a value lies between the ends, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let (Some((first, _)), Some((last, _))) = (self.marks.first(), self.marks.last()) else { return 0.0 };
        let share = match self.scale {
            Scale::Linear => (value - first) / (last - first),
            Scale::Log => (value.max(*first).ln() - first.ln()) / (last.ln() - first.ln()),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// The plot, with a legend that every line is in.
pub(crate) fn svg(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let mut out = String::new();
    let across = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
    let up = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
    // Writing to a String cannot fail.
    let _ = write!(out, "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">", text(title));
    for (value, label) in &y.marks {
        let at = up(*value);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            text(label)
        );
    }
    for (value, label) in &x.marks {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"mid\">{}</text>",
            across(*value),
            HEIGHT - BOTTOM + 18.0,
            text(label)
        );
    }
    let _ = write!(out, "<text x=\"{:.1}\" y=\"{:.1}\" class=\"end axis\">{}</text>", WIDTH - RIGHT, HEIGHT - 4.0, text(x.title));
    let _ = write!(out, "<text x=\"4\" y=\"{:.1}\" class=\"axis\">{}</text>", TOP - 16.0, text(y.title));
    for line in lines {
        let points: Vec<String> = line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", across(*px), up(*py))).collect();
        let _ = write!(
            out,
            "<polyline class=\"c{}\" points=\"{}\"><title>{}</title></polyline>",
            line.colour % COLOURS,
            points.join(" "),
            text(&line.name)
        );
    }
    out.push_str("</svg><p class=\"legend\">");
    for line in lines {
        let _ = write!(out, "<span><i class=\"c{}\"></i>{}</span>", line.colour % COLOURS, text(&line.name));
    }
    out.push_str("</p></figure>\n");
    out
}

/// Text that HTML takes for text.
pub(crate) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_what_is_asked() {
        let marks = |axis: Axis| axis.marks.iter().map(|(value, _)| *value).collect::<Vec<_>>();
        let close =
            |a: Vec<f64>, b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9 * b.max(1.0));
        assert!(close(marks(Axis::log("", 3.0, 40.0, |v| v.to_string())), &[2.0, 5.0, 10.0, 20.0, 50.0]));
        assert!(close(marks(Axis::linear("", 30.0, |v| v.to_string())), &[0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]));
        assert!(marks(Axis::linear("", 0.0, |v| v.to_string())).len() > 1);
    }

    #[test]
    fn points_stay_inside_and_names_are_text() {
        let axis = |most| Axis::linear("", most, |v| v.to_string());
        let line = Line { name: "<b>".to_owned(), colour: 9, points: vec![(-5.0, f64::NAN), (1e9, 1e9)] };
        let svg = svg("a & b", &axis(10.0), &axis(10.0), &[line]);
        assert!(svg.contains("class=\"c1\" points=\"70.0,264.0 836.0,30.0\""), "{svg}");
        // The axis's title stands a line above the label of its highest mark.
        assert!(
            svg.contains("y=\"34.0\" class=\"end\">10<") && svg.contains("<text x=\"4\" y=\"14.0\" class=\"axis\">"),
            "{svg}"
        );
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;b&gt;") && !svg.contains("<b>"), "{svg}");
    }
}
