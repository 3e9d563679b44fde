//! Real handshakes over loopback; certificates made on the spot.

use std::sync::Mutex;

use rustls_pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SupportedProtocolVersion,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

struct Made {
    cert: String,
    key: String,
    label: String,
}

impl Made {
    fn pem(&self) -> CertPem<'_> {
        CertPem { cert: self.cert.as_bytes(), key: self.key.as_bytes(), label: &self.label }
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

fn made_with(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Made {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let label = format!("{}.pem", names.first().map_or("nameless", String::as_str));
    let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    Made { cert: cert.pem(), key: key.serialize_pem(), label }
}

fn made(names: &[&str]) -> Made {
    made_with(names, &rcgen::PKCS_ECDSA_P256_SHA256)
}

fn store(made: &[&Made]) -> Arc<CertStore> {
    Arc::new(CertStore::new(&made.iter().map(|made| made.pem()).collect::<Vec<_>>()).unwrap())
}

/// Accepts every certificate, claims to know only some signatures, and remembers what it was shown.
#[derive(Debug)]
struct Observer {
    schemes: Vec<SignatureScheme>,
    shown: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Observer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.shown.lock().unwrap() = Some(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

struct Client {
    config: Arc<ClientConfig>,
    observer: Arc<Observer>,
}

/// What a client learned in one handshake.
struct Seen {
    version: ProtocolVersion,
    alpn: Option<Vec<u8>>,
    kind: HandshakeKind,
    shown: Option<CertificateDer<'static>>,
}

fn client_with(versions: &[&'static SupportedProtocolVersion], schemes: Vec<SignatureScheme>) -> Client {
    let observer = Arc::new(Observer { schemes, shown: Mutex::new(None) });
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&observer) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), ALPN_HTTP1.to_vec()];
    Client { config: Arc::new(config), observer }
}

fn client() -> Client {
    client_with(&[&TLS13, &TLS12], ring::default_provider().signature_verification_algorithms.supported_schemes())
}

/// One connection on which the server says a byte, so that tickets have arrived too.
async fn connect(client: &Client, server: &Arc<ServerConfig>, name: &str) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(Arc::clone(server)).accept(stream).await.unwrap();
        stream.write_all(b"!").await.unwrap();
        stream.shutdown().await.unwrap();
        // Until the client closes.
        let _ = stream.read(&mut [0]).await;
    };
    let ask = async {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(Arc::clone(&client.config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'!');
        let (_, session) = stream.get_ref();
        Seen {
            version: session.protocol_version().unwrap(),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            kind: session.handshake_kind().unwrap(),
            shown: client.observer.shown.lock().unwrap().take(),
        }
    };
    tokio::join!(serve, ask).1
}

/// Which certificate of `store` a new client is shown for `name`.
async fn shown(store: &Arc<CertStore>, name: &str) -> CertificateDer<'static> {
    let server = server_config(Arc::clone(store), &[ALPN_HTTP1]).unwrap();
    connect(&client(), &server, name).await.shown.unwrap()
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let first = made(&["first.test"]);
    let shop = made(&["Shop.Example.com", "example.com"]);
    let wild = made(&["*.example.com"]);
    let store = store(&[&first, &shop, &wild]);
    let cases = [
        ("first.test", &first),
        ("shop.example.com", &shop),
        ("SHOP.example.COM", &shop),
        ("example.com", &shop),
        ("api.example.com", &wild),
        // A wildcard stands for one label; an unknown name, and none (an address is not sent), get the first certificate.
        ("a.b.example.com", &first),
        ("other.test", &first),
        ("127.0.0.1", &first),
    ];
    for (name, expected) in cases {
        assert!(shown(&store, name).await == expected.der(), "{name}: not {}", expected.label);
    }
}

#[tokio::test]
async fn both_versions_are_spoken_with_the_one_protocol() {
    let one = made(&["a.test"]);
    let server = server_config(store(&[&one]), &[ALPN_HTTP1]).unwrap();
    let schemes = || ring::default_provider().signature_verification_algorithms.supported_schemes();
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let seen = connect(&client_with(&[version], schemes()), &server, "a.test").await;
        assert_eq!((seen.version, seen.alpn.as_deref()), (expected, Some(ALPN_HTTP1)));
    }
}

#[tokio::test]
async fn sessions_are_resumed_in_both_versions() {
    let one = made(&["a.test"]);
    let server = server_config(store(&[&one]), &[ALPN_HTTP1]).unwrap();
    let schemes = || ring::default_provider().signature_verification_algorithms.supported_schemes();
    for version in [&TLS12, &TLS13] {
        let client = client_with(&[version], schemes());
        let (first, second) = (connect(&client, &server, "a.test").await, connect(&client, &server, "a.test").await);
        assert_eq!((first.kind, second.kind), (HandshakeKind::Full, HandshakeKind::Resumed));
        assert!(second.shown.is_none());
    }
}

#[tokio::test]
async fn of_two_keys_for_a_name_the_one_the_client_can_check_is_used() {
    let p256 = made(&["a.test"]);
    let ed25519 = made_with(&["b.test", "a.test"], &rcgen::PKCS_ED25519);
    let server = server_config(store(&[&p256, &ed25519]), &[ALPN_HTTP1]).unwrap();
    let cases = [(SignatureScheme::ECDSA_NISTP256_SHA256, &p256), (SignatureScheme::ED25519, &ed25519)];
    for (scheme, expected) in cases {
        // The default certificate has a twin as well.
        for name in ["a.test", "unknown.test"] {
            let seen = connect(&client_with(&[&TLS13], vec![scheme]), &server, name).await;
            assert!(seen.shown.unwrap() == expected.der(), "{scheme:?} {name}");
        }
    }
}

#[tokio::test]
async fn certificates_are_replaced_at_once_and_a_bad_one_keeps_the_old() {
    let (old, old_b) = (made(&["a.test"]), made(&["b.test"]));
    let (new, new_b) = (made(&["a.test"]), made(&["b.test"]));
    let store = store(&[&old, &old_b]);
    let bad = CertPem { key: b"-----BEGIN PRIVATE KEY-----\n", label: "b.pem", ..new_b.pem() };
    assert!(store.replace(&[new.pem(), bad]).is_err());
    assert!(shown(&store, "a.test").await == old.der() && shown(&store, "b.test").await == old_b.der());
    assert!(store.replace(&[]).is_err());
    store.replace(&[new.pem(), new_b.pem()]).unwrap();
    assert!(shown(&store, "a.test").await == new.der() && shown(&store, "b.test").await == new_b.der());
}

#[tokio::test]
async fn a_session_begun_before_a_swap_goes_on() {
    let (old, new) = (made(&["a.test"]), made(&["a.test"]));
    let store = store(&[&old]);
    let server = server_config(Arc::clone(&store), &[ALPN_HTTP1]).unwrap();
    let client = client();
    connect(&client, &server, "a.test").await;
    store.replace(&[new.pem()]).unwrap();
    assert_eq!(connect(&client, &server, "a.test").await.kind, HandshakeKind::Resumed);
}

#[test]
fn what_is_wrong_is_said_with_the_file_and_without_the_key() {
    let (good, other) = (made(&["a.test"]), made(&["b.test"]));
    let nameless = made(&[]);
    let secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
    let cut = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n");
    let garbled = format!("-----BEGIN PRIVATE KEY-----\n{secret}!\n-----END PRIVATE KEY-----\n");
    let truncated = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
    let begin = format!("-----BEGIN {secret}\n");
    let encrypted = truncated.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let not_x509 = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let cases: [(&str, &str, &str); 11] = [
        (&good.cert, &other.key, "does not belong"),
        (&good.cert, &cut, "no END line"),
        (&good.cert, &garbled, "not base64"),
        (&good.cert, &truncated, "not usable"),
        (&good.cert, &begin, "the key is not readable"),
        (&good.cert, &encrypted, "encrypted"),
        (&good.cert, &good.cert, "no such section"),
        (&good.cert, "", "no such section"),
        (&good.key, &good.key, "no CERTIFICATE"),
        (not_x509, &good.key, "not X.509"),
        (&nameless.cert, &nameless.key, "can only be the first"),
    ];
    let body = good.key.lines().nth(1).unwrap();
    for (cert, key, expected) in cases {
        let bad = CertPem { cert: cert.as_bytes(), key: key.as_bytes(), label: "/etc/tls/bad.pem" };
        let error = CertStore::new(&[good.pem(), bad]).unwrap_err();
        assert!(error.starts_with("/etc/tls/bad.pem: ") && error.contains(expected), "{expected}: {error}");
        assert!(!error.contains(secret) && !error.contains(body) && !format!("{bad:?}").contains(body), "{error}");
    }
    let bad = CertPem { key: b"", ..good.pem() };
    assert_eq!(CertStore::new(&[bad, bad]).unwrap_err().matches("a.test.pem: ").count(), 2, "all at once");
    CertStore::new(&[nameless.pem(), good.pem()]).unwrap();
}
