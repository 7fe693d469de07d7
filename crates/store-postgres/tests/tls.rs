//! Across a network the server proves who it is: by a certificate for its name from an authority that is trusted here.

use std::fs;

use carrel_store_postgres::{Error, Options, migrate};
use carrel_testkit::certificates::Authority;
use carrel_testkit::postgres::{SUPERUSER, Server};

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_is_not_talked_to() {
    // An address of this program's own: every one that begins with 127 is this machine.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = format!("127.{}.{middle}.{low}", high | 0x80);
    let Some(server) = Server::shared(&[&format!("listen_addresses={address}")]) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let [right, elsewhere] =
        [("right", address.as_str()), ("elsewhere", "127.0.0.1")].map(|(name, address)| {
            let authority = Authority::new(name);
            let trusted = folder.path().join(name);
            fs::write(&trusted, &authority.pem).expect("written");
            (authority.certify(&[address]), trusted)
        });
    let url = |more: &str| format!("postgres://{SUPERUSER}@{address}/postgres?{more}");
    let open = async |more: String| migrate(&Options::new(&url(&more))).await;

    let plain = open("sslmode=verify-full".to_owned()).await;
    assert!(
        matches!(plain, Err(Error::Away { .. })),
        "no TLS at all: {plain:?}"
    );
    for (name, (certificate, authority)) in [("right", &right), ("elsewhere", &elsewhere)] {
        server.serve_tls(certificate).await;
        let authority = authority.display();
        let trusted = open(format!("sslmode=verify-full&sslrootcert={authority}")).await;
        assert_eq!(trusted.is_ok(), name == "right", "{name}: {trusted:?}");
        let unknown = open("sslmode=verify-full".to_owned()).await;
        assert!(
            matches!(unknown, Err(Error::Away { .. })),
            "{name}: {unknown:?}"
        );
    }
}
