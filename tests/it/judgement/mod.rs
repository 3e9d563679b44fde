//! The judges of `benches/judgement`, each by itself, and all of them on a little of its traffic.

mod kayenta;
mod polling;
mod ranks;
mod report;
mod together;
mod traffic;

use super::gate::poisson;

#[path = "../../../benches/page.rs"]
mod page;
#[path = "../../../benches/judgement/study/mod.rs"]
mod study;
