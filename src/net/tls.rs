//! TLS towards clients: certificates chosen by server name, swapped all at once, and the server configuration around them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, InconsistentKeys, SignatureScheme};
use x509_parser::extensions::GeneralName;

/// HTTP/2 by ALPN (RFC 7301, RFC 9113 section 3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";
/// HTTP/1.1 by ALPN.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A certificate chain and its key as they were read.
#[derive(Clone, Copy)]
pub struct CertPem<'a> {
    /// PEM, leaf first.
    pub cert: &'a [u8],
    /// PEM, not encrypted: PKCS#8, PKCS#1 or SEC1. Never shown.
    pub key: &'a [u8],
    /// What errors call it: the path of the certificate's file.
    pub label: &'a str,
}

/// The certificates of a listener. Chosen by the names in their subjectAltName (RFC 6125, RFC 9525): the exact name, else `*.` and all but
/// the first label, else (unknown or no server name) the first certificate.
#[derive(Debug)]
pub struct CertStore {
    certificates: ArcSwap<Certificates>,
}

/// Immutable once built; names are lower case.
#[derive(Debug)]
struct Certificates {
    exact: HashMap<Box<str>, Candidates>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Candidates>,
    fallback: Candidates,
}

/// Certificates of one name, in the order of the configuration: several if their keys are of several kinds.
#[derive(Debug)]
struct Candidates {
    first: Arc<CertifiedKey>,
    others: Vec<Arc<CertifiedKey>>,
}

/// A server configuration over `store`: TLS 1.2 and 1.3, resumption by tickets (keys change every six hours), no early data,
/// `alpn` in order of preference. One for all workers, so that a client resumes on any of them.
///
/// # Errors
/// The system has no randomness.
pub fn server_config(store: Arc<CertStore>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = ring::Ticketer::new()?;
    // With tickets the server remembers nothing, and workers do not meet at the lock of a table of sessions.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Reads one certificate and key, and checks that they belong together; with the names it is for.
fn load(pem: &CertPem<'_>, provider: &CryptoProvider) -> Result<(Arc<CertifiedKey>, Vec<String>), String> {
    let chain = CertificateDer::pem_slice_iter(pem.cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("the certificate is not readable: {}", pem_reason(&e)))?;
    let Some(leaf) = chain.first() else { return Err("there is no CERTIFICATE in the file".to_owned()) };
    let names = names(leaf)?;
    let key = PrivateKeyDer::from_pem_slice(pem.key).map_err(|e| match e {
        pem::Error::NoItemsFound if is_encrypted(pem.key) => {
            "the key is encrypted; a key without a passphrase is needed".to_owned()
        }
        e => format!("the key is not readable: {}", pem_reason(&e)),
    })?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|e| match e {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the key does not belong to the certificate".to_owned()
        }
        Error::InvalidCertificate(e) => format!("the certificate is not usable: {e}"),
        // Whatever else it says may be about the key's contents.
        _ => "the key is not usable; RSA (2048 bits and more), ECDSA (P-256, P-384) and Ed25519 are".to_owned(),
    })?;
    Ok((Arc::new(certified), names))
}

/// The DNS names of a certificate in lower case; its common name does not count (RFC 9525 section 2).
fn names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| "the certificate is not X.509".to_owned())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| "the certificate's subjectAltName is malformed".to_owned())?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

fn is_encrypted(key: &[u8]) -> bool {
    memchr::memmem::find(key, b"ENCRYPTED").is_some()
}

/// Why PEM could not be read. None of the bytes: the file may be a key, or a key in the place of a certificate.
fn pem_reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::SectionTooLarge => "a section is too large",
        pem::Error::NoItemsFound => "there is no such section in the file",
        _ => "it is not PEM",
    }
}

// === impl CertStore ===

impl CertStore {
    /// A store of `certificates`, at least one; the first is the default.
    ///
    /// # Errors
    /// As [`CertStore::replace`].
    pub fn new(certificates: &[CertPem<'_>]) -> Result<Self, String> {
        Ok(Self { certificates: ArcSwap::from_pointee(Certificates::build(certificates)?) })
    }

    /// Puts `certificates` in the place of those in force, for every handshake that begins from now on: all, or none on an error.
    ///
    /// # Errors
    /// A sentence per certificate that cannot be used, with its label.
    pub fn replace(&self, certificates: &[CertPem<'_>]) -> Result<(), String> {
        self.certificates.store(Arc::new(Certificates::build(certificates)?));
        Ok(())
    }

    /// The certificate for a client that asks for `name` (lower case) and accepts `schemes`.
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Arc<CertifiedKey> {
        self.certificates.load().candidates(name).choose(schemes)
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name(), hello.signature_schemes()))
    }
}

// === impl Certificates ===

impl Certificates {
    fn build(pems: &[CertPem<'_>]) -> Result<Self, String> {
        let provider = ring::default_provider();
        let (mut loaded, mut errors) = (Vec::with_capacity(pems.len()), Vec::new());
        for pem in pems {
            match load(pem, &provider) {
                // Without a name nobody can ask for it.
                Ok((_, names)) if names.is_empty() && !loaded.is_empty() => {
                    errors.push(format!("{}: the certificate has no DNS name, so it can only be the first", pem.label));
                }
                Ok(certificate) => loaded.push(certificate),
                Err(reason) => errors.push(format!("{}: {reason}", pem.label)),
            }
        }
        if !errors.is_empty() {
            return Err(errors.join("; "));
        }
        let Some((first, names)) = loaded.first() else { return Err("there is no certificate".to_owned()) };
        let mut fallback = Candidates { first: Arc::clone(first), others: Vec::new() };
        for (other, _) in loaded[1..].iter().filter(|(_, others)| others.iter().any(|name| names.contains(name))) {
            fallback.others.push(Arc::clone(other));
        }
        let mut certificates = Self { exact: HashMap::new(), wildcard: HashMap::new(), fallback };
        for (certificate, names) in &loaded {
            for name in names {
                certificates.insert(name, certificate);
            }
        }
        Ok(certificates)
    }

    fn insert(&mut self, name: &str, certificate: &Arc<CertifiedKey>) {
        let (table, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, name),
        };
        match table.entry(name.into()) {
            Entry::Occupied(entry) => entry.into_mut().others.push(Arc::clone(certificate)),
            Entry::Vacant(entry) => {
                entry.insert(Candidates { first: Arc::clone(certificate), others: Vec::new() });
            }
        }
    }

    fn candidates(&self, name: Option<&str>) -> &Candidates {
        let Some(name) = name else { return &self.fallback };
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(parent).unwrap_or(&self.fallback)
    }
}

// === impl Candidates ===

impl Candidates {
    /// The first whose key can sign what the client accepts; the first of all if none can, and the handshake says why it fails.
    fn choose(&self, schemes: &[SignatureScheme]) -> Arc<CertifiedKey> {
        let all = || std::iter::once(&self.first).chain(&self.others);
        // With one there is nothing to choose, and asking a key allocates.
        let usable = if self.others.is_empty() { None } else { all().find(|c| c.key.choose_scheme(schemes).is_some()) };
        Arc::clone(usable.unwrap_or(&self.first))
    }
}

// === impl CertPem ===

impl fmt::Debug for CertPem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertPem").field("label", &self.label).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
