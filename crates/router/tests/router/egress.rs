//! The egress port: whom it lets out, and where to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use carrel_core::Epoch;
use carrel_core::class::{ClassSpec, Egress};
use carrel_store::Learners as _;
use carrel_store::learners::NewLearner;
use carrel_testkit::until;
use carrel_wire::Incoming;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::stage::{Stage, learner, now, options};

struct Port {
    stage: Stage,
    address: SocketAddr,
    _end: DropGuard,
}

/// A router with an egress port, and ada, whose class allows these.
async fn port(allow: &[&str]) -> Port {
    let stage = Stage::set(options("http://127.0.0.1:9")).await;
    let class: carrel_core::ClassName = "of-ada".parse().unwrap();
    let spec = ClassSpec {
        egress: Egress {
            allow: allow.iter().map(|entry| (*entry).to_owned()).collect(),
        },
        ..ClassSpec::default()
    };
    stage.store.put_class(&class, &spec).await.unwrap();
    let new = NewLearner {
        id: learner("ada"),
        class,
        aliases: Vec::new(),
    };
    stage.store.create_learner(&new, now()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    let incoming = Incoming::new(listener, None);
    TaskTracker::new().spawn(stage.service.clone().run_egress(incoming, end.clone()));
    Port {
        stage,
        address,
        _end: end.drop_guard(),
    }
}

impl Port {
    /// Asks for a way out; the connection, and the head of the answer.
    async fn connect(&self, to: &str, token: Option<&str>) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let bearer = token.map(|token| format!("proxy-authorization: Bearer {token}\r\n"));
        let bearer = bearer.unwrap_or_default();
        let request = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n{bearer}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap())
    }

    async fn status(&self, to: &str, token: Option<&str>) -> String {
        let (_, head) = self.connect(to, token).await;
        head.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    fn metrics(&self) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.stage.metrics.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        text
    }
}

/// This machine's own address that is not its loopback's, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: only the way is looked for.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn who_has_no_current_token_is_let_out_nowhere() {
    let port = port(&["example.invalid"]).await;
    let to = "example.invalid:443";
    assert_eq!(port.status(to, None).await, "407");
    assert_eq!(port.status(to, Some("eyJ.no.token")).await, "407");
    let bob = port.stage.token("bob", Epoch(1));
    assert_eq!(port.status(to, Some(&bob)).await, "407", "nobody knows bob");
    let newer = port.stage.token("ada", Epoch(8));
    assert_eq!(port.status(to, Some(&newer)).await, "502", "it is let out");
    let older = port.stage.token("ada", Epoch(7));
    assert_eq!(port.status(to, Some(&older)).await, "409");
    let metrics = port.metrics();
    for count in [
        "egress_connections_total{result=\"unauthenticated\"} 3",
        "egress_connections_total{result=\"unreachable\"} 1",
        "egress_connections_total{result=\"stale_epoch\"} 1",
    ] {
        assert!(metrics.contains(count), "{count}: {metrics}");
    }
}

#[tokio::test]
async fn only_hosts_of_the_class_are_reached_and_none_of_ours() {
    let secret = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = secret.local_addr().unwrap().port();
    let port = port(&["localhost", "127.0.0.0/8", "169.254.0.0/16"]).await;
    let ada = port.stage.token("ada", Epoch(1));
    for to in [
        "example.org:443".to_owned(),
        format!("localhost:{at}"),
        format!("127.0.0.1:{at}"),
        format!("[::ffff:127.0.0.1]:{at}"),
        "169.254.169.254:80".to_owned(),
    ] {
        assert_eq!(port.status(&to, Some(&ada)).await, "403", "{to}");
    }
}

#[tokio::test]
async fn what_is_no_connect_is_refused() {
    let port = port(&[]).await;
    let answer = reqwest::get(format!("http://{}/v1/models", port.address)).await;
    assert_eq!(answer.unwrap().status(), 405);
}

#[tokio::test]
async fn an_allowed_host_is_reached_and_what_goes_through_is_counted() {
    let Some(own) = own_address() else {
        println!("SKIP an_allowed_host_is_reached: this machine has no address but loopback's");
        return;
    };
    let host = TcpListener::bind((own, 0)).await.unwrap();
    let to = host.local_addr().unwrap().to_string();
    let port = port(&[&own.to_string()]).await;
    let ada = port.stage.token("ada", Epoch(1));
    let (mut stream, head) = port.connect(&to, Some(&ada)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (mut there, _) = host.accept().await.unwrap();
    stream.write_all(b"asked").await.unwrap();
    let mut asked = [0; 5];
    there.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"asked");
    there.write_all(b"answered").await.unwrap();
    drop(there);
    let mut answered = String::new();
    stream.read_to_string(&mut answered).await.unwrap();
    assert_eq!(answered, "answered");
    drop(stream);
    until("it is counted", || async {
        let metrics = port.metrics();
        metrics.contains("egress_bytes_total{kind=\"sent\"} 5")
            && metrics.contains("egress_bytes_total{kind=\"received\"} 8")
    })
    .await;
}

#[tokio::test]
async fn one_learner_has_so_many_ways_out_and_no_more() {
    let Some(own) = own_address() else {
        println!("SKIP one_learner_has_so_many: this machine has no address but loopback's");
        return;
    };
    let host = TcpListener::bind((own, 0)).await.unwrap();
    let to = host.local_addr().unwrap().to_string();
    // Ends what its client has ended.
    let tasks = TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((mut stream, _)) = host.accept().await {
            tasks.spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    let port = port(&[&own.to_string()]).await;
    let ada = port.stage.token("ada", Epoch(1));
    let mut open = Vec::new();
    for _ in 0..64 {
        let (stream, head) = port.connect(&to, Some(&ada)).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        open.push(stream);
    }
    assert_eq!(port.status(&to, Some(&ada)).await, "429");
    open.truncate(63);
    let free = until("a place is free", || async {
        port.status(&to, Some(&ada)).await == "200"
    });
    tokio::time::timeout(Duration::from_secs(20), free)
        .await
        .unwrap();
}
