use std::fs::{self, Permissions};

use carrel_testkit::certificates::{Authority, Certified};
use tempfile::TempDir;

use super::*;

/// A data folder with a certificate of this authority.
fn folder(authority: &Authority) -> (TempDir, Tls) {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), &authority.certify(&["localhost"]));
    fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
    let tls = Tls {
        cert_file: "tls.crt".to_owned(),
        key_file: "tls.key".to_owned(),
        ca_file: "ca.crt".to_owned(),
    };
    (folder, tls)
}

fn put(folder: &Path, certified: &Certified) {
    fs::write(folder.join("tls.crt"), &certified.chain).unwrap();
    let key = folder.join("tls.key");
    fs::write(&key, &certified.key).unwrap();
    fs::set_permissions(key, Permissions::from_mode(0o640)).unwrap();
}

fn refusal(folder: &Path, tls: &Tls) -> String {
    let error = Certificates::read(folder, tls).unwrap_err();
    format!("{error:#}")
}

#[test]
fn a_start_names_the_file_that_it_cannot_use_and_what_to_do() {
    let authority = Authority::new("the school's");
    let (folder, tls) = folder(&authority);
    let place = |name: &str| folder.path().join(name);
    let read = Certificates::read(folder.path(), &tls).unwrap();
    assert!(read.identity.is_some() && read.trust.authorities() == authority.pem);

    let refused = |names: &[&str]| {
        let said = refusal(folder.path(), &tls);
        assert!(names.iter().all(|name| said.contains(name)), "{said}");
        assert!(!said.contains("BEGIN PRIVATE KEY-----\nM"), "{said}");
    };
    fs::set_permissions(place("tls.key"), Permissions::from_mode(0o644)).unwrap();
    refused(&["tls.keyFile: ", "run 'chmod 600 "]);
    let other = authority.certify(&["localhost"]);
    fs::set_permissions(place("tls.key"), Permissions::from_mode(0o600)).unwrap();
    fs::write(place("tls.key"), other.key).unwrap();
    refused(&["tls.keyFile: ", "tls.key: it is not the key", "made anew"]);
    fs::write(place("tls.crt"), "nothing").unwrap();
    refused(&["tls.certFile: ", "tls.crt: it holds no certificate"]);
    fs::remove_file(place("tls.crt")).unwrap();
    refused(&["tls.certFile: ", "tls.crt cannot be read", "put it there"]);

    put(
        folder.path(),
        &authority.certify_until(2020, &["localhost"]),
    );
    refused(&[
        "tls.certFile: ",
        "tls.crt: its certificate expired at 2020-01-01",
    ]);

    put(folder.path(), &authority.certify(&["localhost"]));
    for nobody in ["nothing", ""] {
        fs::write(place("ca.crt"), nobody).unwrap();
        refused(&[
            "tls.caFile: ",
            "ca.crt: it holds no certificate",
            "authority",
        ]);
    }
    fs::write(place("ca.crt"), authority.pem.repeat(200)).unwrap();
    refused(&["tls.caFile: ", "longer than 64 KiB"]);
}

#[test]
fn what_changes_is_taken_once_it_has_settled_and_a_bad_half_keeps_no_good_one_out() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (folder, tls) = folder(&old);
    let read = Certificates::read(folder.path(), &tls).unwrap();
    let mut files = Files::of(folder.path(), &tls);
    assert!(!files.have_changed());
    fs::write(folder.path().join("ca.crt"), &new.pem).unwrap();
    fs::write(folder.path().join("tls.key"), "half of").unwrap();
    let looks = [(); 3].map(|()| files.have_changed());
    assert_eq!(looks, [false, true, false]);
    let said = read.take(&files).unwrap_err().to_string();
    assert!(said.contains("tls.key: it holds no private key"), "{said}");
    assert_eq!(read.trust.authorities(), new.pem);
    put(folder.path(), &new.certify(&["localhost"]));
    let looks = [(); 2].map(|()| files.have_changed());
    assert_eq!(looks, [false, true]);
    read.take(&files).unwrap();

    // Nobody is believed by a file in which nobody stands, and not the machine's instead.
    fs::write(folder.path().join("ca.crt"), "").unwrap();
    let said = read.take(&files).unwrap_err().to_string();
    assert!(said.contains("ca.crt: it holds no certificate"), "{said}");
    assert_eq!(read.trust.authorities(), new.pem);
    let none = Tls {
        ca_file: String::new(),
        ..tls
    };
    let read = Certificates::read(folder.path(), &none).unwrap();
    assert_eq!(read.trust.authorities(), "");
    read.take(&Files::of(folder.path(), &none)).unwrap();
}
