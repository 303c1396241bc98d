//! One page that needs nothing else: drawings, tables, and what the figures depend on.

use std::fmt::Write;

use crate::chart::{WIDTH, bound, draw, judged};
use crate::figures::{Figure, Measured, Run};
use crate::machine::Machine;
use crate::plan::{Aim, Section, Value, sections};
use crate::svg::{STYLE, escaped, readable};

const PAGE_STYLE: &str = "
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 860px; padding: 32px 24px 80px; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 52px 0 6px; padding-top: 18px;
  border-top: 1px solid var(--rule); } p { margin: 6px 0 14px; } .soft { color: var(--soft); font-size: 13px; }
svg { display: block; width: 100%; height: auto; margin: 14px 0 6px; }
table { border-collapse: collapse; font-size: 13px; margin: 10px 0; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); } th, td { padding: 4px 10px 4px 0;
  border-bottom: 1px solid var(--rule); vertical-align: top; } td.n, th.n { text-align: right; white-space: nowrap; }
table.machine th { width: 110px; } code { font: 12.5px ui-monospace, 'DejaVu Sans Mono', monospace; } summary { cursor: pointer; color: var(--soft);
  font-size: 13px; } .met { color: var(--c1); font-weight: 600; } .missed { color: var(--aim); font-weight: 600; }
nav { columns: 2; font-size: 14px; margin: 14px 0; } nav a { display: block; color: var(--c0); text-decoration: none; }
";

/// The page.
pub(crate) fn page(measured: &Measured) -> String {
    let mut html = String::new();
    let newest = measured.runs.iter().max_by(|a, b| a.began.cmp(&b.began));
    let _ = write!(
        html,
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' \
         content='width=device-width, initial-scale=1'><title>Tidemark: what it costs</title>\
         <style>{STYLE}{PAGE_STYLE}</style></head><body><h1>Tidemark: what it costs</h1>\
         <p class='soft'>Bars and points are medians, thin lines reach from the least to the greatest round. A number in \
         brackets, as (1.32×), is the ratio to the reference of the same run, which is drawn grey: contenders take turns, so \
         trust ratios more than absolute figures, which hold for one machine at one time.</p>"
    );
    if let Some(run) = newest {
        html += &machine_table(&run.machine);
    }
    html += &aims(measured);
    let known: Vec<&Section> = sections().filter(|section| measured.run_of(section.name).is_some()).collect();
    html += "<nav>";
    for Section { name, title, .. } in &known {
        let _ = write!(html, "<a href='#{name}'>{title}</a>");
    }
    html += "</nav>";
    for section in known {
        html += &section_of(measured, section, newest);
    }
    html + "</body></html>\n"
}

fn machine_table(machine: &Machine) -> String {
    let Machine { processor, cores, memory_gb, system, compiler, commit } = machine;
    let rows = [
        ("processor", processor.clone()),
        ("cores", cores.to_string()),
        ("memory", format!("{memory_gb:.1} GB")),
        ("system", system.clone()),
        ("compiler", compiler.clone()),
        ("commit", commit.clone()),
    ];
    let rows: String =
        rows.iter().map(|(name, value)| format!("<tr><th>{name}</th><td>{}</td></tr>", escaped(value))).collect();
    format!("<table class='machine'>{rows}</table>")
}

/// Every aim with what was measured, and whether it is met.
fn aims(measured: &Measured) -> String {
    let mut rows = String::new();
    for section in sections() {
        for chart in section.charts {
            let (Some(aim), figures) = (&chart.aim, measured.of(section.name, chart.figure)) else { continue };
            let (Some(figure), Some(bound)) = (judged(&figures, aim), bound(measured, &figures, aim)) else { continue };
            let met = is_met(measured, figure, aim);
            let (class, word) = if met { ("met", "met") } else { ("missed", "missed") };
            let _ = write!(
                rows,
                "<tr><td><a href='#{}' style='color:inherit'>{}</a></td><td>{}</td><td class='n'>{}</td><td class='n'>{}</td>\
                 <td class='{class}'>{word}</td></tr>",
                section.name,
                escaped(section.title),
                escaped(aim.words),
                readable(figure.middle(), &figure.unit),
                readable(bound, &figure.unit),
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<table><tr><th>aim</th><th></th><th class='n'>measured</th><th class='n'>bound</th><th></th></tr>{rows}</table>"
    )
}

fn is_met(measured: &Measured, figure: &Figure, aim: &Aim) -> bool {
    let ratio = || measured.reference_of(figure).map_or(f64::NAN, |reference| figure.ratio_to(reference));
    match aim.value {
        Value::AtMost(bound) => figure.middle() <= bound,
        Value::RatioAtLeast(bound) => ratio() >= bound,
        Value::RatioAtMost(bound) => ratio() <= bound,
    }
}

fn section_of(measured: &Measured, section: &Section, newest: Option<&Run>) -> String {
    let Section { name, title, text, charts, .. } = section;
    let mut html = format!("<h2 id='{name}'>{}</h2><p>{}</p>", escaped(title), escaped(text));
    for chart in *charts {
        html += &draw(measured, name, chart, WIDTH).map(|drawing| drawing.inline(chart.title)).unwrap_or_default();
    }
    html += "<details><summary>all figures</summary><table><tr><th>contender</th><th>under</th><th>figure</th>\
             <th class='n'>median</th><th class='n'>least to greatest</th><th class='n'>rounds</th><th class='n'>ratio</th></tr>";
    for figure in measured.figures.iter().filter(|figure| figure.section == *name) {
        html += &row(measured, figure);
    }
    html += "</table></details>";
    if let Some(run) = measured.run_of(name) {
        let commands: Vec<String> = run.commands.iter().map(|line| format!("<code>{}</code>", escaped(line))).collect();
        let elsewhere = newest.filter(|newest| newest.machine != run.machine).map(|_| {
            let Machine { processor, cores, commit, .. } = &run.machine;
            format!(", at commit {commit} on {cores} cores of {processor}")
        });
        let _ = write!(
            html,
            "<p class='soft'>{}<br>began {}, took {:.0} s{}</p>",
            commands.join("<br>"),
            escaped(&run.began),
            run.seconds,
            escaped(elsewhere.unwrap_or_default()),
        );
    }
    html
}

fn row(measured: &Measured, figure: &Figure) -> String {
    let Figure { contender, at, figure: name, unit, values, .. } = figure;
    let at: Vec<String> = at.iter().map(|(name, value)| format!("{} {name}", readable(*value, ""))).collect();
    let (low, high) = figure.spread();
    let ratio = measured.reference_of(figure).map(|reference| format!("{:.2}", figure.ratio_to(reference)));
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td class='n'>{}</td><td class='n'>{} to {}</td><td class='n'>{}</td><td class='n'>{}</td></tr>",
        escaped(contender),
        escaped(at.join(", ")),
        escaped(name),
        readable(figure.middle(), unit),
        readable(low, ""),
        readable(high, ""),
        values.len(),
        ratio.unwrap_or_default(),
    )
}
