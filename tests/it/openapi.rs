//! The admin API against its own description: schemathesis asks whatever `/openapi.json` allows and much that it does not.
//!
//! It is set up by `.ci/tools schemathesis`, which `make test` runs.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::eventually;

/// Longest time for everything it asks.
const RUN_MAX: Duration = Duration::from_secs(240);
/// Questions per operation beside those that follow from the description.
const EXAMPLES: &str = if cfg!(debug_assertions) { "20" } else { "200" };
/// What it checks: no 5xx, and answers, headers and refused methods as described.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,unsupported_method,allow_header_conformance";

/// A process; it ends with this.
struct Run(Child);

// === impl Run ===

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `target/schemathesis/bin/schemathesis`, wherever `target` is: this binary is in `target/PROFILE/deps`.
fn tool() -> PathBuf {
    let own = std::env::current_exe().expect("a binary");
    let tool = own.ancestors().nth(3).expect("target").join("schemathesis/bin/schemathesis");
    assert!(tool.exists(), "{} is missing: `.ci/tools schemathesis` (or `make test`) installs it", tool.display());
    tool
}

#[tokio::test]
async fn no_question_gets_an_answer_the_description_does_not_allow() {
    let tool = tool();
    let (v1, v2) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[&v2.address()])).await;
    proxy.admin.ready().await;
    let (seed, address) = (fastrand::u32(..).to_string(), format!("http://{}/openapi.json", proxy.admin.address));
    // Names that exist take it to what commands answer.
    proxy.dir.write(
        "schemathesis.toml",
        &format!("[parameters]\nservice = \"web\"\nrollout = \"current\"\nendpoint = {:?}\n", v2.address()),
    );
    let mut command = Command::new(tool);
    command.args(["run", &address, "--checks", CHECKS, "--max-examples", EXAMPLES, "--seed", &seed]);
    // A stream of events never ends; tests/it/admin_commands.rs reads it.
    // Without a media type every POST is 415, also where the method is not allowed: tests/it/admin.rs.
    command.args(["--header", "Content-Type: application/json"]);
    command.args(["--exclude-path", "/v1/events", "--workers", "1", "--request-timeout", "10", "--no-color"]);
    // It keeps what it found in its folder.
    command.current_dir(proxy.dir.path()).stdin(Stdio::null()).env_remove("http_proxy").env_remove("https_proxy");
    let path = proxy.dir.path().join("said");
    let file = File::create(&path).expect("a file");
    command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
    let mut run = Run(command.spawn().expect("an interpreter"));
    let status = eventually(RUN_MAX, "schemathesis to end", || {
        let status = run.0.try_wait().expect("our child");
        async move { status }
    })
    .await;
    let said = std::fs::read_to_string(path).expect("UTF-8");
    assert!(status.success(), "seed {seed}: {said}");
    // It asked about everything that is described.
    assert!(said.contains("Operations:"), "{said}");
    proxy.admin.ready().await;
    assert!(
        proxy.admin.status().await["generation"].as_u64().is_some_and(|generation| generation > 1),
        "commands got through"
    );
}
