//! Certificates made on the spot, and the TLS configurations that go with them.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::files::TempDir;

/// A certificate authority of its own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Identity {
    cert: CertificateDer<'static>,
    cert_pem: String,
    key: KeyPair,
}

// === impl Authority ===

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names to refuse");
        // A name unlike that of what it issues: some take a certificate that names itself as its issuer for self-signed.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a self-signed certificate") }
    }

    /// A certificate for `names` (host names or addresses), signed by this authority.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        let params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("valid names");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        Identity { cert: certificate.der().clone(), cert_pem: certificate.pem(), key }
    }

    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client that trusts this authority and no other.
    pub(crate) fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

// === impl Identity ===

impl Identity {
    /// A server that shows this certificate.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_no_client_auth()
            .with_single_cert(vec![self.cert.clone()], key)
            .expect("a key that belongs to the certificate");
        Arc::new(config)
    }

    /// Writes `NAME.pem` and `NAME.key` (each replaced at once) and gives their paths.
    pub(crate) fn write(&self, dir: &TempDir, name: &str) -> (PathBuf, PathBuf) {
        let key = dir.write(&format!("{name}.key"), &self.key.serialize_pem());
        (dir.write(&format!("{name}.pem"), &self.cert_pem), key)
    }

    /// The certificate as a client sees it.
    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.cert
    }
}
