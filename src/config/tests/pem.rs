//! Certificates and keys: read, and refused with the path and what to do.

use super::{compile, errors, files};

const REST: &str = r#"
[[routes]]
service = "web"
[services.web.stable]
version = "v1"
endpoints = ["10.0.0.1:80"]
"#;

fn listener(cert: &str, key: &str) -> String {
    format!("[[listeners]]\ntls = {{ certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}] }}\n{REST}")
}

#[test]
fn a_certificate_with_its_key_is_read() {
    let settings = compile(&listener("a.pem", "a.key")).expect("valid");
    let tls = settings.listeners[0].tls.as_ref().expect("tls");
    assert_eq!(tls.certificates[0].cert.path, files().join("a.pem").display().to_string());
    assert_eq!(&*tls.certificates[0].key.pem, std::fs::read(files().join("a.key")).expect("file"));
}

#[test]
fn files_that_do_not_fit_are_refused_by_name() {
    let cert = "tidegate.toml:2: listeners[0].tls.certificates[0].cert: ";
    let key = "tidegate.toml:2: listeners[0].tls.certificates[0].key: ";
    for (files, place, message) in [
        (
            ("none.pem", "a.key"),
            cert,
            "\"none.pem\": none.pem cannot be read: No such file or directory (os error 2); relative paths begin at the folder of this file",
        ),
        (
            ("empty.pem", "a.key"),
            cert,
            "\"empty.pem\": empty.pem holds no certificate; it needs a PEM block that begins with -----BEGIN CERTIFICATE-----",
        ),
        (
            ("a.key", "a.key"),
            cert,
            "\"a.key\": a.key holds no certificate; it needs a PEM block that begins with -----BEGIN CERTIFICATE-----",
        ),
        (("torn.pem", "a.key"), cert, "\"torn.pem\": torn.pem is not PEM"),
        (
            ("a.pem", "a.pem"),
            key,
            "\"a.pem\": a.pem holds no private key; it needs a PEM block that begins with -----BEGIN PRIVATE KEY-----",
        ),
        (
            ("a.pem", "locked.key"),
            key,
            "\"locked.key\": locked.key is encrypted; write it without a passphrase (openssl pkey -in FILE -out FILE)",
        ),
        (("a.pem", "torn.pem"), key, "\"torn.pem\": torn.pem is not PEM"),
        (
            ("a.pem", "odd.key"),
            key,
            "\"odd.key\": this kind of key is not supported; use ECDSA P-256 or P-384, Ed25519, or RSA (certificate: a.pem)",
        ),
        (("a.pem", "b.key"), key, "\"b.key\": the key does not belong to the certificate (certificate: a.pem)"),
    ] {
        assert_eq!(errors(&listener(files.0, files.1)), [format!("{place}{message}")]);
    }
    let broken = errors(&listener("broken.pem", "a.key"));
    assert!(
        broken[0].starts_with(&format!("{cert}\"broken.pem\": broken.pem holds a broken certificate (number 1): "))
    );
    let folder = errors(&listener(".", "a.key"));
    assert!(folder[0].contains("it is not a regular file"), "{}", folder[0]);
}

#[test]
fn both_files_are_checked_and_lists_are() {
    assert_eq!(errors(&listener("empty.pem", "empty.pem")).len(), 2);
    let list = |list: &str| errors(&format!("[[listeners]]\ntls = {{ {list} }}\n{REST}"));
    let pair = "{ cert = \"a.pem\", key = \"a.key\" }";
    let twice = list(&format!("certificates = [{pair}, {pair}]"));
    assert_eq!(twice, ["tidegate.toml:2: listeners[0].tls.certificates[1].cert: \"a.pem\": listed twice"]);
    let form = "a list such as [{ cert = \"site.pem\", key = \"site.key\" }]";
    let place = "tidegate.toml:2: listeners[0].tls.certificates";
    assert_eq!(list(""), [format!("{place}: missing: {form}")]);
    assert_eq!(list("certificates = []"), [format!("{place}: an empty list; {form}")]);
    let halves = list("certificates = [{ cert = \"a.pem\" }], client_ca = \"a.pem\"");
    assert_eq!(
        halves,
        [
            format!("{place}[0].key: missing: the file with the private key in PEM"),
            "tidegate.toml:2: listeners[0].tls.client_ca: not supported by this version".to_owned()
        ]
    );
}
