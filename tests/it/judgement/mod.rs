//! The judges of `benches/judgement`, each by itself, and all of them on a little of its traffic.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "simulated counts are small and not negative"
)]

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
