//! The file as a whole: what is read, what it means, what is refused.

mod mistakes;
mod pem;
mod reference;
mod roundtrip;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::settings::{ListenAddress, LogLevel, Settings};
use super::{Errors, load, needs_restart, parse};
use crate::core::route::{HostMatch, PathMatch, Target};
use crate::core::service::{KeySource, SameSite};

const MINIMAL: &str = include_str!("../../../config/minimal.toml");

/// What the environment holds in tests.
fn env(name: &str) -> Option<String> {
    match name {
        "GOOD_SECRET" => Some("0123456789abcdef".to_owned()),
        "SHORT_SECRET" => Some("hunter2".to_owned()),
        "SPACED_SECRET" => Some("0123456789 abcdef".to_owned()),
        _ => None,
    }
}

/// Compiles `text` as `tidegate.toml` in the folder of [`files`].
fn compile(text: &str) -> Result<Settings, Errors> {
    parse(text, &files().join("tidegate.toml"), &env)
}

/// The errors in `text`, without the folder.
fn errors(text: &str) -> Vec<String> {
    let folder = format!("{}/", files().display());
    let errors = compile(text).err().map(|e| e.0).unwrap_or_default();
    errors.iter().map(|e| e.to_string().replace(&folder, "")).collect()
}

/// A folder with certificates: `a.pem` with `a.key`, `b.pem` with `b.key`, and files that are wrong.
fn files() -> &'static Path {
    static FILES: OnceLock<PathBuf> = OnceLock::new();
    FILES.get_or_init(|| {
        remove_folders_of_the_dead();
        let dir = std::env::temp_dir().join(format!("{FOLDER}{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("folder");
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("file");
        for name in ["a", "b"] {
            let pair = rcgen::generate_simple_self_signed(vec![format!("{name}.example.com")]).expect("certificate");
            write(&format!("{name}.pem"), &pair.cert.pem());
            write(&format!("{name}.key"), &pair.signing_key.serialize_pem());
        }
        write("empty.pem", "");
        write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
        write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        write("odd.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        write("affinity.key", "0123456789abcdef0123456789abcdef\n");
        write("short.key", "hunter2\n");
        write("open.key", "0123456789abcdef\n");
        std::fs::set_permissions(dir.join("open.key"), Permissions::from_mode(0o666)).expect("mode");
        dir
    })
}

const FOLDER: &str = "tidegate-config-";

/// Removes what test processes that are gone have left behind.
fn remove_folders_of_the_dead() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.strip_prefix(FOLDER)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[test]
fn the_minimal_file_gets_every_default() {
    let settings = compile(MINIMAL).expect("valid");
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:9900");
    assert_eq!(settings.state.dir, files().join("tidegate-state"));
    assert_eq!(settings.log.level, LogLevel::Info);
    let [listener] = &settings.listeners[..] else { panic!("one listener") };
    assert_eq!((listener.name.as_str(), listener.listen.to_string().as_str()), ("public", "0.0.0.0:8080"));
    let [route] = &settings.routes[..] else { panic!("one route") };
    assert_eq!((&route.matcher.host, &route.matcher.path), (&HostMatch::Any, &PathMatch::Prefix(b"/".to_vec())));
    assert_eq!(route.label, "routes[0]");
    assert!(matches!(&route.target, Target::Service(name) if name.as_str() == "web"));
    let [service] = &settings.services[..] else { panic!("one service") };
    assert_eq!(service.stable.version.as_str(), "v1");
    assert_eq!(service.upstream.connect_timeout, Duration::from_secs(1));
    assert_eq!(service.affinity.key, [KeySource::OwnCookie]);
    assert_eq!(service.affinity.cookie.name, "tidegate_web");
    assert_eq!(service.affinity.cookie.same_site, SameSite::Lax);
    assert!(service.force.is_none());
}

#[test]
fn listeners_may_be_left_out() {
    let settings = compile(&MINIMAL.replace("[[listeners]]\nlisten = \"0.0.0.0:8080\"\n", "")).expect("valid");
    assert_eq!(settings.listeners.len(), 1);
    assert_eq!(settings.listeners[0].listen.to_string(), "0.0.0.0:8080");
}

#[test]
fn the_environment_decides_where_state_is_kept() {
    let with = |dirs: &'static str| {
        let env = move |name: &str| (name == "STATE_DIRECTORY").then(|| dirs.to_owned());
        let text = format!("[state]\ndir = \"written\"\n{MINIMAL}");
        parse(&text, Path::new("/etc/tidegate/tidegate.toml"), &env).expect("valid").state.dir
    };
    assert_eq!(with("/var/lib/tidegate"), Path::new("/var/lib/tidegate"));
    assert_eq!(with("/var/lib/a:/var/lib/b"), Path::new("/var/lib/a"));
    assert_eq!(with(""), Path::new("/etc/tidegate/written"));
}

#[test]
fn relative_paths_begin_at_the_folder_of_the_file() {
    let text = format!("[admin]\nlisten = \"unix:run/admin.sock\"\n[log.access]\npath = \"access.log\"\n{MINIMAL}");
    let settings = parse(&text, Path::new("/etc/tidegate/tidegate.toml"), &env).expect("valid");
    assert_eq!(settings.admin.listen, ListenAddress::Unix("/etc/tidegate/run/admin.sock".into()));
    assert_eq!(settings.log.access.path.as_deref(), Some(Path::new("/etc/tidegate/access.log")));
}

#[test]
fn values_are_resolved() {
    let text = r#"
        [[routes]]
        host = "Shop.Example.COM."
        path_regex = "^/v[0-9]+/"
        methods = ["POST", "GET"]
        headers = [{ name = "X-Region", prefix = "eu-" }]
        services = [{ service = "us", weight = "70%" }, { service = "eu", weight = "30%" }]
        affinity = { key = ["cookie:session", "header:X-User", "query:u", "client_ip"] }
        [[routes]]
        host = "*.example.com"
        service = "us"
        [services.us]
        stable = { version = "1", endpoints = ["[::1]:80"] }
        upstream = { tls = { ca = "a.pem", cert = "b.pem", key = "b.key", sni = "us.internal" } }
        force = { header = "X-Canary", allow_from = ["10.0.0.0/8", "192.0.2.1"], secret_env = "GOOD_SECRET" }
        affinity = { on_increase = "new_sessions", secret_file = "affinity.key" }
        [services.eu.stable]
        version = "1"
        endpoints = ["10.0.0.1:80"]
    "#;
    let settings = compile(text).expect("valid");
    let matcher = &settings.routes[0].matcher;
    assert_eq!(matcher.host, HostMatch::Exact("shop.example.com".into()));
    assert_eq!((matcher.methods.join(" "), matcher.headers[0].name.as_str()), ("GET POST".into(), "x-region"));
    assert_eq!(settings.routes[1].matcher.host, HostMatch::Wildcard(".example.com".into()));
    let Target::Split { split, key } = &settings.routes[0].target else { panic!("a split") };
    assert_eq!(split.parts()[0].0.grains(), 7_000);
    assert_eq!(key[1], KeySource::Header("x-user".into()));
    let names: Vec<_> = settings.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["eu", "us"]);
    let us = &settings.services[1];
    let force = us.force.as_ref().expect("force");
    assert_eq!(force.allow_from[1].to_string(), "192.0.2.1/32");
    assert_eq!(&*force.secret.as_ref().expect("secret").0, b"0123456789abcdef");
    assert_eq!(us.affinity.secret.as_ref().expect("secret").0.len(), 32);
    let tls = us.upstream.tls.as_ref().expect("tls");
    assert!(tls.client.is_some() && tls.ca.as_ref().is_some_and(|ca| ca.pem.starts_with(b"-----BEGIN")));
}

#[test]
fn files_that_cannot_be_read_say_what_to_do() {
    let missing = load(Path::new("/nowhere/tidegate.toml"), &env).expect_err("missing").to_string();
    assert_eq!(
        missing,
        "/nowhere/tidegate.toml: cannot be read: No such file or directory (os error 2); \
         name a configuration file that this user may read"
    );
    let folder = load(files(), &env).expect_err("a folder").to_string();
    assert!(folder.contains("cannot be read: Is a directory"), "{folder}");
    let path = files().join("latin1.toml");
    std::fs::write(&path, b"a = 1\nb = \"\xe9\"\n").expect("file");
    let latin = load(&path, &env).expect_err("not UTF-8").to_string();
    assert!(latin.ends_with("latin1.toml:2:6: not UTF-8; a configuration file is UTF-8 text"), "{latin}");
    std::fs::write(&path, MINIMAL).expect("file");
    assert!(load(&path, &env).is_ok());
}

#[test]
fn what_needs_a_restart_is_told() {
    let old = compile(MINIMAL).expect("valid");
    let changed = |head: &str| needs_restart(&old, &compile(&format!("{head}\n{MINIMAL}")).expect("valid"));
    assert_eq!(changed("[log]\nlevel = \"debug\""), [""; 0]);
    assert_eq!(changed("[admin]\nlisten = \"[::1]:1\""), ["[admin]"]);
    // Tokens are looked up in the settings in force.
    let token = "{ name = \"a\", role = \"viewer\", env = \"GOOD_SECRET\" }";
    assert_eq!(changed(&format!("[admin]\nrequire_reason = true\ntokens = [{token}]")), [""; 0]);
    assert_eq!(changed("[admin]\nprobe_listen = \"127.0.0.1:9901\""), ["[admin]"]);
    assert_eq!(changed("[state]\ndir = \"x\"\n[runtime]\ndrain_timeout = \"9s\""), ["[state]", "[runtime]"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures how long it takes")]
fn ten_thousand_routes_and_services_take_no_quadratic_time() {
    use std::fmt::Write;
    let mut text = String::new();
    for i in 0..10_000 {
        let _ = writeln!(text, "[[routes]]\nhost = \"h{i}.example.com\"\npath_prefix = \"/a/{i}\"\nservice = \"s{i}\"");
        let _ = writeln!(text, "[services.s{i}.stable]\nversion = \"1\"\nendpoints = [\"10.0.0.1:80\"]");
    }
    let began = std::time::Instant::now();
    assert_eq!(compile(&text).expect("valid").routes.len(), 10_000);
    let good = began.elapsed();
    // Unoptimised it takes a few hundred milliseconds; anything quadratic takes minutes.
    assert!(good < Duration::from_secs(10), "{good:?}");
    let wrong = compile(&text.replace("service = \"s", "service = \"x")).expect_err("unknown services");
    assert_eq!(wrong.0.len(), super::ERRORS_MAX + 1);
}

/// A path is kept in the form requests are compared in, or it would never match.
#[test]
fn paths_are_kept_as_requests_are_compared() {
    let text = "[[routes]]\npath = '/caf%c3%a9/\"x\"'\nservice = \"web\"\n[services.web.stable]\nversion = \"v1\"\nendpoints = [\"127.0.0.1:1\"]";
    let settings = parse(text, Path::new("t.toml"), &|_| None).expect("valid");
    assert_eq!(settings.routes[0].matcher.path, PathMatch::Exact(b"/caf%C3%A9/%22x%22".to_vec()));
}
