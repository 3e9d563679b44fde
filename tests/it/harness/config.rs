//! The text of a configuration, from what a test cares about and defaults for the rest.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::files::TempDir;

/// A configuration under construction. Releases are called `v1` (stable) and `v2` (candidate) unless given a name.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    admin: String,
    admin_lines: String,
    state_dir: String,
    listeners: Vec<(String, String, String)>,
    limits: String,
    routes: String,
    sections: BTreeMap<String, String>,
}

// === impl Config ===

impl Config {
    /// One listener on a free port, the admin API on another, two workers, state in `dir`.
    pub(crate) fn new(dir: &TempDir) -> Self {
        let config = Self {
            admin: "127.0.0.1:0".into(),
            admin_lines: String::new(),
            state_dir: dir.path().join("state").display().to_string(),
            listeners: vec![("public".into(), "127.0.0.1:0".into(), String::new())],
            limits: String::new(),
            routes: String::new(),
            sections: BTreeMap::new(),
        };
        config.set("runtime", "workers = 2")
    }

    /// The service `web` with its pools, and a route that sends everything there.
    pub(crate) fn web(self, stable: &[&str], candidate: &[&str]) -> Self {
        self.route("service = \"web\"").pools("web", ("v1", stable), ("v2", candidate))
    }

    /// A service with the releases of its pools; an empty candidate is left out. Replaces what was said before.
    pub(crate) fn pools(mut self, service: &str, stable: (&str, &[&str]), candidate: (&str, &[&str])) -> Self {
        for (role, (version, endpoints)) in [("stable", stable), ("candidate", candidate)] {
            let section = format!("services.{service}.{role}");
            self.sections.remove(&section);
            if !endpoints.is_empty() {
                self.sections.insert(section, format!("version = {version:?}\nendpoints = {endpoints:?}\n"));
            }
        }
        self
    }

    /// Lines of the section `name` (`services.web.upstream`), added to what is there; a key that is there already gets its new value.
    pub(crate) fn set(mut self, name: &str, lines: &str) -> Self {
        let key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
        let new: Vec<_> = lines.lines().filter_map(key).collect();
        let section = self.sections.entry(name.to_owned()).or_default();
        let kept = section.lines().filter(|line| key(line).is_none_or(|key| !new.contains(&key)));
        *section = kept.chain(lines.lines()).fold(String::new(), |text, line| text + line + "\n");
        self
    }

    /// One more route: the lines of a `[[routes]]`.
    pub(crate) fn route(mut self, lines: &str) -> Self {
        writeln!(self.routes, "[[routes]]\n{lines}").expect("a string");
        self
    }

    /// No routes yet again.
    pub(crate) fn without_routes(mut self) -> Self {
        self.routes.clear();
        self
    }

    /// Lines of every listener's limits.
    pub(crate) fn limits(mut self, lines: &str) -> Self {
        writeln!(self.limits, "{lines}").expect("a string");
        self
    }

    /// Where the first listener listens, and lines of its own.
    pub(crate) fn listen(mut self, address: &str, lines: &str) -> Self {
        self.listeners[0] = ("public".into(), address.into(), lines.into());
        self
    }

    /// One more listener.
    pub(crate) fn listener(mut self, name: &str, address: &str, lines: &str) -> Self {
        self.listeners.push((name.into(), address.into(), lines.into()));
        self
    }

    /// Where the admin API listens.
    pub(crate) fn admin(mut self, address: &str) -> Self {
        address.clone_into(&mut self.admin);
        self
    }

    /// More lines about the admin API.
    pub(crate) fn admin_lines(mut self, lines: &str) -> Self {
        writeln!(self.admin_lines, "{lines}").expect("a string");
        self
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> String {
        let Self { admin, admin_lines, state_dir, .. } = self;
        let mut text = format!("[admin]\nlisten = {admin:?}\n{admin_lines}\n[state]\ndir = {state_dir:?}\n\n");
        for (name, address, lines) in &self.listeners {
            write!(text, "[[listeners]]\nname = {name:?}\nlisten = {address:?}\n{lines}\n").expect("a string");
            if !self.limits.is_empty() {
                write!(text, "[listeners.limits]\n{}\n", self.limits).expect("a string");
            }
        }
        text.push_str(&self.routes);
        for (name, lines) in &self.sections {
            write!(text, "\n[{name}]\n{lines}").expect("a string");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_toml_and_says_what_was_asked() {
        let dir = TempDir::new();
        let config = Config::new(&dir)
            .admin("unix:/tmp/admin.sock")
            .admin_lines("require_reason = true")
            .web(&["127.0.0.1:1", "127.0.0.1:2"], &["127.0.0.1:3"])
            .limits("max_head = \"1KiB\"")
            .listen("127.0.0.1:8080", "underscores = \"keep\"")
            .listener("other", "127.0.0.1:0", "")
            .set("services.web.upstream", "connect_timeout = \"100ms\"")
            .set("services.web.upstream", "response_timeout = \"200ms\"");
        let table: toml::Table = config.text().parse().unwrap();
        assert_eq!(table["admin"]["require_reason"].as_bool(), Some(true));
        assert_eq!(table["services"]["web"]["stable"]["endpoints"].as_array().unwrap().len(), 2);
        assert_eq!(table["services"]["web"]["candidate"]["version"].as_str(), Some("v2"));
        assert_eq!(table["services"]["web"]["upstream"]["response_timeout"].as_str(), Some("200ms"));
        assert_eq!(table["listeners"].as_array().unwrap().len(), 2);
        assert_eq!(table["listeners"][0]["underscores"].as_str(), Some("keep"));
        assert_eq!(table["listeners"][1]["limits"]["max_head"].as_str(), Some("1KiB"));
        assert_eq!(table["routes"][0]["service"].as_str(), Some("web"));
        let alone = config.without_routes().pools("web", ("v2", &["127.0.0.1:3"]), ("v3", &[]));
        let table: toml::Table = alone.text().parse().unwrap();
        assert_eq!(table["services"]["web"]["stable"]["version"].as_str(), Some("v2"));
        assert!(table["services"]["web"].get("candidate").is_none() && table.get("routes").is_none());
    }
}
