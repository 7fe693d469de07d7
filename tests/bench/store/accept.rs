//! How fast one gateway takes messages: they are due at a steady pace, whether earlier ones were answered or not, and each is
//! timed from when it was due.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use carrel_tests::figures::{Figures, shown};
use futures::future::try_join_all;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::school;
use crate::percentile;

/// Messages a second: a little more than the bar, so that a last one that is late does not miss it.
const RATE: u32 = 2_100;
const BAR: f64 = 2_000.0;
const SECONDS: u32 = 20;
/// Not counted: connections are made, statements prepared, the first turn of each learner is claimed and asks for a pod.
const WARM_UP_SECONDS: u32 = 5;
const CONNECTIONS: u32 = 128;
/// Who sends, in turn; without a fleet none of them wakes, and their messages queue.
const SENDERS: u32 = 250;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let roles = school("accept")?;
    let gateway = roles.start("gateway").await?;
    let api = roles.api(&gateway)?;
    let mut tokens = Vec::new();
    for number in 0..SENDERS {
        let path = format!("learners/l{number}/tokens");
        let token = api.admin(Method::POST, &path, None).await?;
        tokens.push(token["token"].as_str().context("a token")?.to_owned());
    }
    let address = gateway.text("url").trim_start_matches("http://");
    let connections = (0..CONNECTIONS).map(|_| Connection::open(address));
    let mut connections = try_join_all(connections).await?;

    run(&mut connections, &tokens, "warm", WARM_UP_SECONDS).await?;
    let began = Instant::now();
    let mut took = run(&mut connections, &tokens, "due", SECONDS).await?;
    let rate = f64::from(RATE * SECONDS) / began.elapsed().as_secs_f64();
    let kept = roles
        .server
        .psql(&roles.database, "SELECT count(*) FROM turn");
    ensure!(
        kept.trim() == (RATE * (SECONDS + WARM_UP_SECONDS)).to_string(),
        "{} turns are there",
        kept.trim()
    );
    let (p50, p99) = (percentile(&mut took, 0.5)?, percentile(&mut took, 0.99)?);
    figures.held(
        "messages accepted, durable, one gateway on PostgreSQL, 20 s; p50 / p99 from when each was due",
        &format!("{rate:.0} /s; {} / {} ms", shown(p50), shown(p99)),
        "≥ 2,000 /s; p99 ≤ 50 ms",
        rate >= BAR && p99 <= 50.0,
    );
    Ok(())
}

/// Sends for so long; how long each message took, in milliseconds.
async fn run(
    connections: &mut [Connection],
    tokens: &[String],
    name: &str,
    seconds: u32,
) -> anyhow::Result<Vec<f64>> {
    let start = Instant::now() + Duration::from_millis(50);
    let all = RATE * seconds;
    let sending = connections
        .iter_mut()
        .zip(0_u32..)
        .map(|(connection, first)| async move {
            let mut took = Vec::new();
            for number in (first..all).step_by(CONNECTIONS as usize) {
                let due = start + Duration::from_secs(1) * number / RATE;
                sleep_until(due).await;
                let sender = (number % SENDERS) as usize;
                let key = format!("{name}-{number}");
                connection.send(sender, &tokens[sender], &key).await?;
                took.push(due.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(took)
        });
    Ok(try_join_all(sending).await?.concat())
}

/// A connection that is kept open, and costs the machine little beside what is measured (HTTP/1.1, RFC 9112).
struct Connection {
    address: String,
    stream: TcpStream,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            address: address.to_owned(),
            stream,
        })
    }

    /// A message that must be accepted.
    async fn send(&mut self, sender: usize, token: &str, key: &str) -> anyhow::Result<()> {
        let body = r#"{"text":"What is the distance from the earth to the moon?"}"#;
        let request = format!(
            "POST /v1/learners/l{sender}/messages HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             idempotency-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            let read = self.stream.read_buf(&mut answer).await?;
            ensure!(read > 0, "the gateway closed the connection");
        }
        ensure!(
            answer.starts_with(b"HTTP/1.1 202 "),
            "not accepted: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    }
}

/// Whether headers and as much content as they say are there.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((headers, content)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = headers
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.trim().parse().ok()) == Some(content.len())
}
