//! Across a network the server proves who it is: by a certificate for its name from an authority that is trusted here.

use std::path::Path;
use std::process::Command;

use carrel_store_postgres::{Error, Options, migrate};
use carrel_testkit::postgres::{SUPERUSER, Server};

/// A certificate for an address, signed by itself, with its key beside it.
fn certify(folder: &Path, name: &str, address: &str) -> String {
    let file = |kind: &str| folder.join(format!("{name}.{kind}")).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "9", "-subj", &format!("/CN={name}")])
        .args(["-addext", &format!("subjectAltName=IP:{address}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &file("key"), "-out", &file("crt")])
        .output()
        .expect("openssl, which PostgreSQL brings along");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    file("crt")
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_is_not_talked_to() {
    // An address of this program's own: every one that begins with 127 is this machine.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = format!("127.{}.{middle}.{low}", high | 0x80);
    let Some(server) = Server::shared(&[&format!("listen_addresses={address}")]) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let right = certify(folder.path(), "right", &address);
    let elsewhere = certify(folder.path(), "elsewhere", "127.0.0.1");
    let url = |more: &str| format!("postgres://{SUPERUSER}@{address}/postgres?{more}");
    let open = async |more: String| migrate(&Options::new(&url(&more))).await;

    let plain = open("sslmode=verify-full".to_owned()).await;
    assert!(
        matches!(plain, Err(Error::Away { .. })),
        "no TLS at all: {plain:?}"
    );
    for (name, certificate) in [("right", &right), ("elsewhere", &elsewhere)] {
        server.serve_tls(
            Path::new(certificate),
            &folder.path().join(format!("{name}.key")),
        );
        let trusted = open(format!("sslmode=verify-full&sslrootcert={certificate}")).await;
        assert_eq!(trusted.is_ok(), name == "right", "{name}: {trusted:?}");
        let unknown = open("sslmode=verify-full".to_owned()).await;
        assert!(
            matches!(unknown, Err(Error::Away { .. })),
            "{name}: {unknown:?}"
        );
    }
}
