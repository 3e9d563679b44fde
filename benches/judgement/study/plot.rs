//! The figures as a picture: a panel per rate, a row per fault, and when each judge took the candidate back. Its colours follow the reader's
//! light or dark page.

use std::fmt::Write;

use super::judges::JUDGES;
use super::report::{figures, grouped, is_blind};
use super::traffic::Case;
use super::{Cell, Figures, RATES};

const WIDTH: f64 = 860.0;
/// Where the scale begins and ends.
const LEFT: f64 = 190.0;
const RIGHT: f64 = 760.0;
/// Where those stand that half of the rollouts or more passed.
const MISSED: f64 = 810.0;
const TOP: f64 = 92.0;
/// Height of a row: a line for each judge and a gap.
const ROW: f64 = 44.0;
const LINE: f64 = 5.2;
/// Between two panels, with the title of the lower one.
const GAP: f64 = 42.0;
/// The first and the last second of the scale, and what it names.
const SPAN: [f64; 2] = [0.05, 3_600.0];
const NAMED: [(f64, &str); 6] =
    [(0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s"), (60.0, "1 min"), (600.0, "10 min"), (3_600.0, "1 h")];
/// Radius of a dot.
const DOT: f64 = 3.6;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}.grid{stroke:#d1d9e0}\
.j0{fill:#0969da;stroke:#0969da}.j1{fill:#1a7f37;stroke:#1a7f37}.j2{fill:#8250df;stroke:#8250df}.j3{fill:#bc4c00;stroke:#bc4c00}\
.fast{fill-opacity:0}.blind{opacity:.3}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#3d444d}.j0{fill:#58a6ff;stroke:#58a6ff}\
.j1{fill:#3fb950;stroke:#3fb950}.j2{fill:#bc8cff;stroke:#bc8cff}.j3{fill:#f0883e;stroke:#f0883e}}";

/// Draws them as SVG.
pub(crate) fn svg(cells: &[Cell]) -> String {
    let faults: Vec<Case> = Case::ALL.into_iter().filter(|case| !case.is_healthy()).collect();
    let panel = ROW * faults.len() as f64;
    let height = TOP + RATES.len() as f64 * (panel + GAP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Time until each judge took a \
         faulty candidate back\">\n<style>{STYLE}</style>\n"
    );
    legend(&mut out);
    for (n, rate) in RATES.into_iter().enumerate() {
        let top = TOP + n as f64 * (panel + GAP) + GAP / 2.0;
        grid(&mut out, rate, top, panel);
        for (row, fault) in faults.iter().enumerate() {
            let y = top + ROW * row as f64;
            let middle = y + ROW / 2.0 + 4.0;
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 12.0,
                fault.title()
            );
            for judge in 0..JUDGES.len() {
                let class = format!("{}{}", class(judge), if is_blind(cells, rate, judge) { " blind" } else { "" });
                if let Some(figures) = figures(cells, *fault, rate, judge) {
                    mark(&mut out, &class, figures, y + (judge as f64 + 1.2) * LINE);
                }
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

fn x(seconds: f64) -> f64 {
    let [from, to] = SPAN;
    LEFT + (seconds.clamp(from, to) / from).ln() / (to / from).ln() * (RIGHT - LEFT)
}

/// Colour by program; the fast setting is a ring.
fn class(judge: usize) -> &'static str {
    ["j0", "j1", "j1 fast", "j2", "j2 fast", "j3", "j3 fast"].get(judge).copied().unwrap_or("j0")
}

fn grid(out: &mut String, rate: f64, top: f64, height: f64) {
    let (title, labels, bottom) = (top - 8.0, top - 8.0, top + height);
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"12\" y=\"{title:.1}\">{} requests per second</text>",
        grouped(rate as usize)
    );
    for (seconds, label) in NAMED {
        let at = x(seconds);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/><text x=\"{at:.1}\" y=\"{labels:.1}\" \
             text-anchor=\"middle\">{label}</text>"
        );
    }
    let _ = writeln!(out, "<text x=\"{MISSED}\" y=\"{labels:.1}\" text-anchor=\"middle\">missed</text>");
}

/// A dot at the median with a line to what 95 % stay within; at the side where the median is a miss.
fn mark(out: &mut String, class: &str, figures: Figures, y: f64) {
    let Some(median) = figures.median else {
        let _ = writeln!(out, "<circle class=\"{class}\" cx=\"{MISSED}\" cy=\"{y:.1}\" r=\"{DOT}\"/>");
        return;
    };
    let (from, to) = (x(median), figures.p95.map_or(RIGHT, x));
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><circle class=\"{class}\" cx=\"{from:.1}\" \
         cy=\"{y:.1}\" r=\"{DOT}\"/>"
    );
}

fn legend(out: &mut String) {
    let _ = writeln!(
        out,
        "<text x=\"12\" y=\"22\">Time until the candidate is taken back: median, and a line to what 95 % stay within</text>"
    );
    let columns = [12.0, 100.0, 185.0, 300.0, 420.0, 570.0, 660.0];
    for (judge, (of, x)) in JUDGES.iter().zip(columns).enumerate() {
        let _ = writeln!(
            out,
            "<circle class=\"{}\" cx=\"{:.1}\" cy=\"48\" r=\"{DOT}\"/><text x=\"{:.1}\" y=\"52\">{}</text>",
            class(judge),
            x + 4.0,
            x + 13.0,
            of.name
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"12\" y=\"74\">Dots: as documented. Rings: as fast as sensible. Pale: takes back half of the steady healthy candidates, too.</text>"
    );
}
