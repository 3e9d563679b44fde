//! The limits of pools that are nearly used up, or were.

use super::model::{Limit, Pool, Service};
use crate::cli::text::{Align, Cell, Paint, Tone, table};

/// Share of a limit in use from which on it is shown, in percent.
const SHOWN_PERCENT_MIN: u64 = 80;
/// Limits shown.
const LIMITS_SHOWN_MAX: usize = 20;

/// Every limit with little room left, and those that refused requests.
pub(super) fn limits(services: &[Service], paint: Paint) -> String {
    let columns = [
        ("LIMITS", Align::Left),
        ("", Align::Left),
        ("OF", Align::Left),
        ("IN USE", Align::Right),
        ("MOST", Align::Right),
        ("REFUSED", Align::Right),
    ];
    let rows: Vec<_> = services.iter().flat_map(of_service).take(LIMITS_SHOWN_MAX).collect();
    table(paint, &columns, &rows)
}

fn of_service(service: &Service) -> Vec<Vec<Cell>> {
    let pools = [("stable", Some(&service.stable)), ("candidate", service.candidate.as_ref())];
    let pools = pools.into_iter().filter_map(|(variant, pool)| Some((variant, pool?)));
    let rows = pools.flat_map(|(variant, pool)| of_pool(pool).map(move |(of, limit)| (variant, of, limit)));
    let shown = rows.filter(|(_, _, limit)| limit.overflows > 0 || is_short(limit));
    shown.map(|(variant, of, limit)| row(&service.name, variant, of, limit)).collect()
}

fn of_pool(pool: &Pool) -> impl Iterator<Item = (&'static str, &Limit)> {
    let limits = &pool.limits;
    [("connections", &limits.connections), ("pending", &limits.pending), ("requests", &limits.requests)].into_iter()
}

/// Whether little room is left. Without a limit, as another version might answer, nothing is short.
fn is_short(limit: &Limit) -> bool {
    limit.max > 0 && limit.used.saturating_mul(100) >= limit.max.saturating_mul(SHOWN_PERCENT_MIN)
}

fn row(service: &str, variant: &str, of: &str, limit: &Limit) -> Vec<Cell> {
    let used = match limit {
        full if full.used >= full.max => Tone::Bad,
        short if is_short(short) => Tone::Notable,
        _ => Tone::Plain,
    };
    let refused = if limit.overflows > 0 { Tone::Notable } else { Tone::Plain };
    vec![
        Cell::plain(service),
        Cell::new(Tone::Faint, variant),
        Cell::plain(of),
        Cell::new(used, limit.used.to_string()),
        Cell::plain(limit.max.to_string()),
        Cell::new(refused, limit.overflows.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(services: serde_json::Value, paint: bool) -> String {
        limits(&serde_json::from_value::<Vec<Service>>(services).expect("services"), Paint(paint))
    }

    fn limit(used: u64, max: u64, overflows: u64) -> serde_json::Value {
        json!({"used": used, "max": max, "overflows": overflows})
    }

    #[test]
    fn what_is_short_or_refused_requests_is_shown_and_nothing_else() {
        let services = json!([
            {"name": "api", "stable": {"limits": {"connections": limit(79, 100, 0), "requests": limit(80, 100, 0)}}},
            {"name": "web",
             "stable": {"limits": {"connections": limit(1_024, 1_024, 0), "pending": limit(3, 256, 12), "requests": limit(0, 1, 0)}},
             "candidate": {"limits": {"pending": limit(0, 256, 0), "requests": limit(9_000, 10_000, 7)}}},
        ]);
        insta::assert_snapshot!(shown(services.clone(), false), @r"
        LIMITS             OF           IN USE   MOST  REFUSED
        api     stable     requests         80    100        0
        web     stable     connections    1024   1024        0
        web     stable     pending           3    256       12
        web     candidate  requests       9000  10000        7
        ");
        let painted = shown(services, true);
        assert!(
            painted.contains("\u{1b}[31m1024\u{1b}[0m") && painted.contains("\u{1b}[33m80\u{1b}[0m"),
            "{painted:?}"
        );
    }

    #[test]
    fn nothing_is_said_where_there_is_room() {
        let roomy = json!([{"name": "web", "stable": {"limits": {"connections": limit(7, 10, 0)}}}, {"name": "old"}]);
        assert_eq!(shown(roomy, false), "");
        let many: Vec<_> = (0..30)
            .map(|n| json!({"name": format!("s{n}"), "stable": {"limits": {"pending": limit(1, 1, 0)}}}))
            .collect();
        assert_eq!(shown(json!(many), false).lines().count(), LIMITS_SHOWN_MAX + 1);
    }
}
