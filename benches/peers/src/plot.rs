//! The figures as a picture: a row per load, and how many times Tidegate's CPU per request each peer takes. Its colours follow the reader's
//! light or dark page.

use std::fmt::Write;

use crate::peer::Peer;
use crate::report::drawn;
use crate::results::Results;
use crate::stats::Median;

const WIDTH: f64 = 860.0;
/// Where the scale begins and ends.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 830.0;
const TOP: f64 = 70.0;
const ROW: f64 = 30.0;
/// What the scale spans, at least: powers of two.
const SCALE: std::ops::Range<i32> = -1..3;
/// Radius of a dot.
const DOT: f64 = 4.5;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.grid{stroke:#d1d9e0}.one{stroke:#1f2328;stroke-width:1.5}\
.p0{fill:#0969da;stroke:#0969da}.p1{fill:#1a7f37;stroke:#1a7f37}.p2{fill:#8250df;stroke:#8250df}.p3{fill:#bc4c00;stroke:#bc4c00}.p4{fill:#6e7781;stroke:#6e7781}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#3d444d}.one{stroke:#e6edf3}\
.p0{fill:#58a6ff;stroke:#58a6ff}.p1{fill:#3fb950;stroke:#3fb950}.p2{fill:#bc8cff;stroke:#bc8cff}.p3{fill:#f0883e;stroke:#f0883e}.p4{fill:#9198a1;stroke:#9198a1}}";

/// A scale in powers of two.
struct Scale {
    from: i32,
    to: i32,
}

// === impl Scale ===

impl Scale {
    /// One that holds all of `values`.
    fn holding(values: &[f64]) -> Self {
        let (mut from, mut to) = (SCALE.start, SCALE.end);
        for value in values.iter().filter(|value| value.is_finite() && **value > 0.0) {
            from = from.min(value.log2().floor() as i32);
            to = to.max(value.log2().ceil() as i32);
        }
        Self { from, to }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value.log2() - f64::from(self.from)) / f64::from(self.to - self.from) * (RIGHT - LEFT)
    }
}

/// Draws them as SVG.
#[must_use]
pub fn svg(results: &Results) -> String {
    let loads = drawn(results);
    let height = TOP + ROW * loads.len() as f64 + 20.0;
    let values: Vec<f64> =
        loads.iter().flat_map(|load| &load.peers).filter_map(|peer| peer.ratio).flat_map(ends).collect();
    let scale = Scale::holding(&values);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"CPU per request of each peer as a multiple of Tidegate's\">\n<style>{STYLE}</style>\n"
    );
    legend(&mut out);
    for power in scale.from..=scale.to {
        let (x, class) = (scale.x(2_f64.powi(power)), if power == 0 { "one" } else { "grid" });
        let _ = writeln!(
            out,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>",
            height - 20.0
        );
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} x</text>",
            TOP - 8.0,
            2_f64.powi(power)
        );
    }
    for (n, load) in loads.iter().enumerate() {
        let y = TOP + ROW * (n as f64 + 0.5);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 12.0,
            y + 4.0,
            load.title
        );
        for peer in load.peers.iter().filter(|peer| peer.failure.is_none()) {
            if let (Some(ratio), Some(class)) = (peer.ratio, class(peer.peer)) {
                dot(&mut out, &scale, ratio, class, y + (class as f64 - 2.0) * 4.0);
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Where the whisker of a ratio ends, turned around: the peer's over Tidegate's.
fn ends(ratio: Median) -> [f64; 3] {
    [ratio.median, ratio.high.unwrap_or(ratio.median), ratio.low.unwrap_or(ratio.median)].map(|value| 1.0 / value)
}

fn dot(out: &mut String, scale: &Scale, ratio: Median, class: usize, y: f64) {
    let [middle, low, high] = ends(ratio).map(|value| scale.x(value));
    let _ = writeln!(
        out,
        "<line class=\"p{class}\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><circle class=\"p{class}\" cx=\"{middle:.1}\" cy=\"{y:.1}\" r=\"{DOT}\"/>"
    );
}

fn legend(out: &mut String) {
    let _ = writeln!(
        out,
        "<text x=\"12\" y=\"22\">CPU per request, as a multiple of Tidegate's (right: Tidegate is cheaper)</text>"
    );
    let mut x = LEFT;
    for (class, peer) in Peer::ALL.into_iter().filter(|peer| *peer != Peer::Tidegate).enumerate() {
        let _ = writeln!(
            out,
            "<circle class=\"p{class}\" cx=\"{x:.1}\" cy=\"40\" r=\"{DOT}\"/><text x=\"{:.1}\" y=\"44\">{}</text>",
            x + 9.0,
            peer.title()
        );
        x += 30.0 + 8.0 * peer.title().len() as f64;
    }
}

/// The colour of a peer.
fn class(peer: Peer) -> Option<usize> {
    Peer::ALL.into_iter().filter(|peer| *peer != Peer::Tidegate).position(|other| other == peer)
}
