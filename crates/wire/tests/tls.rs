//! Two ends of a connection, with certificates of an authority made for the test.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::time::Duration;

use carrel_protocol::Endpoint;
use carrel_testkit::certificates::{Authority, Certified};
use carrel_testkit::until;
use carrel_wire::{Error, Identity, Incoming, Stream, Trust, connect};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Nothing here takes so long.
const SOON: Duration = Duration::from_secs(5);

/// A role that says back what it hears.
struct Echo {
    port: u16,
    _serves: JoinSet<()>,
}

impl Echo {
    async fn start(identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut incoming = Incoming::new(listener, identity);
        let mut serves = JoinSet::new();
        serves.spawn(async move {
            let mut heard = JoinSet::new();
            loop {
                let (mut from, mut to) = tokio::io::split(incoming.next().await.stream);
                heard.spawn(async move { drop(tokio::io::copy(&mut from, &mut to).await) });
            }
        });
        Self {
            port,
            _serves: serves,
        }
    }

    fn at(&self, host: &str) -> Endpoint {
        format!("https://{host}:{}", self.port).parse().unwrap()
    }
}

async fn says_back(stream: &mut Stream) -> bool {
    let mut heard = [0; 5];
    let exchange = async {
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        stream.read_exact(&mut heard).await
    };
    let exchanged = tokio::time::timeout(SOON, exchange).await.unwrap();
    exchanged.is_ok() && heard == *b"hello"
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-04-01T00:00:00Z")
}

fn identity(of: &Certified) -> Identity {
    Identity::new(&of.chain, &of.key, now()).unwrap()
}

/// What the other end's certificate is refused for, as the error reads.
async fn refusal(endpoint: &Endpoint, trust: &Trust) -> String {
    match connect(endpoint, trust).await {
        Ok(_) => "it is believed".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_role_is_believed_by_those_who_trust_its_authority_and_under_its_name() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let echo = Echo::start(Some(identity(&ours.certify(&["127.0.0.1"])))).await;
    let trust = Trust::new(&ours.pem).unwrap();
    let mut stream = connect(&echo.at("127.0.0.1"), &trust).await.unwrap();
    assert!(says_back(&mut stream).await);
    let wrong_name = refusal(&echo.at("localhost"), &trust).await;
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    for stranger in [Trust::new(&others.pem).unwrap(), Trust::default()] {
        let unknown = refusal(&echo.at("127.0.0.1"), &stranger).await;
        assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    }
}

#[tokio::test]
async fn who_speaks_without_tls_is_not_heard() {
    let ours = Authority::new("ours");
    let echo = Echo::start(Some(identity(&ours.certify(&["127.0.0.1"])))).await;
    let plain = format!("http://127.0.0.1:{}", echo.port).parse().unwrap();
    let mut stream = connect(&plain, &Trust::default()).await.unwrap();
    assert!(!says_back(&mut stream).await);
    // And who speaks with it to one that has none finds nobody who could prove anything.
    let open = Echo::start(None).await;
    let trust = Trust::new(&ours.pem).unwrap();
    let refused = refusal(&open.at("127.0.0.1"), &trust).await;
    assert_ne!(refused, "it is believed");
}

#[tokio::test]
async fn a_newer_certificate_counts_for_the_next_connection_and_cuts_none() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let shown = identity(&old.certify(&["127.0.0.1"]));
    let echo = Echo::start(Some(shown.clone())).await;
    let place = echo.at("127.0.0.1");
    let trust = Trust::new(&old.pem).unwrap();
    let mut before = connect(&place, &trust).await.unwrap();
    assert!(says_back(&mut before).await);

    let newer = new.certify(&["127.0.0.1"]);
    shown.replace(&newer.chain, &newer.key, now()).unwrap();
    let unknown = refusal(&place, &trust).await;
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    trust.replace(&new.pem).unwrap();
    let mut after = connect(&place, &trust).await.unwrap();
    assert!(says_back(&mut after).await);
    assert!(says_back(&mut before).await, "it goes on");

    // What is bad changes nothing.
    let bad = Err(Error::NotItsKey);
    let other = old.certify(&["x"]).key;
    assert_eq!(shown.replace(&newer.chain, &other, now()), bad);
    let over = new.certify_until(2020, &["127.0.0.1"]);
    let expired = Err(Error::Expired(at("2020-01-01T00:00:00Z")));
    assert_eq!(shown.replace(&over.chain, &over.key, now()), expired);
    for nobody in ["-", ""] {
        assert_eq!(trust.replace(nobody), Err(Error::NoCertificate));
    }
    assert_eq!(trust.authorities(), new.pem);
    let mut stream = connect(&place, &trust).await.unwrap();
    assert!(says_back(&mut stream).await);
}

#[tokio::test]
async fn who_does_not_greet_keeps_nobody_waiting() {
    let ours = Authority::new("ours");
    let echo = Echo::start(Some(identity(&ours.certify(&["127.0.0.1"])))).await;
    let silent = TcpStream::connect(("127.0.0.1", echo.port)).await.unwrap();
    let trust = Trust::new(&ours.pem).unwrap();
    let mut stream = connect(&echo.at("127.0.0.1"), &trust).await.unwrap();
    assert!(says_back(&mut stream).await);
    drop(silent);
}

/// The timers of connections between this port and any other, as the kernel shows them (proc(5), `/proc/net/tcp`: `tr tm->when`).
fn timers(port: u16) -> Vec<(u8, u64)> {
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_connection = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields[1].ends_with(&port) || fields[2].ends_with(&port);
        let (timer, when) = fields[5].split_once(':')?;
        let established = is_ours && fields[3] == "01";
        established.then(|| {
            (
                timer.parse().unwrap(),
                u64::from_str_radix(when, 16).unwrap(),
            )
        })
    };
    table.lines().skip(1).filter_map(of_connection).collect()
}

#[tokio::test]
async fn both_ends_ask_whether_the_other_is_there_when_nothing_comes() {
    const KEEPALIVE: u8 = 2;
    const LATEST: u64 = 15 * 100;
    let echo = Echo::start(None).await;
    let place = format!("http://127.0.0.1:{}", echo.port).parse().unwrap();
    let mut stream = connect(&place, &Trust::default()).await.unwrap();
    assert!(says_back(&mut stream).await);
    let asks = |timers: &[(u8, u64)]| {
        let asks = |(timer, when): &(u8, u64)| *timer == KEEPALIVE && *when <= LATEST;
        timers.len() == 2 && timers.iter().all(asks)
    };
    // Until the last word is acknowledged, the timer is that of sending it again.
    until("both ask", || async { asks(&timers(echo.port)) }).await;
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let ours = Authority::new("ours");
    let (one, other) = (ours.certify(&["one"]), ours.certify(&["other"]));
    let wrong = |chain: &str, key: &str| Identity::new(chain, key, now()).unwrap_err();
    assert_eq!(wrong("", &one.key), Error::NoCertificate);
    assert_eq!(wrong(&one.key, &one.key), Error::NoCertificate);
    assert_eq!(wrong(&one.chain, ""), Error::NoKey);
    assert_eq!(wrong(&one.chain, &one.chain), Error::NoKey);
    assert_eq!(wrong(&one.chain, &other.key), Error::NotItsKey);
    let broken = one.chain.replace("MII", "AAA");
    let error = wrong(&broken, &one.key);
    assert!(matches!(error, Error::BadCertificate(_)), "{error:?}");
    assert!(!error.is_of_the_key() && Error::NotItsKey.is_of_the_key());
    let in_force_at = |time| Identity::new(&one.chain, &one.key, at(time)).err();
    let too_late = Error::Expired(at("4096-01-01T00:00:00Z"));
    assert_eq!(in_force_at("4096-01-01T00:00:01Z"), Some(too_late));
    let too_early = Error::NotYetValid(at("1975-01-01T00:00:00Z"));
    assert_eq!(in_force_at("1974-12-31T23:59:59Z"), Some(too_early));
    assert_eq!(in_force_at("1975-01-01T00:00:00Z"), None);
    for nobody in ["none", ""] {
        assert_eq!(Trust::new(nobody).unwrap_err(), Error::NoCertificate);
    }
    let cut = &ours.pem[..ours.pem.len() / 2];
    let error = Trust::new(cut).unwrap_err();
    assert!(matches!(error, Error::BadCertificate(_)), "{error:?}");
    let error = Trust::new(&ours.pem.replace("MII", "AAA")).unwrap_err();
    assert!(matches!(error, Error::BadCertificate(_)), "{error:?}");
}
