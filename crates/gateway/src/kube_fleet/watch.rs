//! Follows the objects: lists them, watches, and lists again when the watch was lost.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use carrel_crd::{Learner, LearnerClass};
use carrel_telemetry::Readiness;
use futures::{Stream, StreamExt as _};
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, DefaultBackoff, Event, watcher};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::classes::Classes;
use super::record::{Record, version};

/// The API server ends a watch after so long, and it is begun again where it was: a connection that died unheard of is found by it.
const WATCH_SECONDS: u32 = 60;

/// The longest pause between two tries, however long there was no API server: whoever wrote meanwhile waits for what is seen then.
const AGAIN_AT_MOST: Duration = Duration::from_secs(10);

/// What `/readyz` calls it.
const LEARNERS: &str = "learners";
const CLASSES: &str = "classes";

/// What happened to the objects of a kind.
fn events<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, Config::default().timeout(WATCH_SECONDS)).backoff(Pauses::default())
}

/// The usual pauses, none of them too long.
#[derive(Default)]
struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(AGAIN_AT_MOST))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Keeps the cache true until the process ends.
pub(super) async fn learners(
    api: Api<Learner>,
    cache: Arc<Cache>,
    readiness: Readiness,
    cancel: CancellationToken,
) {
    readiness.missing(LEARNERS, NOT_YET);
    let mut events = std::pin::pin!(events(api));
    while let Some(Some(event)) = cancel.run_until_cancelled(events.next()).await {
        match event {
            Ok(event) => learner(&cache, &readiness, event),
            Err(error) => lost(LEARNERS, &error, !cache.is_complete(), &readiness),
        }
    }
}

const NOT_YET: &str = "the list is not complete yet";

fn learner(cache: &Cache, readiness: &Readiness, event: Event<Learner>) {
    match event {
        Event::Init => cache.list_begins(),
        Event::InitApply(object) => {
            if let Some((learner, record)) = usable(object) {
                cache.listed(learner, record);
            }
        }
        Event::InitDone => {
            cache.list_ends();
            readiness.present(LEARNERS);
        }
        Event::Apply(object) => {
            if let Some((learner, record)) = usable(object) {
                cache.shown(learner, record);
            }
        }
        Event::Delete(object) => {
            let version = version(object.metadata.resource_version.as_deref());
            let name = object.metadata.name.unwrap_or_default();
            if let Ok(learner) = name.parse() {
                cache.gone(learner, version);
            }
        }
    }
}

fn usable(object: Learner) -> Option<(carrel_core::LearnerId, Record)> {
    let name = object.metadata.name.clone();
    let record = Record::of(object);
    if record.is_none() {
        tracing::warn!(?name, "an object of this name can be no learner");
    }
    record
}

/// Keeps the classes true until the process ends.
pub(super) async fn classes(
    api: Api<LearnerClass>,
    classes: Arc<Classes>,
    readiness: Readiness,
    cancel: CancellationToken,
) {
    readiness.missing(CLASSES, NOT_YET);
    let mut events = std::pin::pin!(events(api));
    while let Some(Some(event)) = cancel.run_until_cancelled(events.next()).await {
        match event {
            Ok(Event::Init) => classes.list_begins(),
            Ok(Event::InitApply(object)) => classes.listed(object),
            Ok(Event::InitDone) => {
                classes.list_ends();
                readiness.present(CLASSES);
            }
            Ok(Event::Apply(object)) => classes.shown(object),
            Ok(Event::Delete(object)) => classes.gone(&object),
            Err(error) => lost(CLASSES, &error, !classes.is_complete(), &readiness),
        }
    }
}

/// What was seen stays good: gateways that all called themselves not ready would be none.
fn lost(what: &'static str, error: &watcher::Error, is_first: bool, readiness: &Readiness) {
    if is_first {
        readiness.missing(what, format!("{NOT_YET} ({error})"));
        tracing::warn!(%error, what, "objects cannot be listed");
    } else {
        readiness.stumbled(what);
        tracing::warn!(%error, what, "the watch is begun again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_there_is_nobody_to_ask_it_is_tried_every_ten_seconds() {
        let pauses: Vec<Duration> = Pauses::default().take(12).collect();
        assert!(pauses[0] < Duration::from_secs(2), "{pauses:?}");
        assert_eq!(pauses[11], Duration::from_secs(10), "{pauses:?}");
    }
}
