//! Where the demo's configuration lies: a folder of its own that only this user may enter, gone when the demo ends.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::{USER_COOKIE, USERS};
use super::upstream::VERSIONS;

/// The service whose release it is.
pub(super) const SERVICE: &str = "shop";
/// The shares the candidate gets, one after the other.
pub(super) const WEIGHTS: [&str; 4] = ["5%", "25%", "50%", "100%"];
/// How long a request may hang at the candidate, in milliseconds.
const RESPONSE_TIMEOUT_MS: u32 = 3_000;
/// The gate's warmup; by default it is 30 s.
pub(super) const WARMUP: Duration = Duration::from_secs(1);
/// Tries to find a name that is free.
const TRIES_MAX: u32 = 16;

/// A folder with the demo's configuration; removed when dropped.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    config: PathBuf,
}

// === impl Place ===

impl Place {
    /// Makes the folder and writes the configuration for these upstreams, stable first, with steps of this length.
    pub(super) fn create(upstreams: &[SocketAddr; 2], hold: Duration) -> io::Result<Self> {
        let folder = make_folder(&std::env::temp_dir())?;
        let place = Self { config: folder.join("tidegate.toml"), folder };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place.config)?;
        file.write_all(config(upstreams, hold, &place.folder.join("state")).as_bytes())?;
        Ok(place)
    }

    /// The configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It is in the folder for temporary files; if it cannot be removed, the system will.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A new folder with a name nobody could have foreseen: what is there already is never taken.
fn make_folder(below: &Path) -> io::Result<PathBuf> {
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..TRIES_MAX {
        let folder = below.join(format!("tidegate-demo-{:016x}", fastrand::u64(..)));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", folder.display()))),
        }
    }
    Err(last)
}

/// Everything on free ports of the loopback interface; users stay where they are by their own cookie.
fn config([stable, candidate]: &[SocketAddr; 2], hold: Duration, state: &Path) -> String {
    let [stable_version, candidate_version] = VERSIONS;
    let state = toml::Value::String(state.display().to_string());
    let (hold, warmup) = (hold.as_millis(), WARMUP.as_millis());
    let steps =
        WEIGHTS.map(|weight| format!("  {{ weight = \"{weight}\", hold = \"{hold}ms\", min_requests = 20 }},\n"));
    let (steps, connections) = (steps.concat(), USERS + 56);
    format!(
        r#"# Written by `tidegate demo`; gone when it ends.
[admin]
listen = "127.0.0.1:0"

[state]
dir = {state}

[log]
# Its aborts are what is shown.
level = "error"

[[listeners]]
name = "demo"
listen = "127.0.0.1:0"
limits = {{ max_connections = {connections} }}

[[routes]]
service = "{SERVICE}"

[services.{SERVICE}.stable]
version = "{stable_version}"
endpoints = ["{stable}"]

[services.{SERVICE}.candidate]
version = "{candidate_version}"
endpoints = ["{candidate}"]

[services.{SERVICE}.affinity]
key = ["cookie:{USER_COOKIE}", "cookie"]

[services.{SERVICE}.upstream]
response_timeout = "{RESPONSE_TIMEOUT_MS}ms"

[services.{SERVICE}.rollout]
steps = [
{steps}]

[services.{SERVICE}.gate]
warmup = "{warmup}ms"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn upstreams() -> [SocketAddr; 2] {
        ["127.0.0.1:1001", "127.0.0.1:1002"].map(|a| a.parse().expect("an address"))
    }

    #[test]
    fn the_configuration_is_accepted_and_says_what_the_demo_needs() {
        let place = Place::create(&upstreams(), Duration::from_millis(1_500)).expect("made");
        let settings = crate::config::load(place.config(), &|_| None).expect("accepted");
        let service = &settings.services[0];
        assert_eq!(service.name.as_str(), SERVICE);
        assert_eq!(service.stable.endpoints[0].address, upstreams()[0].into());
        assert_eq!(service.candidate.as_ref().map(|c| c.endpoints[0].address.clone()), Some(upstreams()[1].into()));
        let plan = &service.rollout.terms.plan;
        let steps: Vec<_> = plan.steps.iter().map(|step| (step.weight.to_string(), step.hold)).collect();
        assert_eq!(steps, WEIGHTS.map(|weight| (weight.to_owned(), Duration::from_millis(1_500))));
        assert_eq!((settings.admin.listen.to_string(), settings.listeners.len()), ("127.0.0.1:0".to_owned(), 1));
    }

    #[test]
    fn only_its_owner_may_read_it_and_it_is_gone_afterwards() {
        let place = Place::create(&upstreams(), Duration::from_millis(1_500)).expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&place.folder), mode(&place.config)), (0o700, 0o600));
        let folder = place.folder.clone();
        fs::write(folder.join("state"), "something of the proxy").expect("written");
        drop(place);
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = make_folder(Path::new("/nonexistent")).expect_err("no parent").to_string();
        assert!(error.starts_with("/nonexistent/tidegate-demo-"), "{error}");
    }
}
