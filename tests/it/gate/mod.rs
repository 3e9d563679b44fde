//! The gate by simulation: the times of its documentation, its promise about false rollbacks in every shape of traffic, and what it does
//! beside condemning. Virtual time, fixed seeds; `TIDEGATE_SOAK=1` runs five times as many rollouts.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "simulated counts and times are small and not negative"
)]

mod behaviour;
mod joined;
mod kayenta;
pub(crate) mod poisson;
mod promise;
mod rules;
mod shapes;
mod tables;
mod trials;
mod world;
