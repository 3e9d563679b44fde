//! The plan of one rollout, as a command brings it: the keys of `[services.X.rollout]`, compiled by the same code and refused in the same words.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::Value;
use toml::de::DeTable;

use super::error::{ConfigError, Errors, Mistake};
use super::file::{Context, Table};
use super::{compile, keys};
use crate::core::rollout::wanted::{Terms, Wanted};

/// The key a plan has in a command, with which its mistakes begin.
const PLAN: &str = "plan";

/// What a rollout under `plan` is pinned to: what is not written is as `wanted`, the file's word for its service, has it.
///
/// # Errors
/// Every mistake in it at once, with its path.
pub fn plan(plan: &Value, wanted: &Wanted) -> Result<Terms, Vec<ConfigError>> {
    let mut nulls = Vec::new();
    let mut text = format!("{PLAN} = ");
    write(&mut text, plan, PLAN, &mut nulls);
    let (document, broken) = DeTable::parse_recoverable(&text);
    let broken = broken.iter().map(|error| mistake(PLAN, &format!("not understood: {}", error.message())));
    nulls.extend(broken);
    if !nulls.is_empty() {
        return Err(refused(&text, nulls));
    }
    let context = Context::new(PathBuf::new(), &|_| None);
    let root = Table::at_root(&context, &keys::COMMAND, document.get_ref());
    let terms = root.table(PLAN, &keys::PLAN).map(|table| compile::planned(&table, wanted).1);
    let mistakes = context.into_mistakes();
    match terms.filter(|_| mistakes.is_empty()) {
        Some(terms) => Ok(terms),
        None => Err(refused(&text, mistakes)),
    }
}

fn refused(text: &str, mistakes: Vec<Mistake>) -> Vec<ConfigError> {
    // Places in a text nobody wrote tell nothing.
    let plain = |error| ConfigError { file: String::new(), line: None, column: None, ..error };
    Errors::locate("", text, mistakes).0.into_iter().map(plain).collect()
}

fn mistake(key: &str, message: &str) -> Mistake {
    Mistake { offset: None, key: key.to_owned(), message: message.to_owned() }
}

/// JSON as the TOML that says the same; what TOML cannot say is noted.
fn write(out: &mut String, value: &Value, path: &str, mistakes: &mut Vec<Mistake>) {
    match value {
        Value::Null => mistakes.push(mistake(path, "null: leave the key out")),
        Value::Bool(_) | Value::Number(_) => {
            // Writing into a String does not fail; so below.
            let _ = write!(out, "{value}");
        }
        Value::String(text) => quoted(out, text),
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                write(out, element, &format!("{path}[{index}]"), mistakes);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                quoted(out, key);
                out.push('=');
                write(out, value, &format!("{path}.{key}"), mistakes);
            }
            out.push('}');
        }
    }
}

/// A basic string of TOML.
fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if c.is_control() || matches!(c, '"' | '\\') {
            let _ = write!(out, "\\u{:04X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::core::rollout::wanted::Strategy;
    use crate::core::rollout::{Otherwise, Plan, Step};
    use crate::core::weight::Weight;

    fn compiled(value: &Value) -> Result<Terms, String> {
        let errors = |errors: Vec<ConfigError>| {
            assert!(errors.iter().all(|error| error.file.is_empty() && error.line.is_none()), "{errors:?}");
            errors.iter().map(|error| format!("{}: {}", error.key, error.message)).collect::<Vec<_>>().join("\n")
        };
        plan(value, &Wanted::default()).map_err(errors)
    }

    fn step(percent: u16, seconds: u64) -> Step {
        Step::new(Weight::of_percent(percent), Duration::from_secs(seconds))
    }

    #[test]
    fn a_plan_is_the_keys_of_the_file_and_the_rest_is_as_the_file_has_it() {
        let terms = compiled(
            &json!({"steps": [{"weight": "1%", "hold": "2m"}, {"weight": "100%", "min_requests": 7, "approval": true}],
            "on_deadline": "abort", "max_failed_requests": 3}),
        )
        .expect("a plan");
        let last = Step { min_requests: 7, approval: true, ..step(100, 60) };
        let expected = Plan {
            steps: vec![step(1, 120), last],
            on_deadline: Otherwise::Abort,
            max_failed_requests: 3,
            ..Plan::default()
        };
        assert_eq!(terms, Terms { plan: expected, ..Terms::default() });
        assert_eq!(compiled(&json!({})), Ok(Terms::default()));
        let wanted = Wanted {
            strategy: Strategy::BlueGreen,
            terms: Terms {
                plan: Plan { steps: vec![step(100, 7)], on_deadline: Otherwise::Abort, ..Plan::default() },
                keep_stable: Duration::from_secs(9),
                ..Terms::default()
            },
            ..Wanted::default()
        };
        assert_eq!(plan(&json!({}), &wanted), Ok(wanted.terms.clone()));
        let canary = plan(&json!({"strategy": "canary", "keep_stable": "1s"}), &wanted).expect("a plan");
        assert_eq!((canary.plan.steps, canary.plan.on_deadline), (Plan::default().steps, Otherwise::Abort));
        assert_eq!(canary.keep_stable, Duration::from_secs(1));
        let ramp =
            compiled(&json!({"ramp": {"from": "10%", "to": "40%", "factor": 2, "every": "5s"}})).expect("a plan");
        assert_eq!(ramp.plan.steps, [step(10, 5), step(20, 5), step(40, 5)]);
        let all_at_once = compiled(&json!({"strategy": "blue_green"})).expect("a plan");
        assert_eq!(all_at_once.plan.steps, [step(100, 300)]);
    }

    #[test]
    fn every_mistake_is_told_with_its_path() {
        for (value, said) in [
            (
                json!({"steps": [{"weight": "1%"}, {"weight": "130%"}]}),
                "plan.steps[1].weight: \"130%\": a weight is between 0% and 100%",
            ),
            (json!({"steps": [{"weight": "5%"}, {"weight": "5%"}]}), "plan.steps[1].weight: \"5%\": steps rise"),
            (json!({"stepps": []}), "plan.stepps: unknown key"),
            (json!({"steps": [{"wait": "1s"}]}), "plan.steps[0].wait: unknown key"),
            (json!({"steps": []}), "plan.steps: 0 steps; between 1 and 100 are allowed"),
            (json!({"start": "manual"}), "plan.start: "),
            (json!({"on_empty_store": "start"}), "plan.on_empty_store: "),
            (json!({"keep_stable": 5}), "plan.keep_stable: "),
            (json!({"strategy": "blue_green", "steps": [{"weight": "5%"}]}), "contradicts strategy = \"blue_green\""),
            (json!({"progress_deadline": "10s"}), "plan.progress_deadline: "),
            (json!({"on_deadline": null}), "plan.on_deadline: null: leave the key out"),
            (json!({"steps": [{"weight": null}]}), "plan.steps[0].weight: null"),
            (json!([1]), "plan: "),
            (json!("5%"), "plan: "),
            (json!({"max_failed_requests": u64::MAX}), "plan"),
            (json!({"a\"b\u{7f}\n": 1}), "unknown key"),
        ] {
            let refused = compiled(&value).expect_err("a mistake");
            assert!(refused.contains(said), "{value}: {refused}");
        }
        let both = compiled(&json!({"steps": [{"weight": "130%"}], "on_deadline": "wait"})).expect_err("two mistakes");
        assert_eq!(both.lines().count(), 2, "{both}");
    }
}
