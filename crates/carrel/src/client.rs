//! The admin API as the operator's commands call it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use carrel_protocol::{Code, Problem};
use carrel_wire::Trust;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli;
use crate::cluster::{Cluster, Reached, Tunnel};
use crate::exit::{Failure, Kind};
use crate::place::Place;
use crate::run_file::RunFile;

/// A server that says nothing for so long is given up; what it may have to read is large.
const SILENT_FOR: Duration = Duration::from_mins(5);

/// A server and the right to command it.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
    router: Router,
    /// What is known of a server that does not answer.
    ended: String,
    /// The way to it, where it has no address here.
    #[expect(dead_code, reason = "it is open while somebody holds it")]
    tunnel: Option<Tunnel>,
}

/// Where the router of the same installation is.
enum Router {
    /// Its address.
    Here(String),
    InCluster(Box<Cluster>),
    /// Only the gateway's address was named.
    Unknown,
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(SILENT_FOR)
        .user_agent(concat!("carrel/", env!("CARGO_PKG_VERSION")))
}

impl Client {
    /// The server that is meant.
    pub(crate) async fn find(flags: &cli::Client) -> anyhow::Result<Self> {
        match Place::of(flags).await? {
            Place::Named { server, token_file } => Self::named(&server, token_file.as_deref()),
            Place::Here(run) => Self::here(run, flags),
            Place::Cluster(cluster) => Self::behind(cluster.gateway().await?, Some(cluster)),
        }
    }

    /// The gateway of a release.
    pub(crate) async fn behind_gateway(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::behind(cluster.gateway().await?, None)
    }

    /// The router of a release.
    pub(crate) async fn behind_router(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::behind(cluster.router().await?, None)
    }

    /// The health paths of a pod, which take no token.
    pub(crate) async fn behind_health(cluster: &Cluster, pod: &str) -> anyhow::Result<Self> {
        Self::behind(cluster.health(pod).await?, None)
    }

    fn named(server: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let file = token_file.ok_or_else(|| {
            Failure::new(
                Kind::Usage,
                "with --server, name the admin token's file by --token-file",
            )
        })?;
        if !server.starts_with("http://") && !server.starts_with("https://") {
            let message = format!("--server takes a URL, as in http://{server}");
            return Err(Failure::new(Kind::Usage, message).into());
        }
        Ok(Self {
            http: builder().build()?,
            base: server.trim_end_matches('/').to_owned(),
            token: read_token(file)?,
            router: Router::Unknown,
            ended: String::new(),
            tunnel: None,
        })
    }

    fn here(run: RunFile, flags: &cli::Client) -> anyhow::Result<Self> {
        let file = flags
            .place
            .token_file
            .clone()
            .unwrap_or_else(|| PathBuf::from(&run.admin_token_file));
        let token = read_token(&file)?;
        let ended = if run.is_of_a_process() {
            String::new()
        } else {
            let (pid, up) = (run.pid, flags.command("up"));
            format!("; the server that ran there (pid {pid}) has ended: start it again with '{up}'")
        };
        Ok(Self {
            ended,
            // On this machine; a proxy would be shown the token.
            http: builder().no_proxy().build()?,
            base: run.gateway_url,
            token,
            router: Router::Here(run.model_url),
            tunnel: None,
        })
    }

    /// What is reached through a cluster's API server.
    fn behind(reached: Reached, cluster: Option<Box<Cluster>>) -> anyhow::Result<Self> {
        let Reached {
            tunnel,
            token,
            name,
        } = reached;
        Ok(Self {
            http: builder().unix_socket(tunnel.path()).build()?,
            base: format!("http://{name}"),
            token,
            router: cluster.map_or(Router::Unknown, Router::InCluster),
            ended: String::new(),
            tunnel: Some(tunnel),
        })
    }

    /// The same server, believed to be who it is on the word of these.
    pub(crate) fn trusting(self, trust: &Trust) -> anyhow::Result<Self> {
        let http = builder().tls_backend_preconfigured((*trust.config()).clone());
        let http = match &self.router {
            Router::Here(_) => http.no_proxy(),
            Router::InCluster(_) | Router::Unknown => http,
        };
        Ok(Self {
            http: http.build()?,
            ..self
        })
    }

    /// The model router of the same server, with the same right.
    pub(crate) async fn of_router(self) -> anyhow::Result<Self> {
        match self.router {
            Router::Here(base) => Ok(Self {
                base,
                router: Router::Unknown,
                ..self
            }),
            Router::InCluster(cluster) => Self::behind(cluster.router().await?, None),
            Router::Unknown => {
                let message = "only a server on this machine or a cluster says where its router is: leave out --server";
                Err(Failure::new(Kind::Usage, message).into())
            }
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.read(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.read(self.request(Method::POST, path).json(body)).await
    }

    /// A call whose answer has no body that counts.
    pub(crate) async fn order(&self, method: Method, path: &str) -> anyhow::Result<()> {
        self.answer(self.request(method, path)).await.map(|_| ())
    }

    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.read(self.request(Method::PATCH, path).json(body))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &impl Serialize) -> anyhow::Result<()> {
        self.answer(self.request(Method::PUT, path).json(body))
            .await
            .map(|_| ())
    }

    /// A request whose answer the caller reads, as a stream for instance.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    pub(crate) async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| {
            let (base, why, ended) = (&self.base, root_cause(&error), &self.ended);
            let message = format!("{base} does not answer: {why}{ended}");
            Failure::new(Kind::Away, message)
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap_or_default();
        let failure = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Failure::new(kind_of(problem.code), problem.to_string()),
            Err(_) => Failure::new(Kind::Failed, foreign(status, &body)),
        };
        Err(failure.into())
    }

    /// What a path says, whatever its status is.
    pub(crate) async fn said(&self, path: &str) -> anyhow::Result<String> {
        let request = self.request(Method::GET, path);
        let response = request.timeout(Duration::from_secs(5)).send().await?;
        Ok(response.text().await?)
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let bytes = self
            .answer(request)
            .await?
            .bytes()
            .await
            .context("reading the answer")?;
        serde_json::from_slice(&bytes).context("the server's answer cannot be understood")
    }
}

/// What an answer that is no problem document says: the router's errors have the shape of the dialect that was asked in.
fn foreign(status: u16, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = body
        .pointer("/error/message")
        .and_then(|said| said.as_str());
    message.map_or_else(
        || format!("the server answered with status {status}"),
        str::to_owned,
    )
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Kind::NotAllowed,
            format!("{} cannot be read: {error}", path.display()),
        )
    })?;
    Ok(text.trim().to_owned())
}

/// Why a call got no answer, in few words.
pub(crate) fn reason_of(error: &anyhow::Error) -> String {
    error.root_cause().to_string()
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn kind_of(code: Code) -> Kind {
    match code {
        Code::InvalidBody | Code::InvalidRequest | Code::BodyTooLarge | Code::MethodNotAllowed => {
            Kind::Usage
        }
        Code::Unauthenticated | Code::Forbidden => Kind::NotAllowed,
        Code::NotFound => Kind::NotFound,
        Code::Conflict
        | Code::IdempotencyKeyReused
        | Code::StaleEpoch
        | Code::HeadMoved
        | Code::TurnNotRunning
        | Code::Draining => Kind::Conflict,
        Code::RequestTimeout => Kind::TimedOut,
        Code::QueueFull
        | Code::RateLimited
        | Code::SnapshotUnreadable
        | Code::AgentUnavailable
        | Code::Misdirected
        | Code::Internal => Kind::Failed,
        Code::Unavailable => Kind::Away,
    }
}
