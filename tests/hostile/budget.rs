//! Two learners at their budgets' edge, from 50 connections of their agents, through the router to a provider that uses
//! all that it is allowed.

use anyhow::{Context as _, ensure};
use carrel_testkit::provider::{
    Provider, Recorded, Scene, Used, anthropic_stream, anthropic_whole,
};
use carrel_tests::{Setup, Up, agent};
use reqwest::Method;
use serde_json::{Value, json};

use crate::shell;

const PROVIDER_KEY: &str = "the-providers-own-key";
/// Nano-USD.
const BUDGETS: [(&str, u64); 2] = [("ada", 31_000_000), ("bob", 47_000_000)];
/// Nano-USD for a token, of input and of output.
const PRICE: (u64, u64) = (10, 1000);
const INPUT: u64 = 24;

fn greedy(recorded: &Recorded) -> Option<Scene> {
    let used = Used {
        input: INPUT,
        output: recorded.body["max_tokens"].as_u64()?,
    };
    Some(if recorded.body["stream"] == true {
        Scene::events(anthropic_stream("ok", used)).in_pieces_of(99)
    } else {
        Scene::json(200, &anthropic_whole("ok", used))
    })
}

/// 25 processes, each with three calls on connections of its own; prints each answer's status, and one refusal whole.
const CALLS: &str = r#"perl -MSocket -e '
    $SIG{PIPE} = "IGNORE";
    my ($port) = $ENV{ANTHROPIC_BASE_URL} =~ /:(\d+)/;
    for my $child (1 .. 25) {
        next if fork;
        for my $round (1 .. 3) {
            my $stream = ($child + $round) % 2 ? "true" : "false";
            my $body = qq({"model":"default","max_tokens":4000,"stream":$stream,"messages":[{"role":"user","content":"Hello"}]});
            socket(my $socket, PF_INET, SOCK_STREAM, 0) or die;
            connect($socket, pack_sockaddr_in($port, INADDR_LOOPBACK)) or die "connect: $!";
            syswrite($socket, "POST /v1/messages HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
            my $answer = join "", <$socket>;
            my ($status) = $answer =~ m{^HTTP/1.1 (\d+)};
            syswrite(STDOUT, "STATUS $status\n");
            if ($status == 429 && !-e "refused") { open(my $f, ">", "refused"); print $f $answer }
        }
        exit;
    }
    1 while wait > 0;
'; cat refused"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_learners_at_their_budgets_edge_from_fifty_connections_are_never_over()
-> anyhow::Result<()> {
    let provider = Provider::answering(greedy).await?;
    let files = tempfile::tempdir()?;
    let (key, prices) = (files.path().join("key"), files.path().join("prices.json"));
    std::fs::write(&key, PROVIDER_KEY)?;
    let price = json!({"input": PRICE.0, "output": PRICE.1});
    let table = json!({"version": "test", "source": "test", "models": {"priced/parrot": price}});
    std::fs::write(&prices, table.to_string())?;
    let mut documents = Vec::new();
    for (name, nano) in BUDGETS {
        #[expect(clippy::cast_precision_loss, reason = "a few digits")]
        let usd = format!("{:.3}", nano as f64 / 1e9);
        let more = json!({"budget": {"perDayUsd": usd, "onExhausted": "Refuse"}});
        documents.extend([shell::class(name, &more), agent::learner(name, name)]);
    }
    let settings = json!({
        "providers": [{"name": "priced", "dialect": "Anthropic", "baseUrl": provider.url(), "keys": [key]}],
        "routes": {"default": [{"model": "priced/parrot"}]},
        "prices": {"overlayFile": prices},
    });
    let setup = Setup {
        documents,
        settings: Some(settings),
        ..Setup::default()
    };
    let Some(up) = Up::start("two_learners_at_their_budgets_edge", setup).await? else {
        return Ok(());
    };
    let (ada, bob) = tokio::join!(up.api.reply("ada", CALLS), up.api.reply("bob", CALLS));
    let usage = up.api.admin(Method::GET, "usage?by=learner", None).await?;
    let mut charged = 0;
    for ((name, budget), said) in BUDGETS.into_iter().zip([ada?, bob?]) {
        let count = |status: &str| said.lines().filter(|line| *line == status).count();
        let (answered, refused) = (count("STATUS 200"), count("STATUS 429"));
        ensure!(
            answered + refused == 75,
            "{name}: {answered} answered, {refused} refused: {said}"
        );
        ensure!(
            answered > 2 && refused > 10,
            "{name}: {answered} answered, {refused} refused"
        );
        let rows = usage["rows"].as_array().context("rows")?;
        let row = rows
            .iter()
            .find(|row| row["key"] == name)
            .context("a row for each")?;
        let cost = row["cost_nano_usd"].as_u64().context("a cost")?;
        ensure!(cost <= budget, "{name} spent {cost} of {budget}");
        ensure!(cost > budget / 2, "{name} spent {cost} of {budget} only");
        ensure!(row["calls"] == answered, "{row}");
        charged += cost;
        has_the_shape(&said)?;
        ensure!(
            !said.contains(PROVIDER_KEY),
            "the provider's key came down: {said}"
        );
    }
    let recorded = provider.recorded();
    let tokens = |call: &Recorded| call.body["max_tokens"].as_u64().unwrap_or_default();
    let billed: u64 = recorded
        .iter()
        .map(|call| INPUT * PRICE.0 + tokens(call) * PRICE.1)
        .sum();
    ensure!(
        billed == charged,
        "the provider bills {billed}, {charged} was charged"
    );
    for call in &recorded {
        ensure!(call.everything().contains(PROVIDER_KEY), "{call:?}");
        ensure!(
            !call.everything().contains("eyJ"),
            "a learner's token went up: {call:?}"
        );
    }
    Ok(())
}

/// The block that Anthropic's clients stop at and show.
fn has_the_shape(said: &str) -> anyhow::Result<()> {
    let refused = said
        .split("HTTP/1.1 429")
        .nth(1)
        .context("a refusal")?
        .to_owned();
    let (head, body) = refused.split_once("\r\n\r\n").context("a body")?;
    let head = head.to_ascii_lowercase();
    for line in [
        "x-should-retry: false",
        "anthropic-ratelimit-unified-status: rejected",
        "anthropic-ratelimit-unified-overage-period: daily",
        "anthropic-ratelimit-unified-overage-utilization: 1",
        "anthropic-ratelimit-unified-overage-surpassed-threshold: 1",
        "anthropic-ratelimit-unified-overage-disabled-reason: org_spend_cap_reached",
        "anthropic-ratelimit-unified-reset: ",
        "anthropic-ratelimit-unified-overage-reset: ",
    ] {
        ensure!(
            head.contains(&format!("\r\n{line}")),
            "{line} is missing: {head}"
        );
    }
    let wait = head
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "));
    let wait: u64 = wait.context("when to come back")?.parse()?;
    ensure!((1..=86_400).contains(&wait), "{wait} s until midnight");
    for absent in ["representative-claim", "overage-status"] {
        ensure!(!head.contains(absent), "{absent} hides our message: {head}");
    }
    let body: Value = serde_json::from_str(body.trim())?;
    ensure!(
        body["type"] == "error" && body["error"]["type"] == "billing_error",
        "{body}"
    );
    Ok(())
}
