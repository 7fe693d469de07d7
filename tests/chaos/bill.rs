//! The stand-in provider, and its bill: what it was asked for is owed, whether its answer arrived or not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carrel_testkit::provider::{
    Gate, Provider, Recorded, Scene, Used, anthropic_stream, anthropic_whole,
};
use serde_json::{Value, json};

/// Nano-USD for a token, of input and of output.
const PRICE: (u64, u64) = (10, 1000);
const INPUT: u64 = 24;
/// The fewest tokens of an answer. No two answers to a learner have as many, up to so many answers; all have fewer than a
/// lowered limit allows.
const OUTPUT: u64 = 500;
const DIFFERENT: u64 = 500;
/// A call takes so long that it can be caught in the middle.
const THINKS: Duration = Duration::from_millis(60);

type Calls = BTreeMap<String, Vec<u64>>;

/// A provider that answers everybody and keeps its bill.
pub(crate) struct Bill {
    provider: Provider,
    calls: Arc<Mutex<Calls>>,
}

impl Bill {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let calls = Arc::<Mutex<Calls>>::default();
        let kept = Arc::clone(&calls);
        let provider = Provider::answering(move |asked| Some(answer(asked, &kept))).await?;
        Ok(Self { provider, calls })
    }

    /// What of the configuration leads to it; its files lie in `folder`.
    pub(crate) fn settings(&self, folder: &Path) -> anyhow::Result<Value> {
        let (key, prices) = (folder.join("provider.key"), folder.join("prices.json"));
        std::fs::write(&key, "the-providers-own-key")?;
        let price = json!({"input": PRICE.0, "output": PRICE.1});
        let table =
            json!({"version": "test", "source": "test", "models": {"priced/parrot": price}});
        std::fs::write(&prices, table.to_string())?;
        Ok(json!({
            "providers": [{"name": "priced", "dialect": "Anthropic", "baseUrl": self.provider.url(), "keys": [key]}],
            "routes": {"default": [{"model": "priced/parrot"}]},
            "prices": {"overlayFile": prices},
        }))
    }

    /// What a learner's calls cost, each in nano-USD.
    pub(crate) fn of(&self, learner: &str) -> Vec<u64> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.get(learner).cloned().unwrap_or_default()
    }
}

/// The message is `pay LEARNER …`.
fn answer(asked: &Recorded, calls: &Mutex<Calls>) -> Scene {
    let text = asked.body["messages"][0]["content"].as_str();
    let learner = text.and_then(|text| text.split(' ').nth(1)).unwrap_or("?");
    let output = {
        let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = calls.entry(learner.to_owned()).or_default();
        let output = OUTPUT + calls.len() as u64 % DIFFERENT;
        calls.push(INPUT * PRICE.0 + output * PRICE.1);
        output
    };
    let used = Used {
        input: INPUT,
        output,
    };
    let scene = if asked.body["stream"] == true {
        Scene::events(anthropic_stream("ok", used))
    } else {
        Scene::json(200, &anthropic_whole("ok", used))
    };
    let gate = Gate::default();
    let opens = gate.clone();
    tokio::spawn(async move {
        tokio::time::sleep(THINKS).await;
        opens.open();
    });
    scene.after(gate)
}
