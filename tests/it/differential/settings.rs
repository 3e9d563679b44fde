//! Configuration texts: every one is refused or compiled, and what is compiled is rendered to the same.

use std::path::Path;

use tidegate::config::{parse, render};

/// Checks a configuration.
///
/// # Panics
/// It neither compiles nor is refused, or rendering changes it.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let env = |_: &str| None;
    // No folder: what it names is not there to be read.
    let origin = Path::new("/nonexistent/tidegate.toml");
    match parse(text, origin, &env) {
        Err(errors) => assert!(!errors.to_string().is_empty()),
        Ok(settings) => {
            let rendered = render(&settings);
            match parse(&rendered, origin, &env) {
                Ok(again) => assert_eq!(again, settings, "rendered:\n{rendered}"),
                Err(errors) => panic!("what is rendered does not compile:\n{errors}\n{rendered}"),
            }
        }
    }
}
