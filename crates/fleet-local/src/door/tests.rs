use carrel_core::{Epoch, LearnerId};
use carrel_protocol::token::Signer;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::*;
use crate::pod::Ground;

/// When all of this happens.
const NOW: Timestamp = Timestamp::constant(1_770_000_000, 0);

fn signer() -> Signer {
    Signer::from_pem(&Signer::generate_pem().unwrap()).unwrap()
}

fn token(signer: &Signer, caller: Caller, now: Timestamp) -> String {
    let ada: LearnerId = "ada".parse().unwrap();
    signer.caller_token(caller, &ada, Epoch(7), now).unwrap()
}

/// A door, served, and the socket of the pod `w-1` behind it.
struct Served {
    port: u16,
    gateway: Signer,
    sidecar: UnixListener,
    _folder: TempDir,
    _serves: JoinSet<()>,
}

impl Served {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("w-1")).unwrap();
        let ground = Arc::new(Ground {
            executable: folder.path().join("carrel"),
            keys_file: folder.path().join("keys.json"),
            pods_dir: folder.path().to_owned(),
            door: None,
            signer: signer(),
            clock: || NOW,
            tracker: TaskTracker::new(),
        });
        let sidecar = UnixListener::bind(ground.socket_of("w-1")).unwrap();
        let gateway = signer();
        let verifier = Verifier::new(&[gateway.public_key().clone()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut serves = JoinSet::new();
        serves.spawn(async move {
            axum::serve(listener, router(ground, verifier))
                .await
                .unwrap();
        });
        Self {
            port,
            gateway,
            sidecar,
            _folder: folder,
            _serves: serves,
        }
    }

    /// Asks to be let in; the status, and the connection.
    async fn ask(&self, pod: &str, token: Option<&str>) -> (u16, TcpStream) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let shown = token.map_or_else(String::new, |token| {
            format!("authorization: Bearer {token}\r\n")
        });
        let request = format!(
            "GET /pods/{pod} HTTP/1.1\r\nhost: fleet\r\nconnection: upgrade\r\nupgrade: {POD_PROTOCOL}\r\n{shown}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, stream)
    }

    /// The same, by a gateway.
    async fn enter(&self) -> (u16, TcpStream) {
        let token = token(&self.gateway, Caller::Gateway, NOW);
        self.ask("w-1", Some(&token)).await
    }
}

#[tokio::test]
async fn a_gateway_is_let_through_to_the_pod_and_nobody_else_comes_as_far_as_its_socket() {
    let door = Served::new().await;
    let late = NOW - SignedDuration::from_mins(10);
    for token in [
        token(&signer(), Caller::Gateway, NOW),
        token(&door.gateway, Caller::Controller, NOW),
        token(&door.gateway, Caller::Gateway, late),
        "nonsense".to_owned(),
    ] {
        assert_eq!(door.ask("w-1", Some(&token)).await.0, 401);
    }
    assert_eq!(door.ask("w-1", None).await.0, 401);
    assert_eq!(
        door.ask("w-2", None).await.0,
        401,
        "which pods there are is not told"
    );
    let own = token(&door.gateway, Caller::Gateway, NOW);
    for nobody in ["w-2", "..", "%2e%2e%2fw-1"] {
        assert_eq!(door.ask(nobody, Some(&own)).await.0, 404, "{nobody}");
    }

    let (status, mut gateway) = door.enter().await;
    assert_eq!(status, 101);
    gateway.write_all(b"hello").await.unwrap();
    // The first that came at all.
    let (mut sidecar, _) = door.sidecar.accept().await.unwrap();
    let mut heard = [0; 5];
    sidecar.read_exact(&mut heard).await.unwrap();
    sidecar.write_all(&heard).await.unwrap();
    gateway.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn one_pod_has_room_for_so_many_connections_and_for_another_when_one_ends() {
    let door = Served::new().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let (status, stream) = door.enter().await;
        assert_eq!(status, 101);
        open.push((stream, door.sidecar.accept().await.unwrap()));
    }
    assert_eq!(door.enter().await.0, 503);
    open.pop();
    carrel_testkit::until("there is room again", || async {
        door.enter().await.0 == 101
    })
    .await;
}
