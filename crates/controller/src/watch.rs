//! Brings what the API server shows into the caches, and says whom to look at. A watch that is lost is begun anew with a whole list.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use carrel_core::class::{ClassSpec, DEFAULT_CLASS};
use carrel_core::{LearnerId, PodUid};
use carrel_crd::{Learner, LearnerClass, names};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, Config, Event};
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::names::Reason;
use crate::shared::Handle;
use crate::sight::Sight;
use crate::world::pod::SeenPod;
use crate::world::pods::Touched;
use crate::world::{Class, Known};

/// So many objects come with a page of a list.
const PAGE: u32 = 1000;
/// Before a watch that broke is begun anew; twice as long each time that it breaks again soon: each time everything is listed.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_AT_MOST: Duration = Duration::from_secs(10);

const LEARNERS: &str = "learners";
const CLASSES: &str = "classes";

fn pods_in(namespace: &str) -> String {
    format!("pods in {namespace}")
}

/// What all watches are called.
pub(crate) fn names(namespaces: &[String]) -> impl Iterator<Item = String> {
    let ours = [LEARNERS, CLASSES].map(str::to_owned);
    ours.into_iter()
        .chain(namespaces.iter().map(|name| pods_in(name)))
}

/// Takes in what the API server has just now: a watch that broke may have kept the caches as they were for long. Pods come first: whoever
/// is named on one is listed after it. What is gone meanwhile, the watches say.
pub(crate) async fn refresh(shared: &Handle, client: &Client) -> kube::Result<()> {
    let pods = ListParams::default().labels(&ours());
    for namespace in &shared.options.pods.namespaces {
        let api = Api::<Pod>::namespaced(client.clone(), namespace);
        each_listed(&api, pods.clone(), |pod| {
            if let Some(seen) = SeenPod::read(&pod) {
                shared.world().pods.put(seen);
            }
        })
        .await?;
    }
    let namespace = &shared.options.namespace;
    let classes = Api::<LearnerClass>::namespaced(client.clone(), namespace);
    each_listed(&classes, ListParams::default(), |class| {
        put_class(shared, &class);
    })
    .await?;
    let learners = Api::<Learner>::namespaced(client.clone(), namespace);
    each_listed(&learners, ListParams::default(), |learner| {
        put_learner(shared, &learner);
    })
    .await
}

async fn each_listed<K>(
    api: &Api<K>,
    params: ListParams,
    mut take: impl FnMut(K),
) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = params.limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        let more = page.metadata.continue_.filter(|token| !token.is_empty());
        page.items.into_iter().for_each(&mut take);
        match more {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// Which pods are learners'.
fn ours() -> String {
    format!("{}={}", names::COMPONENT.0, names::COMPONENT.1)
}

/// Watches learners; never returns.
pub(crate) async fn learners(shared: Handle, client: Client, sight: Sight) {
    let api = Api::<Learner>::namespaced(client, &shared.options.namespace);
    let mut listed = HashSet::<LearnerId>::new();
    let config = Config::default().page_size(PAGE);
    each(api, config, LEARNERS, &sight, |event| match event {
        Event::Init => listed.clear(),
        Event::InitApply(learner) => {
            if let Some(id) = put_learner(&shared, &learner) {
                listed.insert(id);
            }
        }
        Event::InitDone => {
            let gone: Vec<LearnerId> = {
                let world = shared.world();
                let known = world.learners.keys().filter(|id| !listed.contains(*id));
                known.cloned().collect()
            };
            for id in &gone {
                remove_learner(&shared, id);
            }
            listed = HashSet::new();
        }
        Event::Apply(learner) => {
            put_learner(&shared, &learner);
        }
        Event::Delete(learner) => {
            if let Ok(id) = learner.name_any().parse() {
                remove_learner(&shared, &id);
            }
        }
    })
    .await;
}

fn put_learner(shared: &Handle, learner: &Learner) -> Option<LearnerId> {
    let (id, known) = Known::read(learner)?;
    let is_news = shared.world().put_learner(&id, known);
    if is_news && shared.is_leader() {
        shared.queue.now(&id);
    }
    Some(id)
}

fn remove_learner(shared: &Handle, id: &LearnerId) {
    shared.world().remove_learner(id);
    if shared.is_leader() {
        shared.queue.now(id);
    }
}

/// Watches classes; never returns.
pub(crate) async fn classes(shared: Handle, client: Client, sight: Sight) {
    let api = Api::<LearnerClass>::namespaced(client, &shared.options.namespace);
    let mut listed = HashSet::<String>::new();
    let config = Config::default().page_size(PAGE);
    each(api, config, CLASSES, &sight, |event| {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(class) => {
                listed.insert(class.name_any());
                put_class(&shared, &class);
            }
            Event::InitDone => {
                shared
                    .world()
                    .classes
                    .retain(|name, _| listed.contains(name));
                if !listed.contains(DEFAULT_CLASS) {
                    put_built_in(&shared);
                }
            }
            Event::Apply(class) => put_class(&shared, &class),
            Event::Delete(class) => {
                let name = class.name_any();
                shared.world().classes.remove(&name);
                if name == DEFAULT_CLASS {
                    put_built_in(&shared);
                }
            }
        }
        // Whoever waits for a class may have it now.
        let waiting: Vec<LearnerId> = shared.world().stirs.keys().cloned().collect();
        for id in &waiting {
            shared.queue.now(id);
        }
        shared.pool.notify_one();
    })
    .await;
}

/// The class that is there when no object says otherwise, as for everybody else who asks for a class.
fn put_built_in(shared: &Handle) {
    let spec = ClassSpec::default();
    let built_in = Class {
        uid: String::new(),
        generation: None,
        name: DEFAULT_CLASS.to_owned(),
        hash: shared.template.hash(DEFAULT_CLASS, &spec),
        spec,
    };
    let mut world = shared.world();
    let default = world.classes.entry(DEFAULT_CLASS.to_owned());
    default.or_insert_with(|| Arc::new(built_in));
}

fn put_class(shared: &Handle, class: &LearnerClass) {
    let name = class.name_any();
    let mut world = shared.world();
    match class.spec.to_class() {
        Ok(spec) => {
            let hash = shared.template.hash(&name, &spec);
            let class = Class {
                uid: class.metadata.uid.clone().unwrap_or_default(),
                generation: class.metadata.generation,
                name: name.clone(),
                spec,
                hash,
            };
            world.classes.insert(name, Arc::new(class));
        }
        Err(error) => {
            world.classes.remove(&name);
            drop(world);
            tracing::warn!(class = name, %error, "a class cannot be used");
            let uid = class.metadata.uid.as_deref().unwrap_or_default();
            shared
                .events
                .class(&name, uid, Reason::ClassUnusable, &error.to_string());
        }
    }
}

/// Watches the pods of one learner namespace; never returns.
pub(crate) async fn pods(shared: Handle, client: Client, namespace: String, sight: Sight) {
    let api = Api::<Pod>::namespaced(client, &namespace);
    // What was here before the list; what comes during it may be newer than it.
    let mut unlisted = HashSet::<PodUid>::new();
    let config = Config::default().labels(&ours()).page_size(PAGE);
    let what = pods_in(&namespace);
    each(api, config, &what, &sight, |event| {
        let touched = match event {
            Event::Init => {
                unlisted = shared.world().pods.within(&namespace);
                return;
            }
            Event::InitApply(pod) => SeenPod::read(&pod).map(|seen| {
                unlisted.remove(&seen.uid);
                shared.world().pods.put(seen)
            }),
            Event::InitDone => Some(shared.world().pods.lose(&std::mem::take(&mut unlisted))),
            Event::Apply(pod) => SeenPod::read(&pod).map(|seen| shared.world().pods.put(seen)),
            Event::Delete(pod) => SeenPod::read(&pod).map(|seen| shared.world().pods.delete(&seen)),
        };
        if let Some(touched) = touched {
            touch(&shared, &touched);
        }
    })
    .await;
}

fn touch(shared: &Handle, touched: &Touched) {
    if shared.is_leader() {
        for id in &touched.learners {
            shared.queue.now(id);
        }
    }
    if touched.pool {
        shared.pool.notify_one();
    }
}

/// What is seen is taken in whole; a watch that broke is begun anew with a list, which says that it sees again.
async fn each<K>(
    api: Api<K>,
    config: Config,
    what: &str,
    sight: &Sight,
    mut take: impl FnMut(Event<K>),
) where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut pause = AGAIN;
    loop {
        let began = Instant::now();
        let mut events = pin!(watcher::watcher(api.clone(), config.clone()));
        let broke = loop {
            match events.try_next().await {
                Ok(Some(event)) => {
                    let is_done = matches!(event, Event::InitDone);
                    take(event);
                    if is_done {
                        sight.sees(what);
                    }
                }
                Ok(None) => break "it ended".to_owned(),
                Err(error) => break crate::chain(&error),
            }
        };
        tracing::warn!(what, error = broke, "a watch broke and is begun anew");
        sight.loses(what, broke);
        if began.elapsed() > AGAIN_AT_MOST {
            pause = AGAIN;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_AT_MOST);
    }
}

#[cfg(test)]
mod tests;
