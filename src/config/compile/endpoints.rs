//! `endpoints`: addresses, names, SRV names and unix sockets, alone or in a table with a weight.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::file::{Context, Table, Value};
use super::super::keys::Section;
use super::{UNIX_PATH_LEN_MAX, syntax};
use crate::core::endpoint::{Address, Declared, ENDPOINTS_MAX, Place, Question, WEIGHT_MAX, WEIGHT_MIN};

/// Most names all pools together may have resolved: a question to the DNS and a timer each.
const NAMES_MAX: usize = 1_024;
const WEIGHT: RangeInclusive<u32> = WEIGHT_MIN..=WEIGHT_MAX;
const FORM: &str = "an endpoint is \"10.0.0.1:8080\", \"[fd00::1]:8080\", \"web.internal:8080\" (all addresses of the name), \
                    \"srv:_http._tcp.web.internal\", \"unix:/run/app.sock\", or a table such as { address = \"10.0.0.1:8080\", weight = 2 }";
const SRV_FORM: &str = "an SRV name is \"srv:\" and a name without a port, such as \"srv:_http._tcp.web.internal\"; the records tell the ports";

/// The endpoints of a pool.
pub(super) fn endpoints(list: Value<'_, '_>, section: &'static Section) -> Vec<Declared> {
    let Some(elements) = list.elements(FORM) else { return Vec::new() };
    if elements.is_empty() {
        list.wrong(format_args!("an empty list; {FORM}"));
    }
    if elements.len() > ENDPOINTS_MAX {
        list.wrong(format_args!("{} elements; at most {ENDPOINTS_MAX} are allowed", elements.len()));
    }
    let mut seen = HashSet::new();
    let once = |element: Value<'_, '_>| {
        let declared = declared(element, section)?;
        let first = seen.insert(declared.place.clone());
        if !first {
            element.wrong(format_args!("{:?}: listed twice", declared.place.to_string()));
        }
        first.then_some(declared)
    };
    elements.into_iter().filter_map(once).collect()
}

/// Notes when there are more names than can be resolved.
pub(super) fn bound_names(root: &Table<'_>, questions: impl Iterator<Item = Question>) {
    let count = questions.collect::<HashSet<_>>().len();
    if let Some(value) = root.value("services").filter(|_| count > NAMES_MAX) {
        value.wrong(format_args!("{count} different names in endpoints; at most {NAMES_MAX} are allowed"));
    }
}

fn declared(element: Value<'_, '_>, section: &'static Section) -> Option<Declared> {
    let context = element.context();
    if element.as_text().is_some() {
        let place = element.read(FORM, |text| place(context, text))?;
        return Some(Declared { place, weight: WEIGHT_MIN });
    }
    if !element.is_table() {
        element.refuse(FORM);
        return None;
    }
    let table = element.table(section)?;
    let address = table.required("address", FORM)?;
    let place = address.read(FORM, |text| place(context, text));
    let weight = table.value("weight");
    if let Some(value) = weight.filter(|_| matches!(place, Some(Place::Srv(_)))) {
        value.wrong("the records of an SRV name have weights of their own");
    }
    let weight = weight.map_or(Some(WEIGHT_MIN), |value| value.integer(&WEIGHT, ""));
    Some(Declared { place: place?, weight: weight? })
}

pub(in crate::config) fn place(context: &Context<'_>, text: &str) -> Result<Place, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(context, path).map(Place::Fixed);
    }
    if let Some(name) = text.strip_prefix("srv:") {
        return name_of(name).map(Place::Srv).ok_or_else(|| SRV_FORM.to_owned());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        let fixed = || Place::Fixed(Address::Ip(address));
        return (address.port() != 0).then(fixed).ok_or_else(|| FORM.to_owned());
    }
    let named = text.rsplit_once(':').and_then(|(name, port)| Some((name_of(name)?, port_of(port)?)));
    named.map(|(name, port)| Place::Host(name, port)).ok_or_else(|| FORM.to_owned())
}

fn unix(context: &Context<'_>, path: &str) -> Result<Address, String> {
    if path.is_empty() || path.contains('\0') {
        return Err(FORM.to_owned());
    }
    let path = context.resolve(path);
    let len = path.as_os_str().len();
    if len > UNIX_PATH_LEN_MAX {
        return Err(format!("the path of a unix socket has at most {UNIX_PATH_LEN_MAX} bytes, this one has {len}"));
    }
    let path = path.to_str().ok_or("the folder of the file has a path that is not UTF-8; write the whole path")?;
    Ok(Address::Unix(path.into()))
}

/// A name that can be asked for, in lower case. A dot at its end (nothing is searched below other domains) is kept.
fn name_of(text: &str) -> Option<Arc<str>> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    // What ends in digits is an address with a mistake in it, never a name (RFC 3696 section 2).
    let numeric = bare.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    let ok = syntax::is_name(bare) && !numeric && bare.parse::<IpAddr>().is_err();
    ok.then(|| text.to_ascii_lowercase().into())
}

fn port_of(text: &str) -> Option<u16> {
    let plain = !text.starts_with('+');
    text.parse().ok().filter(|port| plain && *port != 0)
}
