//! Two kinds of drawings: bars for contenders side by side, lines for what grows with a parameter.

use crate::figures::{Figure, Measured};
use crate::plan::{Aim, Chart, Shape, Value};
use crate::svg::{Drawing, Finished, readable};

/// Width of a drawing on the page.
pub(crate) const WIDTH: f64 = 760.0;
/// Width of one of two panels side by side: text stays readable where both together are as wide as a page.
const PANEL: f64 = 540.0;

/// Draws a chart of a section; nothing where nothing was measured.
pub(crate) fn draw(measured: &Measured, section: &str, chart: &Chart, width: f64) -> Option<Finished> {
    let figures = measured.of(section, chart.figure);
    if figures.is_empty() {
        return None;
    }
    Some(match chart.shape {
        Shape::Bars => bars(measured, &figures, chart),
        Shape::Lines(over) => lines(measured, &figures, chart, (over, width)),
    })
}

/// The figure that is to reach an aim. Of several sizes it is the last one: the largest.
pub(crate) fn judged<'a>(figures: &[&'a Figure], aim: &Aim) -> Option<&'a Figure> {
    let named = |figure: &&&Figure| aim.contender.is_empty() || figure.contender == aim.contender;
    figures.iter().rev().find(named).copied()
}

/// The value that an aim stands for, on the axis of the chart.
pub(crate) fn bound(measured: &Measured, figures: &[&Figure], aim: &Aim) -> Option<f64> {
    match aim.value {
        Value::AtMost(bound) => Some(bound),
        Value::RatioAtLeast(ratio) | Value::RatioAtMost(ratio) => {
            let judged = judged(figures, aim)?;
            measured.reference_of(judged).map(|reference| reference.middle() * ratio)
        }
    }
}

/// What tells a figure from the others of its chart: the contender, and parameters that differ.
fn label(figure: &Figure, all: &[&Figure]) -> String {
    let differs = |name: &str| all.iter().any(|other| other.at.get(name) != figure.at.get(name));
    let at = figure.at.iter().filter(|(name, _)| *name != "workers" && differs(name));
    at.fold(figure.contender.clone(), |label, (name, value)| format!("{label}, {} {name}", readable(*value, "")))
}

fn bars(measured: &Measured, figures: &[&Figure], chart: &Chart) -> Finished {
    const LEFT: f64 = 290.0;
    const RIGHT: f64 = WIDTH - 190.0;
    const ROW: f64 = 25.0;
    let aim = chart.aim.as_ref().and_then(|aim| Some((aim, bound(measured, figures, aim)?)));
    let top = if aim.is_some() { 46.0 } else { 30.0 };
    let most = figures.iter().map(|figure| figure.spread().1).chain(aim.map(|(_, bound)| bound)).fold(0.0, f64::max);
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value / most).clamp(0.0, 1.0);
    let bottom = top + ROW * figures.len() as f64;
    let mut drawing = Drawing::default();
    drawing.text(0.0, 16.0, "title", chart.title);
    drawing.line((LEFT, top - 4.0), (LEFT, bottom), "stroke:var(--rule)");
    for (n, figure) in figures.iter().enumerate() {
        let (y, (low, high)) = (top + ROW * n as f64, figure.spread());
        let reference = measured.reference_of(figure);
        let is_reference = reference.is_some_and(|reference| std::ptr::eq(reference, *figure));
        drawing.text(LEFT - 8.0, y + 14.0, "end", &label(figure, figures));
        let colour = if is_reference { "var(--plain)" } else { "var(--c0)" };
        drawing.bar((LEFT, y + 3.0), x(figure.middle()) - LEFT, ROW - 9.0, colour);
        if high > low {
            let middle = y + ROW / 2.0 - 1.5;
            drawing.line((x(low), middle), (x(high), middle), "stroke:var(--ink);stroke-width:1.5");
            for end in [low, high] {
                drawing.line((x(end), middle - 4.0), (x(end), middle + 4.0), "stroke:var(--ink);stroke-width:1.5");
            }
        }
        let ratio = reference.filter(|_| !is_reference).map(|reference| figure.ratio_to(reference));
        let ratio = ratio.map(|ratio| format!("  ({ratio:.2}×)")).unwrap_or_default();
        let value = readable(figure.middle(), &figure.unit);
        drawing.text(RIGHT + 12.0, y + 14.0, "", &format!("{value}{ratio}"));
    }
    if let Some((aim, bound)) = aim {
        drawing.line(
            (x(bound), top - 8.0),
            (x(bound), bottom),
            "stroke:var(--aim);stroke-width:1.5;stroke-dasharray:4 3",
        );
        let class = if x(bound) > WIDTH / 2.0 { "aim end" } else { "aim" };
        drawing.text(x(bound), top - 13.0, class, &format!("aim: {}", aim.words));
    }
    drawing.finish(WIDTH, bottom + 6.0)
}

/// A logarithmic axis.
struct Axis {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let positive = values.filter(|value| *value > 0.0);
        let (low, high) = positive.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        // A single value stands in the middle.
        let (low, high) = if high > low { (low, high) } else { (high / 2.0, high * 2.0) };
        Axis { from, to, low: low.ln(), high: high.ln() }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(f64::MIN_POSITIVE).ln() - self.low) / (self.high - self.low);
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// Round numbers within it: powers of ten, and 2 and 5 times those where there are few.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.high - self.low) / std::f64::consts::LN_10;
        let steps: &[f64] = if decades > 2.2 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (first, last) =
            ((self.low / std::f64::consts::LN_10).floor(), (self.high / std::f64::consts::LN_10).ceil());
        let powers = (first as i32..=last as i32).map(|power| 10.0_f64.powi(power));
        let all = powers.flat_map(|power| steps.iter().map(move |step| power * step));
        all.filter(|tick| (self.low - 1e-9..=self.high + 1e-9).contains(&tick.ln())).collect()
    }
}

/// Where the plot begins at the left, at the top, and ends at the bottom.
const PLOT: [f64; 3] = [64.0, 42.0, 262.0];
/// Room for the names of series.
const NAMES: f64 = 150.0;

fn lines(measured: &Measured, figures: &[&Figure], chart: &Chart, (over, width): (&str, f64)) -> Finished {
    let ([left, top, bottom], right) = (PLOT, width - NAMES);
    let place = |figure: &Figure| figure.at.get(over).copied().unwrap_or_default();
    let aim = chart.aim.as_ref().and_then(|aim| Some((aim, bound(measured, figures, aim)?)));
    // A bound that is a ratio differs from place to place.
    let flat = aim.filter(|(aim, _)| matches!(aim.value, Value::AtMost(_)));
    let spreads = figures.iter().flat_map(|figure| [figure.spread().0, figure.spread().1]);
    let ys = Axis::new(spreads.chain(flat.map(|(_, bound)| bound)), bottom - 8.0, top + 8.0);
    let xs = Axis::new(figures.iter().map(|figure| place(figure)), left + 14.0, right - 8.0);
    let mut drawing = Drawing::default();
    drawing.text(0.0, 16.0, "title", chart.title);
    let unit = figures.first().map(|figure| figure.unit.as_str()).unwrap_or_default();
    drawing.text(0.0, top - 8.0, "soft", unit);
    for tick in ys.ticks() {
        drawing.line((left, ys.place(tick)), (right, ys.place(tick)), "stroke:var(--rule)");
        drawing.text(left - 8.0, ys.place(tick) + 4.0, "soft end", &readable(tick, ""));
    }
    let mut marks: Vec<f64> = figures.iter().map(|figure| place(figure)).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        drawing.line((xs.place(mark), bottom), (xs.place(mark), bottom + 5.0), "stroke:var(--soft)");
        drawing.text(xs.place(mark), bottom + 20.0, "soft middle", &readable(mark, ""));
    }
    drawing.line((left, bottom), (right, bottom), "stroke:var(--soft)");
    drawing.text(right + 26.0, bottom + 20.0, "soft", over);
    if let Some((aim, bound)) = flat {
        let y = ys.place(bound);
        drawing.line((left, y), (right, y), "stroke:var(--aim);stroke-width:1.5;stroke-dasharray:4 3");
        drawing.text(left + 6.0, y - 6.0, "aim", &format!("aim: {}", aim.words));
    }
    series(&mut drawing, figures, over, &xs, &ys);
    drawing.finish(width, bottom + 28.0)
}

/// A line with its points and their spread for each contender, and its name at its end.
fn series(drawing: &mut Drawing, figures: &[&Figure], over: &str, xs: &Axis, ys: &Axis) {
    let mut names: Vec<&str> = figures.iter().map(|figure| figure.contender.as_str()).collect();
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(*name);
            true
        }
    });
    let mut ends = Vec::new();
    let mut colours = (0..7).cycle();
    for name in names {
        let mut own: Vec<&&Figure> = figures.iter().filter(|figure| figure.contender == name).collect();
        own.sort_by(|a, b| a.at.get(over).partial_cmp(&b.at.get(over)).unwrap_or(std::cmp::Ordering::Equal));
        let is_reference = own.iter().any(|figure| figure.reference.as_deref() == Some(name));
        let colour = match is_reference {
            true => "var(--plain)".to_owned(),
            false => format!("var(--c{})", colours.next().unwrap_or_default()),
        };
        let x = |figure: &Figure| xs.place(figure.at.get(over).copied().unwrap_or_default());
        let points: Vec<(f64, f64)> = own.iter().map(|figure| (x(figure), ys.place(figure.middle()))).collect();
        let dashes = if is_reference { "stroke-dasharray:6 4;" } else { "" };
        drawing.path(&points, &format!("stroke:{colour};stroke-width:2;{dashes}"));
        for (figure, point) in own.iter().zip(&points) {
            let (low, high) = figure.spread();
            let style = format!("stroke:{colour};stroke-width:1.5");
            drawing.line((point.0, ys.place(low)), (point.0, ys.place(high)), &style);
            drawing.dot(*point, &colour);
        }
        ends.extend(points.last().map(|end| (*end, name, colour.clone())));
    }
    // Names that would lie on each other are pushed apart; those of series that end early stand beside their end.
    ends.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
    let right = xs.to + 8.0;
    let mut free: [f64; 2] = [PLOT[1] - 4.0; 2];
    for ((x, y), name, colour) in ends {
        let early = x < xs.to - 1.0;
        let place = y.max(free[usize::from(early)]);
        free[usize::from(early)] = place + 16.0;
        if early {
            drawing.text(x + 9.0, place + 4.0, "", name);
            continue;
        }
        drawing.line((right + 2.0, place), (right + 14.0, place), &format!("stroke:{colour};stroke-width:3"));
        drawing.text(right + 18.0, place + 4.0, "", name);
    }
}

/// Several charts on one sheet, two side by side.
pub(crate) fn sheet(measured: &Measured, title: &str, panels: &[(&str, Chart)]) -> Option<Finished> {
    let drawn: Vec<Finished> =
        panels.iter().filter_map(|(section, chart)| draw(measured, section, chart, PANEL)).collect();
    let tallest = drawn.iter().map(|panel| panel.height).fold(0.0, f64::max);
    let mut sheet = Drawing::default();
    sheet.text(24.0, 34.0, "title", title);
    for (n, panel) in drawn.iter().enumerate() {
        let (column, row) = ((n % 2) as f64, (n / 2) as f64);
        sheet.place((24.0 + column * (PANEL + 16.0), 56.0 + row * (tallest + 20.0)), panel);
    }
    let rows = drawn.len().div_ceil(2) as f64;
    (!drawn.is_empty()).then(|| sheet.finish(2.0 * PANEL + 64.0, 64.0 + rows * (tallest + 20.0)))
}
