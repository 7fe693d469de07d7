//! One pod under test, with everything around it.

use carrel_testkit::until;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::{Json, Router};
use carrel_core::class::{Adapter, ClassSpec};
use carrel_core::{Epoch, LearnerId, MessageId, PodUid, TurnId};
use carrel_protocol::Endpoint;
use carrel_protocol::agent::Message;
use carrel_protocol::sidecar::{
    AssignRequest, Assignment, AttachmentData, Frame, Hello, Phase, TurnOrder,
};
use carrel_protocol::token::{Caller, Signer};
use carrel_sidecar::Exit;
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::vault::Vault;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_pod-under-test");
/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) struct Pod {
    pub(crate) folder: TempDir,
    pub(crate) vault: Vault,
    pub(crate) signer: Signer,
    pub(crate) class: ClassSpec,
    pub(crate) uid: PodUid,
    pub(crate) sidecar: Child,
    pub(crate) shim: Child,
    pub(crate) router: Endpoint,
    /// Where the sidecar is asked.
    base: String,
    http: reqwest::Client,
}

/// A sidecar that is to be started.
pub(crate) struct Start {
    pub(crate) command: Command,
    /// Its port; without one it listens at its Unix socket.
    pub(crate) port: Option<u16>,
}

/// A class whose agent does what its messages say.
pub(crate) fn talkative() -> ClassSpec {
    let mut class = ClassSpec::default();
    class.agent.command = vec![PROGRAM.to_owned(), "agent".to_owned()];
    class.idle.min_seconds = 600;
    class
}

/// A class with one process a turn.
pub(crate) fn command(script: &str) -> ClassSpec {
    let mut class = talkative();
    class.agent.adapter = Adapter::Command;
    class.agent.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    class
}

pub(crate) fn now() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).expect("in range")
}

pub(crate) fn learner() -> LearnerId {
    "ada".parse().expect("a label")
}

impl Pod {
    /// A blank pod.
    pub(crate) async fn blank(class: ClassSpec) -> Self {
        Self::blank_beside(class, |socket| {
            let mut shim = Command::new(PROGRAM);
            shim.args(["shim", "--socket", socket]);
            shim
        })
        .await
    }

    /// A blank pod with this shim.
    pub(crate) async fn blank_beside(class: ClassSpec, shim: impl FnOnce(&str) -> Command) -> Self {
        let sidecar = |folder: &Path, uid: PodUid, keys: &str| {
            let path = |name: &str| folder.join(name).display().to_string();
            fs::write(path("keys"), keys).expect("written");
            let mut command = Command::new(PROGRAM);
            command.args(["sidecar", "--pod", &uid.to_string()]);
            command.args(["--listen", &format!("unix:{}", path("s.sock"))]);
            command.args(["--shim-socket", &path("shim.sock")]);
            command.args(["--workspace", &path("w"), "--keys", &path("keys")]);
            command.args(["--parent", &std::process::id().to_string()]);
            Start {
                command,
                port: None,
            }
        };
        Self::start(class, sidecar, |folder| {
            shim(&folder.join("shim.sock").display().to_string())
        })
        .await
    }

    /// A blank pod of this sidecar, told folder, identity and keys, and this shim.
    pub(crate) async fn start(
        class: ClassSpec,
        sidecar: impl FnOnce(&Path, PodUid, &str) -> Start,
        shim: impl FnOnce(&Path) -> Command,
    ) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("w")).expect("made");
        let vault = Vault::listen(folder.path());
        let signer = Signer::from_pem(&Signer::generate_pem().expect("random")).expect("a key");
        let keys = serde_json::to_string(&[signer.public_key()]).expect("JSON");
        let uid = PodUid(Uuid::new_v4());
        let begin = |command: &mut Command| command.stdin(Stdio::null()).spawn().expect("started");
        let mut start = sidecar(folder.path(), uid, &keys);
        let sidecar = begin(&mut start.command);
        let shim = begin(&mut shim(folder.path()));
        let client = reqwest::Client::builder().no_proxy();
        let (base, client) = match start.port {
            Some(port) => (format!("http://127.0.0.1:{port}"), client),
            None => ("http://pod".to_owned(), client.unix_socket(path("s.sock"))),
        };
        let http = client.build().expect("a client");
        let router = listen_as_router().await;
        let pod = Self {
            folder,
            vault,
            signer,
            class,
            uid,
            sidecar,
            shim,
            router,
            base,
            http,
        };
        until("the sidecar listens", || async {
            pod.bare(Method::GET, "/healthz").send().await.is_ok()
        })
        .await;
        pod
    }

    /// A pod that is assigned and ready.
    pub(crate) async fn ready(class: ClassSpec) -> Self {
        Self::ready_from(class, |_| ()).await
    }

    /// The same, after something was prepared.
    pub(crate) async fn ready_from(class: ClassSpec, prepare: impl FnOnce(&Self)) -> Self {
        let pod = Self::blank(class).await;
        prepare(&pod);
        pod.waked().await
    }

    /// The same pod, assigned and ready.
    pub(crate) async fn waked(self) -> Self {
        let pod = self;
        assert_eq!(pod.assign(&pod.assignment(7)).await.status(), 200);
        let hello = pod.hello_when_settled().await;
        assert_eq!(hello.phase, Phase::Ready, "{}", hello.detail);
        pod
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn workspace(&self, name: &str) -> PathBuf {
        self.path("w").join(name)
    }

    pub(crate) fn assignment(&self, epoch: u64) -> Assignment {
        let token = self
            .signer
            .learner_token(&learner(), Epoch(epoch), self.uid, now())
            .expect("signed");
        Assignment {
            learner: learner(),
            epoch: Epoch(epoch),
            pod: self.uid,
            token,
            vault: Endpoint::Unix(self.path("vault.sock")),
            authorities: String::new(),
            router: self.router.clone(),
            egress: None,
            callers: vec![self.signer.public_key().clone()],
            class: self.class.clone(),
            time_zone: "Europe/Berlin".to_owned(),
            locale: "de_DE.UTF-8".to_owned(),
        }
    }

    pub(crate) async fn assign(&self, assignment: &Assignment) -> Response {
        let signed = self.signer.assignment(assignment, now()).expect("signed");
        self.assign_signed(signed).await
    }

    pub(crate) async fn assign_signed(&self, assignment: String) -> Response {
        let request = self
            .http
            .post(format!("{}/v1/assign", self.base))
            .json(&AssignRequest { assignment });
        request.send().await.expect("an answer")
    }

    /// A call without a token.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .timeout(LONG)
    }

    /// A call by the gateway.
    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let token = self
            .signer
            .caller_token(Caller::Gateway, &learner(), Epoch(7), now())
            .expect("signed");
        self.bare(method, path).bearer_auth(token)
    }

    pub(crate) async fn hello(&self) -> Hello {
        let answer = self
            .call(Method::GET, "/v1/hello")
            .send()
            .await
            .expect("an answer");
        answer.json().await.expect("a hello")
    }

    pub(crate) async fn hello_when_settled(&self) -> Hello {
        let answer = self
            .call(Method::GET, "/v1/ready")
            .send()
            .await
            .expect("an answer");
        answer.json().await.expect("a hello")
    }

    pub(crate) async fn order(&self, order: &TurnOrder) -> Response {
        self.call(Method::POST, "/v1/turns")
            .json(order)
            .send()
            .await
            .expect("an answer")
    }

    /// Runs a turn to its end.
    pub(crate) async fn turn(&self, text: &str) -> Vec<Frame> {
        frames(self.order(&turn_order(text)).await).await
    }

    /// The text that a turn committed.
    pub(crate) async fn said(&self, text: &str) -> String {
        let frames = self.turn(text).await;
        match frames.last() {
            Some(Frame::Committed { reply, .. }) => reply.text.clone(),
            other => panic!("not committed: {other:?}"),
        }
    }

    pub(crate) async fn exit(&mut self) -> Exit {
        let code = wait(&mut self.sidecar).await.code();
        code.and_then(Exit::from_code)
            .unwrap_or_else(|| panic!("the sidecar ended with {code:?}"))
    }
}

/// Says that a test is skipped because this machine lacks `what`. It fails where `CARREL_REQUIRE`, a list with commas, has it.
pub(crate) fn skip(test: &str, what: &str, reason: &str) {
    let required = std::env::var("CARREL_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|word| word.trim() == what),
        "{what} is required and absent: {reason}"
    );
    println!("SKIP {test}: {reason}");
}

/// Ends the sidecar, and gives its shim the time to end all the rest.
impl Drop for Pod {
    fn drop(&mut self) {
        // Either may have ended.
        let _ = self.sidecar.start_kill();
        if let Some(shim) = self.shim.id() {
            carrel_testkit::ends(shim, Duration::from_secs(5));
        }
        let _ = self.shim.start_kill();
    }
}

pub(crate) async fn wait(child: &mut Child) -> ExitStatus {
    let ended = tokio::time::timeout(LONG, child.wait()).await;
    ended
        .expect("it ends in time")
        .expect("it can be waited for")
}

pub(crate) fn kill(child: &Child, signal: rustix::process::Signal) {
    kill_pid(
        i32::try_from(child.id().expect("it runs")).expect("a pid"),
        signal,
    );
}

pub(crate) fn kill_pid(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("sent");
}

pub(crate) fn runs(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

pub(crate) fn turn_order(text: &str) -> TurnOrder {
    let message = Message {
        message_id: MessageId(Uuid::new_v4()),
        text: text.to_owned(),
        attachments: Vec::new(),
        sent_time: Timestamp::UNIX_EPOCH,
    };
    TurnOrder {
        turn_id: TurnId(Uuid::new_v4()),
        attempt: 1,
        message,
        attachments: Vec::new(),
        context: Vec::new(),
        restore_ms: 7,
    }
}

pub(crate) fn attachment(name: &str, data: &str) -> AttachmentData {
    AttachmentData {
        name: name.to_owned(),
        media_type: "text/plain".to_owned(),
        data: data.to_owned(),
    }
}

/// All frames of an answer; text as it came.
pub(crate) async fn frames(answer: Response) -> Vec<Frame> {
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.expect("a whole answer");
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).expect("a frame"))
        .collect()
}

pub(crate) fn text_of(frames: &[Frame]) -> String {
    frames
        .iter()
        .filter_map(|frame| {
            if let Frame::Text { text } = frame {
                Some(text.as_str())
            } else {
                None
            }
        })
        .collect()
}

/// A router that answers with what it was asked.
async fn listen_as_router() -> Endpoint {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = |headers: HeaderMap, request: axum::extract::Request| async move {
        let seen = |name: &str| {
            headers
                .get(name)
                .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
        };
        Json(json!({
            "path": request.uri().to_string(),
            "authorization": seen("authorization"),
            "x-api-key": seen("x-api-key"),
            "host": seen("host"),
        }))
    };
    let app = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Endpoint::Url(format!("http://{address}"))
}
