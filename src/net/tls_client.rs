//! TLS as a client, for what asks beside the data plane: whom to trust, who to be, which name to ask for.

use std::sync::{Arc, OnceLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::core::service::{PemFile, UpstreamTls};

/// A client that verifies and asks for one name.
#[derive(Clone)]
pub struct TlsClient {
    /// Does the handshakes; remembers sessions.
    pub connector: TlsConnector,
    /// The name asked for and verified.
    pub name: ServerName<'static>,
}

/// The platform's roots, read once: that takes time and memory.
static PLATFORM: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();

// === impl TlsClient ===

impl TlsClient {
    /// A client as `tls` says, that offers `alpn` in order of preference. TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// Which file cannot be used, or that the platform has no roots.
    pub fn new(tls: &UpstreamTls, alpn: &[&[u8]]) -> Result<Self, String> {
        let name = ServerName::try_from(tls.sni.clone()).map_err(|_| format!("\"{}\" is no server name", tls.sni))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if tls.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(roots(tls.ca.as_ref())?)
        };
        let mut config = match &tls.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(certificates(chain)?, private_key(key)?)
                .map_err(|_| unusable(key, "is not usable"))?,
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn roots(ca: Option<&PemFile>) -> Result<Arc<RootCertStore>, String> {
    let Some(file) = ca else { return PLATFORM.get_or_init(platform).clone() };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| unusable(file, &error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn platform() -> Result<Arc<RootCertStore>, String> {
    let found = rustls_native_certs::load_native_certs()
        .map_err(|error| format!("the platform's CA certificates cannot be loaded (see SSL_CERT_FILE): {error}"))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        return Err("the platform has no CA certificates (see SSL_CERT_FILE)".to_owned());
    }
    Ok(Arc::new(roots))
}

/// The certificates in `file`, at least one.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn certificates(file: &PemFile) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.pem).collect();
    let certificates = certificates.map_err(|error| unusable(file, &error.to_string()))?;
    if certificates.is_empty() { Err(unusable(file, "holds no certificate")) } else { Ok(certificates) }
}

/// The private key in `file`.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn private_key(file: &PemFile) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&file.pem).map_err(|error| unusable(file, &error.to_string()))
}

fn unusable(file: &PemFile, why: &str) -> String {
    format!("{}: {why}", file.path)
}

/// Takes any certificate (`insecure = true`); the handshake has still to be signed with its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient").field("name", &self.name).finish_non_exhaustive()
    }
}
