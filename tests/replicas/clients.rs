//! Clients that do what the interface asks of them: they go where `/readyz` says that it is ready, come back with `Last-Event-ID`,
//! and send a message again with its key when they are told to, or told nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::stream::text_of;
use carrel_tests::{Api, Event, eventually};
use tokio::sync::watch;

/// A turn has its outcome by then, whoever was started anew meanwhile.
const ENDS_WITHIN: Duration = Duration::from_mins(1);

/// The gateways, as a balancer knows them: where each is asked whether it is ready, and a client of it.
#[derive(Default)]
pub(crate) struct Balancer {
    gateways: Mutex<Vec<(String, Api)>>,
    turn: Mutex<usize>,
}

impl Balancer {
    pub(crate) fn set(&self, gateways: Vec<(String, Api)>) {
        *self.gateways.lock().unwrap_or_else(PoisonError::into_inner) = gateways;
    }

    /// One that says that it is ready; each in its turn.
    async fn ready(&self) -> anyhow::Result<Api> {
        eventually("a gateway is ready", ENDS_WITHIN, || async {
            let (health, api) = {
                let gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
                let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                *turn += 1;
                // None is there before the first is known.
                let Some(next) = gateways.get(*turn % gateways.len().max(1)) else {
                    return Ok(None);
                };
                next.clone()
            };
            let answer = reqwest::get(format!("{health}/readyz")).await;
            Ok(answer
                .is_ok_and(|answer| answer.status().is_success())
                .then_some(api))
        })
        .await
    }
}

/// A learner who says the same again and again, and hears everything.
pub(crate) struct Learner {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    balancer: Arc<Balancer>,
    sent: watch::Sender<Vec<String>>,
    heard: watch::Sender<Vec<Event>>,
    falls_silent: watch::Sender<bool>,
    is_silent: watch::Sender<bool>,
}

impl Learner {
    pub(crate) fn new(name: &'static str, says: &'static str, balancer: &Arc<Balancer>) -> Self {
        Self {
            name,
            says,
            balancer: Arc::clone(balancer),
            sent: watch::Sender::default(),
            heard: watch::Sender::default(),
            falls_silent: watch::Sender::new(false),
            is_silent: watch::Sender::new(false),
        }
    }

    /// Works until it falls silent, and hears on; ends when something goes wrong that must not.
    pub(crate) async fn works(&self) -> anyhow::Result<()> {
        tokio::try_join!(self.speaks(), self.hears())?;
        Ok(())
    }

    async fn speaks(&self) -> anyhow::Result<()> {
        while !*self.falls_silent.borrow() {
            let number = self.sent.borrow().len();
            let key = format!("{}-{number}", self.name);
            let began = Instant::now();
            let accepted = loop {
                let api = self.balancer.ready().await?;
                match api.try_post(self.name, self.says, &key).await? {
                    Ok(accepted) => break accepted,
                    Err(after) => tokio::time::sleep(after).await,
                }
                anyhow::ensure!(began.elapsed() < ENDS_WITHIN, "{key} is not accepted");
            };
            self.sent.send_modify(|sent| sent.push(accepted.turn));
            self.has_heard(number + 1).await?;
        }
        self.is_silent.send_replace(true);
        Ok(())
    }

    async fn hears(&self) -> anyhow::Result<()> {
        let mut last = None;
        loop {
            let api = self.balancer.ready().await?;
            let Ok(mut stream) = api.events(self.name, last).await else {
                continue;
            };
            while let Some(event) = stream.next().await? {
                self.heard.send_modify(|heard| heard.push(event));
            }
            last = stream.last();
        }
    }

    /// Waits until so many outcomes were heard.
    pub(crate) async fn has_heard(&self, outcomes: usize) -> anyhow::Result<()> {
        let mut heard = self.heard.subscribe();
        let enough = heard.wait_for(|heard| count(heard) >= outcomes);
        match tokio::time::timeout(ENDS_WITHIN, enough).await {
            Ok(_) => Ok(()),
            Err(_) => anyhow::bail!(
                "{} hears no more after {:?}",
                self.name,
                self.heard.borrow().iter().rev().take(5).collect::<Vec<_>>()
            ),
        }
    }

    pub(crate) fn outcomes(&self) -> usize {
        count(&self.heard.borrow())
    }

    /// Says nothing more; what was said has its outcomes.
    pub(crate) async fn comes_to_an_end(&self) -> anyhow::Result<()> {
        self.falls_silent.send_replace(true);
        let mut silent = self.is_silent.subscribe();
        let silent = tokio::time::timeout(ENDS_WITHIN, silent.wait_for(|silent| *silent));
        silent.await.context("its last message has no outcome")??;
        Ok(())
    }

    /// Each message has one outcome, a good one, and was heard whole: the replies, in their order.
    pub(crate) fn replies(&self) -> Vec<String> {
        let heard = self.heard.borrow();
        assert!(
            heard.is_sorted_by(|a, b| a.place < b.place),
            "each event once"
        );
        let sent = self.sent.borrow();
        let reply = |turn: &String| {
            let of_turn = heard.iter().filter(|event| event.text("turn_id") == turn);
            let outcomes: Vec<_> = of_turn.filter(|event| event.is_outcome()).collect();
            let [outcome] = outcomes[..] else {
                unreachable!("{turn} has {outcomes:?}");
            };
            assert_eq!(outcome.name, "done", "{outcome:?}");
            let reply = outcome.data["reply"]["text"].as_str().unwrap_or_default();
            assert_eq!(text_of(&heard, turn), reply);
            reply.to_owned()
        };
        sent.iter().map(reply).collect()
    }
}

fn count(heard: &[Event]) -> usize {
    heard.iter().filter(|event| event.is_outcome()).count()
}
