//! Certificates and keys: read, parsed, and checked to belong together.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};

use super::super::file::Value;
use super::super::units;
use crate::core::service::PemFile;

/// Largest file that is read for a certificate, key or secret, in bytes.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

/// A certificate chain and the key that belongs to it.
pub(super) fn pair(cert: Option<Value<'_, '_>>, key: Option<Value<'_, '_>>) -> Option<(PemFile, PemFile)> {
    let chain = cert.and_then(certificates);
    let private = key.and_then(private_key);
    let ((cert_file, chain), (key_value, (key_file, private))) = (chain?, (key?, private?));
    match mismatch(chain, &private) {
        None => Some((cert_file, key_file)),
        Some(reason) => {
            key_value.refuse(format_args!("{reason} (certificate: {})", cert_file.path));
            None
        }
    }
}

/// The certificates to trust.
pub(super) fn roots(value: Value<'_, '_>) -> Option<PemFile> {
    certificates(value).map(|(file, _)| file)
}

/// The bytes of the file `value` names, and its path.
pub(super) fn file(value: Value<'_, '_>) -> Option<PemFile> {
    value.read("a file", |text| {
        let path = value.context().resolve(text);
        let shown = path.display().to_string();
        let bytes = read(&path).map_err(|reason| {
            format!("{shown} cannot be read: {reason}; relative paths begin at the folder of this file")
        })?;
        let path = path.to_str().ok_or_else(|| format!("{shown} is not UTF-8"))?.to_owned();
        Ok::<_, String>(PemFile { path, pem: bytes.into() })
    })
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    // Opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(format!("it is larger than {}", units::show_size(FILE_SIZE_MAX)));
    }
    Ok(bytes)
}

fn certificates(value: Value<'_, '_>) -> Option<(PemFile, Vec<CertificateDer<'static>>)> {
    let file = file(value)?;
    match parse_certificates(&file.pem) {
        Ok(chain) => Some((file, chain)),
        Err(reason) => {
            value.refuse(format_args!("{} {reason}", file.path));
            None
        }
    }
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    // The library's messages can repeat a line of the file, which may be a key by mistake.
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = parsed.map_err(|_| "is not PEM".to_owned())?;
    if chain.is_empty() {
        return Err(
            "holds no certificate; it needs a PEM block that begins with -----BEGIN CERTIFICATE-----".to_owned()
        );
    }
    for (index, der) in chain.iter().enumerate() {
        if let Err(error) = x509_parser::parse_x509_certificate(der) {
            return Err(format!("holds a broken certificate (number {}): {error}", index + 1));
        }
    }
    Ok(chain)
}

fn private_key(value: Value<'_, '_>) -> Option<(PemFile, PrivateKeyDer<'static>)> {
    let file = file(value)?;
    match parse_private_key(&file.pem) {
        Ok(key) => Some((file, key)),
        Err(reason) => {
            value.refuse(format_args!("{} {reason}", file.path));
            None
        }
    }
}

fn parse_private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(rustls_pki_types::pem::Error::NoItemsFound) if is_encrypted(pem) => {
            Err("is encrypted; write it without a passphrase (openssl pkey -in FILE -out FILE)".to_owned())
        }
        Err(rustls_pki_types::pem::Error::NoItemsFound) => {
            Err("holds no private key; it needs a PEM block that begins with -----BEGIN PRIVATE KEY-----".to_owned())
        }
        Err(_) => Err("is not PEM".to_owned()),
    }
}

fn is_encrypted(pem: &[u8]) -> bool {
    memchr::memmem::find(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----").is_some()
}

/// Why `key` cannot be used with `chain`.
fn mismatch(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Option<String> {
    let signing: Arc<_> = match any_supported_type(key) {
        Ok(signing) => signing,
        Err(_) => {
            return Some("this kind of key is not supported; use ECDSA P-256 or P-384, Ed25519, or RSA".to_owned());
        }
    };
    match CertifiedKey::new(chain, signing).keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => None,
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Some("the key does not belong to the certificate".to_owned())
        }
        Err(error) => Some(format!("the certificate cannot be used: {error}")),
    }
}
