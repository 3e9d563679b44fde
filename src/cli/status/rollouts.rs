//! Rollouts in the status: where each is, and where the file and what runs differ. Pure.

use super::model::{Gate, Progress, Service};
use crate::cli::text::{Align, Cell, Paint, Tone, span, table};

/// Services that have anything to say about a rollout; the others are left out.
pub(super) fn rollouts(services: &[Service], paint: Paint) -> String {
    let columns = [
        ("ROLLOUT", Align::Left),
        ("VERSION", Align::Left),
        ("PHASE", Align::Left),
        ("STEP", Align::Left),
        ("LEFT", Align::Right),
        ("EVIDENCE", Align::Right),
        ("", Align::Left),
    ];
    table(paint, &columns, &services.iter().flat_map(rows).collect::<Vec<_>>())
}

/// The rollout, then a row for each difference.
fn rows(service: &Service) -> Vec<Vec<Cell>> {
    let warm = service.warm.as_ref().map(|warm| {
        let left = span(warm.left_ms.div_ceil(1_000));
        format!(
            "{} is kept for another {left}, `tidegate rollback {}` makes it stable again",
            warm.version, service.name
        )
    });
    let notes: Vec<&String> = warm.iter().chain(&service.differences).collect();
    let shown = service.progress.as_ref().filter(|progress| !progress.is_over() || !notes.is_empty());
    if shown.is_none() && notes.is_empty() {
        return Vec::new();
    }
    let note = |at: usize| Cell::new(Tone::Faint, notes.get(at).map_or("", |note| note.as_str()));
    (0..notes.len().max(1))
        .map(|at| {
            let name = Cell::new(Tone::Strong, if at == 0 { service.name.as_str() } else { "" });
            let cells = shown.filter(|_| at == 0).map_or_else(|| [(); 4].map(|()| Cell::plain("")), Progress::cells);
            let evidence = service.gate.as_ref().filter(|_| at == 0).map_or(Cell::plain(""), Gate::cell);
            std::iter::once(name).chain(cells).chain([evidence, note(at)]).collect()
        })
        .collect()
}

// === impl Gate ===

impl Gate {
    /// `3.1 of 6.9`: from the second on the candidate is taken back.
    fn cell(&self) -> Cell {
        let tone = match self.opinion.as_str() {
            "harmful" => Tone::Bad,
            _ if self.log_evidence > self.bound / 2.0 => Tone::Notable,
            _ => Tone::Plain,
        };
        Cell::new(tone, format!("{:.1} of {:.1}", self.log_evidence.max(0.0), self.bound))
    }
}

// === impl Progress ===

impl Progress {
    fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "succeeded" | "aborted" | "rolled_back" | "superseded")
    }

    fn cells(&self) -> [Cell; 4] {
        let left = self.left().filter(|_| !self.is_over()).unwrap_or_default();
        let phase = Cell::new(self.tone(), self.phase());
        [Cell::plain(&self.version), phase, Cell::plain(self.place()), Cell::plain(left)]
    }

    /// How it stands.
    pub(in crate::cli) fn tone(&self) -> Tone {
        match self.phase.as_str() {
            "aborted" | "rolled_back" => Tone::Bad,
            "paused" | "trial" => Tone::Notable,
            _ => Tone::Plain,
        }
    }

    /// Where it is, and why: `paused (low traffic)`.
    pub(in crate::cli) fn phase(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{}{reason}", self.phase).replace('_', " ")
    }

    /// Which step it is in: `2/3`; empty without any.
    pub(in crate::cli) fn place(&self) -> String {
        match self.steps {
            _ if self.by_hand => "by hand".to_owned(),
            0 => String::new(),
            steps => format!("{}/{steps}", (self.step + 1).min(steps)),
        }
    }

    /// What is left of the hold.
    pub(in crate::cli) fn left(&self) -> Option<String> {
        self.hold_left_ms.map(|left| span(left.div_ceil(1_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_services_with_something_to_say_are_shown() {
        let services = serde_json::json!([
            {"name": "api", "state": "idle"},
            {"name": "old", "progress": {"version": "v9", "phase": "aborted", "reason": "manual"}},
            {"name": "shop", "progress": {"version": "v2", "phase": "succeeded", "step": 2, "steps": 3},
                "warm": {"version": "v1", "left_ms": 60_000}, "differences": ["file is behind: stable is v2, the file says v1"]},
            {"name": "web", "progress": {"version": "v2", "phase": "paused", "reason": "low_traffic", "step": 0, "steps": 3,
                "hold_left_ms": 1_000}, "gate": {"log_evidence": 3.24, "bound": 6.908, "opinion": "inconclusive"}},
        ]);
        let services: Vec<Service> = serde_json::from_value(services).expect("services");
        let text = rollouts(&services, Paint(false));
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines[1..],
            [
                "shop v2 succeeded 3/3 v1 is kept for another 1m, `tidegate rollback shop` makes it stable again",
                "file is behind: stable is v2, the file says v1",
                "web v2 paused (low traffic) 1/3 1s 3.2 of 6.9",
            ]
        );
        assert_eq!(rollouts(&services[..2], Paint(false)), "");
    }
}
