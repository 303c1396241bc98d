//! Evidence as one page: it needs no network, has no script, and follows the reader's choice of light or dark.

use std::fmt::Write;

use super::evidence::{as_of, verdict};
use super::numbers::grouped;
use crate::evidence::{Check, Evidence, Point};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #6a737d; --line: #d8dee4;
  --good: #1a7f37; --bad: #cf222e; --a: #0969da; --b: #1a7f37; --c: #cf222e; --d: #8250df; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --faint: #8d96a0; --line: #30363d;
  --good: #3fb950; --bad: #f85149; --a: #58a6ff; --b: #3fb950; --c: #f85149; --d: #bc8cff; } }
body { color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif; max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top;
  padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.passed { color: var(--good); } .FAILED { color: var(--bad); font-weight: 700; } .skipped { color: var(--faint); }
.finding { color: var(--bad); } code, .figures { font-family: ui-monospace, monospace; font-size: .85rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--faint); font-size: 11px; }
.axis { stroke: var(--line); } figure { margin: 1rem 0; } figcaption { color: var(--faint); }
.a { stroke: var(--a); } .b { stroke: var(--b); } .c { stroke: var(--c); } .d { stroke: var(--d); }
.key-a { color: var(--a); } .key-b { color: var(--b); } .key-c { color: var(--c); } .key-d { color: var(--d); }
";

/// The whole page.
pub fn html(evidence: &Evidence) -> String {
    let word = if evidence.failed() == 0 { "passed" } else { "FAILED" };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Tidemark: evidence</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>Evidence: <span class=\"{word}\">{}</span></h1>\n\
         <p>Tables below <code>{}</code>, {}.</p>\n",
        escaped(&verdict(evidence)),
        escaped(&evidence.output),
        escaped(&as_of(evidence)),
    );
    page += "<h2>Checks</h2>\n<table>\n<tr><th>outcome</th><th>what must hold</th><th>figures</th></tr>\n";
    evidence.checks.iter().for_each(|check| page += &row(check));
    page += "</table>\n<h2>Epochs</h2>\n";
    page += &plots(&evidence.series.0);
    page += "<h2>Tables</h2>\n<table>\n<tr><th>table</th><th class=\"n\">version read</th>\
             <th class=\"n\">newest epoch</th><th class=\"n\">commits looked at</th></tr>\n";
    for table in &evidence.tables {
        let version = table.version.map_or("none".to_owned(), grouped);
        let held = table.held.map_or("none".to_owned(), |held| held.to_string());
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code></td><td class=\"n\">{version}</td><td class=\"n\">{held}</td><td class=\"n\">{}</td></tr>",
            escaped(table.name),
            grouped(table.commits as u64)
        );
    }
    page += "</table>\n";
    page += &figures(&evidence.series.0);
    page += "</body>\n</html>\n";
    page
}

fn row(check: &Check) -> String {
    let outcome = check.outcome.as_str();
    let findings: String =
        check.findings.iter().map(|finding| format!("<div class=\"finding\">{}</div>", escaped(finding))).collect();
    format!(
        "<tr><td class=\"{outcome}\">{outcome}</td><td>{}<br><code>{}</code></td><td class=\"figures\">{}{findings}</td></tr>\n",
        escaped(check.claim),
        check.name,
        escaped(&check.figures)
    )
}

/// What a line of a plot shows.
type Line = (&'static str, &'static str, fn(&Point) -> f64);

fn per_epoch(sum: i128, point: &Point) -> f64 {
    sum as f64 / point.epochs.max(1) as f64
}

fn plots(points: &[Point]) -> String {
    if points.is_empty() {
        return "<p>No epoch yet.</p>\n".to_owned();
    }
    let events: [Line; 3] = [
        ("a", "received", |p| per_epoch(p.received, p)),
        ("b", "accepted", |p| per_epoch(p.accepted, p)),
        ("c", "rejected", |p| per_epoch(p.rejected, p)),
    ];
    let ids: [Line; 1] = [("d", "remembered ids", |p| p.retained_ids as f64)];
    plot("Events in an epoch", points, &events) + &plot("Ids remembered after an epoch", points, &ids)
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 180.0;
const MARGIN: f64 = 60.0;

/// One plot: a line for each figure over the epochs, from 0 up.
fn plot(title: &str, points: &[Point], lines: &[Line]) -> String {
    let most = lines.iter().flat_map(|(_, _, of)| points.iter().map(of)).fold(1.0, f64::max);
    let x = |at: usize| MARGIN + (WIDTH - MARGIN) * (at as f64 + 0.5) / points.len() as f64;
    let y = |value: f64| 10.0 + (HEIGHT - 40.0) * (1.0 - value / most);
    let mut svg = format!("<figure>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n");
    for share in [0.0, 0.5, 1.0] {
        let (at, label) = (y(most * share), format!("{:.0}", most * share));
        let _ = writeln!(svg, "<line class=\"axis\" x1=\"{MARGIN}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", MARGIN - 6.0, at + 4.0);
    }
    for (class, _, of) in lines {
        let dots: Vec<String> =
            points.iter().enumerate().map(|(at, point)| format!("{:.1},{:.1}", x(at), y(of(point)))).collect();
        // A single epoch has no line: a short one stands for it.
        let dots = if let [dot] = &dots[..] {
            format!("{dot} {:.1},{:.1}", x(0) + 3.0, y(of(&points[0])))
        } else {
            dots.join(" ")
        };
        let _ = writeln!(svg, "<polyline class=\"{class}\" fill=\"none\" stroke-width=\"1.5\" points=\"{dots}\"/>");
    }
    for (at, anchor, epoch) in
        [(MARGIN, "start", points.first().map(|p| p.first)), (WIDTH, "end", points.last().map(|p| p.last))]
    {
        let epoch = epoch.unwrap_or_default();
        let _ = writeln!(svg, "<text x=\"{at}\" y=\"{}\" text-anchor=\"{anchor}\">epoch {epoch}</text>", HEIGHT - 8.0);
    }
    let keys: Vec<String> =
        lines.iter().map(|(class, name, _)| format!("<span class=\"key-{class}\">{name}</span>")).collect();
    let _ = writeln!(svg, "</svg>\n<figcaption>{title}: {}</figcaption>\n</figure>", keys.join(", "));
    svg
}

/// The figures that are drawn.
fn figures(points: &[Point]) -> String {
    let mut text =
        "<h2>Figures of the epochs</h2>\n<table>\n<tr><th class=\"n\">epochs</th><th class=\"n\">received</th>\
         <th class=\"n\">accepted</th><th class=\"n\">duplicates</th><th class=\"n\">rejected</th>\
         <th class=\"n\">remembered ids</th></tr>\n"
            .to_owned();
    for p in points {
        let epochs = if p.first == p.last { p.first.to_string() } else { format!("{} to {}", p.first, p.last) };
        let counts = [p.received, p.accepted, p.duplicates, p.rejected, p.retained_ids];
        let cells: String =
            counts.map(|n| format!("<td class=\"n\">{}</td>", grouped(u64::try_from(n).unwrap_or(0)))).concat();
        let _ = writeln!(text, "<tr><td class=\"n\">{epochs}</td>{cells}</tr>");
    }
    text + "</table>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Outcome, Series};

    #[test]
    fn a_page_is_whole_and_escapes_what_it_shows() {
        let point = Point {
            first: 1,
            last: 1,
            epochs: 1,
            received: 3,
            accepted: 2,
            rejected: 1,
            duplicates: 0,
            retained_ids: 2,
        };
        let evidence = Evidence {
            output: "<b>&\"".to_owned(),
            epoch: Some(1),
            tables: Vec::new(),
            checks: vec![Check::of("a.b", "a < b", "1 < 2", vec!["<script>".to_owned()])],
            series: Series(vec![point]),
        };
        let page = html(&evidence);
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("http"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.matches("<polyline").count() == 4, "{page}");
        assert!(page.contains(Outcome::Failed.as_str()) && page.contains("prefers-color-scheme: dark"));
    }
}
