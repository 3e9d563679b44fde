//! `tidegate check`: reads a configuration file as `run` would, and says everything that is wrong with it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{CONFIG_DEFAULT, CONFIG_ENV, Check, ConfigFile, choose};
use super::failure::Failure;
use super::terminal::{Terminal, say};
use super::text::{count, span};
use crate::config::settings::Settings;
use crate::config::{self, Errors};
use crate::core::rollout::wanted::{Forecast, StepForecast};
use crate::core::service::Service;

/// The configuration file that is meant: FILE, else the environment, else the default.
pub(super) fn choose_file(given: &ConfigFile) -> PathBuf {
    let environment = std::env::var_os(CONFIG_ENV);
    choose(given.file.as_ref().map(AsRef::as_ref), environment.as_deref(), CONFIG_DEFAULT).into()
}

/// Checks the file.
pub(super) fn perform(check: &Check, terminal: Terminal) -> Result<(), Failure> {
    let path = choose_file(&check.config);
    say(&answer(&path, check, terminal.json)?)
}

fn answer(path: &Path, check: &Check, json: bool) -> Result<String, Failure> {
    let settings = config::load(path, &|name| std::env::var(name).ok()).map_err(|errors| refused(path, &errors))?;
    Ok(match (json, check.print) {
        (true, print) => format!("{}\n", for_program(path, &settings, print, check.rps)?),
        (false, true) => config::render(&settings),
        (false, false) => for_person(path, &settings, check.rps),
    })
}

fn refused(path: &Path, errors: &Errors) -> Failure {
    let title = format!("{}: {}", path.display(), count(errors.0.len() as u64, "error"));
    let values = serde_json::to_value(errors).unwrap_or_default();
    Failure::new(title).errors(errors.0.iter().map(ToString::to_string).collect(), values)
}

fn for_person(path: &Path, settings: &Settings, rps: Option<f64>) -> String {
    let number = |n: usize, thing| count(n as u64, thing);
    let mut text = format!(
        "{}: ok: {}, {}, {}\n",
        path.display(),
        number(settings.listeners.len(), "listener"),
        number(settings.routes.len(), "route"),
        number(settings.services.len(), "service")
    );
    for service in &settings.services {
        let stable = &service.stable;
        // Writing into a String does not fail.
        let _ = write!(
            text,
            "  {}: stable {} on {}",
            service.name,
            stable.version,
            number(stable.declared.len(), "endpoint")
        );
        if let Some(candidate) = &service.candidate {
            let endpoints = number(candidate.declared.len(), "endpoint");
            let _ = write!(text, ", candidate {} on {endpoints}", candidate.version);
        }
        text.push('\n');
        if let Some(rps) = rps {
            let _ = writeln!(text, "    {}", forecast(&service.rollout.terms.plan.forecast(rps), rps));
        }
    }
    text
}

/// How long a plan takes, step by step.
fn forecast(forecast: &Forecast, rps: f64) -> String {
    let step = |step: &StepForecast| {
        let short = if step.short { " (too few requests)" } else { "" };
        format!("{} for {}{short}", step.weight, takes(step.takes))
    };
    let steps: Vec<_> = forecast.steps.iter().map(step).collect();
    format!("rollout at {rps} requests/s takes {}: {}", takes(forecast.total), steps.join(", "))
}

/// `time`, rounded up to whole seconds.
fn takes(time: Duration) -> String {
    span(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

fn for_program(path: &Path, settings: &Settings, print: bool, rps: Option<f64>) -> Result<Value, Failure> {
    let mut answer = json!({
        "file": path.display().to_string(),
        "ok": true,
        "listeners": settings.listeners.len(),
        "routes": settings.routes.len(),
        "services": settings.services.len(),
    });
    if print {
        answer["settings"] = toml::from_str(&config::render(settings))
            .map_err(|error| Failure::new("the settings cannot be shown as JSON").detail(error.to_string()))?;
    }
    if let Some(rps) = rps {
        let one = |service: &Arc<Service>| {
            let Forecast { steps, total } = service.rollout.terms.plan.forecast(rps);
            let step = |step: &StepForecast| json!({ "weight": step.weight.to_string(), "seconds": step.takes.as_secs_f64(), "short": step.short });
            let value = json!({ "seconds": total.as_secs_f64(), "steps": steps.iter().map(step).collect::<Vec<_>>() });
            (service.name.to_string(), value)
        };
        answer["rollouts"] = settings.services.iter().map(one).collect();
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/minimal.toml");

    fn asked(print: bool, rps: Option<f64>) -> Check {
        Check { config: ConfigFile { file: None }, print, rps }
    }

    #[test]
    fn a_good_file_is_summed_up() {
        let text = answer(Path::new(MINIMAL), &asked(false, None), false).expect("ok");
        assert!(text.starts_with(&format!("{MINIMAL}: ok: 1 listener, 1 route, 1 service\n")), "{text}");
        assert!(text.contains(": stable v1 on 1 endpoint"), "{text}");
    }

    #[test]
    fn the_printed_settings_are_a_file_that_is_good_too() {
        let text = answer(Path::new(MINIMAL), &asked(true, None), false).expect("ok");
        let again = config::parse(&text, Path::new(MINIMAL), &|_| None).expect("what is printed can be read");
        assert_eq!(config::render(&again), text);
        let json: Value =
            serde_json::from_str(&answer(Path::new(MINIMAL), &asked(true, None), true).expect("ok")).expect("json");
        assert_eq!((&json["ok"], &json["routes"]), (&json!(true), &json!(1)));
        assert!(json["settings"]["listeners"][0]["limits"]["head_timeout"].is_string(), "{json}");
    }

    #[test]
    fn the_time_a_rollout_takes_follows_the_traffic() {
        let text = answer(Path::new(MINIMAL), &asked(false, Some(5.0)), false).expect("ok");
        assert!(
            text.contains("rollout at 5 requests/s takes 9m 20s: 5% for 3m 20s, 25% for 1m, 100% for 5m"),
            "{text}"
        );
        let json = answer(Path::new(MINIMAL), &asked(false, Some(0.0)), true).expect("ok");
        let json: Value = serde_json::from_str(&json).expect("json");
        assert!(json["rollouts"].to_string().contains("\"short\":true"), "{json}");
    }

    #[test]
    fn times_are_whole_seconds_by_their_two_largest_units() {
        assert_eq!(takes(Duration::from_secs(3_960)), "1h 6m");
        assert_eq!(takes(Duration::from_millis(1_001)), "2s");
    }

    #[test]
    fn a_bad_file_is_refused_with_every_error_at_its_place() {
        let errors =
            config::parse("nonsense = 1\n[admin]\nlisten = 3\n", Path::new("t.toml"), &|_| None).expect_err("bad");
        let failure = refused(Path::new("t.toml"), &errors);
        let text = failure.to_string();
        assert!(text.starts_with(&format!("t.toml: {} errors\nt.toml:1", errors.0.len())), "{text}");
        assert!(text.contains("\nt.toml:3: admin.listen: "), "{text}");
        assert_eq!(failure.to_json()["errors"][0]["line"], 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure =
            answer(Path::new("/nonexistent/t.toml"), &asked(false, None), false).expect_err("missing").to_string();
        assert!(
            failure.starts_with("/nonexistent/t.toml: 1 error\n/nonexistent/t.toml: cannot be read: "),
            "{failure}"
        );
    }
}
