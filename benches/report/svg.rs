//! The little of SVG that the drawings need: text, lines, and numbers that people can read.
//!
//! Made by hand: colours come from style sheets, so that one drawing serves light and dark pages, which libraries that write
//! colours into each element cannot do.

use std::fmt::{Display, Write};

/// Colours for light and dark, and how text looks. On a page once, in a file of its own within the drawing.
pub(crate) const STYLE: &str = "
:root { --paper: #ffffff; --ink: #1c2430; --soft: #5d6b7c; --rule: #dfe4ea; --plain: #8b97a5; --aim: #c2410c;
  --c0: #2563eb; --c1: #0d9488; --c2: #b45309; --c3: #9333ea; --c4: #be123c; --c5: #4d7c0f; --c6: #0369a1; }
@media (prefers-color-scheme: dark) {
:root { --paper: #12171e; --ink: #e4e9ef; --soft: #9aa7b5; --rule: #2b3440; --plain: #7b8897; --aim: #fb923c;
  --c0: #6ea8fe; --c1: #2dd4bf; --c2: #f0b35a; --c3: #c79bff; --c4: #ff8fa3; --c5: #a3d65c; --c6: #67c7f5; } }
svg text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); font-size: 12px; } svg .title { font-weight: 600; font-size: 14px; }
svg .aim { fill: var(--aim); font-size: 12px; } svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
";

/// A drawing in the making.
#[derive(Default)]
pub(crate) struct Drawing(String);

impl Drawing {
    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(element);
    }

    pub(crate) fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.put(format_args!("<text x='{x:.1}' y='{y:.1}' class='{class}'>{}</text>", escaped(text)));
    }

    /// A straight line; `style` is what stands in the attribute of that name.
    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), style: &str) {
        self.put(format_args!("<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' style='{style}'/>"));
    }

    pub(crate) fn bar(&mut self, (x, y): (f64, f64), width: f64, height: f64, colour: &str) {
        let width = width.max(1.0);
        self.put(format_args!(
            "<rect x='{x:.1}' y='{y:.1}' width='{width:.1}' height='{height:.1}' rx='2' style='fill:{colour}'/>"
        ));
    }

    pub(crate) fn dot(&mut self, (x, y): (f64, f64), colour: &str) {
        self.put(format_args!("<circle cx='{x:.1}' cy='{y:.1}' r='3.2' style='fill:{colour}'/>"));
    }

    pub(crate) fn path(&mut self, points: &[(f64, f64)], style: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.put(format_args!("<polyline points='{}' style='fill:none;{style}'/>", points.join(" ")));
    }

    /// Puts a finished drawing into this one.
    pub(crate) fn place(&mut self, (x, y): (f64, f64), inner: &Finished) {
        let Finished { width, height, body } = inner;
        self.put(format_args!("<svg x='{x:.0}' y='{y:.0}' width='{width:.0}' height='{height:.0}'>{body}</svg>"));
    }

    pub(crate) fn finish(self, width: f64, height: f64) -> Finished {
        Finished { width, height, body: self.0 }
    }
}

/// A drawing and its size.
pub(crate) struct Finished {
    pub(crate) width: f64,
    pub(crate) height: f64,
    body: String,
}

impl Finished {
    /// For a page that has the style already. `label` is for those who do not see it.
    pub(crate) fn inline(&self, label: &str) -> String {
        let Finished { width, height, body } = self;
        let label = escaped(label);
        format!("<svg viewBox='0 0 {width:.0} {height:.0}' role='img' aria-label='{label}'>{body}</svg>")
    }

    /// A file of its own.
    pub(crate) fn file(&self, label: &str) -> String {
        let Finished { width, height, body } = self;
        let label = escaped(label);
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0} {height:.0}' width='{width:.0}' \
             height='{height:.0}' role='img' aria-label='{label}'>\n<style>{STYLE}</style>\n\
             <rect width='100%' height='100%' style='fill:var(--paper)'/>\n{}\n</svg>\n",
            body.replace("><", ">\n<")
        )
    }
}

/// Text as it stands between tags and in attributes.
pub(crate) fn escaped(text: impl Display) -> String {
    text.to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

/// A number with three digits that count, and its unit.
pub(crate) fn readable(value: f64, unit: &str) -> String {
    let (value, letter) = match value.abs() {
        big if big >= 1e12 => (value / 1e12, "T"),
        big if big >= 1e9 => (value / 1e9, "G"),
        big if big >= 1e6 => (value / 1e6, "M"),
        big if big >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        small if small < 0.1 => format!("{value:.3}"),
        small if small < 10.0 => format!("{value:.2}"),
        middling if middling < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    match (unit.strip_prefix("bytes").filter(|rest| rest.is_empty() || rest.starts_with("/s")), letter) {
        (Some(rest), letter) => format!("{digits} {letter}B{rest}"),
        (None, "") => format!("{digits} {unit}"),
        (None, letter) => format!("{digits} {letter} {unit}"),
    }
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "", "0"),
            (0.031, "%", "0.031 %"),
            (7.25, "ms", "7.25 ms"),
            (500.0, "", "500"),
            (1_280_000.0, "events/s", "1.28 M events/s"),
            (100_000.0, "", "100 k"),
            (3.2e9, "bytes", "3.2 GB"),
            (812.0, "bytes", "812 B"),
            (38.6e6, "bytes/s each", "38.6 MB/s each"),
            (32.0, "bytes/id", "32 bytes/id"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(readable(value, unit), text);
        }
    }

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escaped("a < b & 'c'"), "a &lt; b &amp; &#39;c&#39;");
    }
}
