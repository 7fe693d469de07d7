//! Brings what the API server shows into the caches, and says whom to look at. A watch that is lost is begun anew with a whole list.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use carrel_core::{LearnerId, PodUid};
use carrel_crd::{Learner, LearnerClass, names};
use futures::{Stream, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Sender;

use crate::shared::Handle;
use crate::world::pod::SeenPod;
use crate::world::pods::Touched;
use crate::world::{Class, Known};

/// How many first lists are complete.
pub(crate) type Synced = Sender<usize>;

/// So many objects come with a page of a list.
const PAGE: u32 = 1000;

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
pub(crate) async fn learners(shared: Handle, client: Client, synced: Synced) {
    let api = Api::<Learner>::namespaced(client, &shared.options.namespace);
    let mut listed = HashSet::<LearnerId>::new();
    let mut first = Some(synced);
    let events = watcher::watcher(api, Config::default().page_size(PAGE));
    each(events, "learners", |event| match event {
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
            done(&mut first);
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
pub(crate) async fn classes(shared: Handle, client: Client, synced: Synced) {
    let api = Api::<LearnerClass>::namespaced(client, &shared.options.namespace);
    let mut listed = HashSet::<String>::new();
    let mut first = Some(synced);
    let events = watcher::watcher(api, Config::default().page_size(PAGE));
    each(events, "learnerclasses", |event| {
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
                done(&mut first);
            }
            Event::Apply(class) => put_class(&shared, &class),
            Event::Delete(class) => {
                shared.world().classes.remove(&class.name_any());
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
                .class(&name, uid, crate::names::CLASS_UNUSABLE, &error.to_string());
        }
    }
}

/// Watches the pods of one learner namespace; never returns.
pub(crate) async fn pods(shared: Handle, client: Client, namespace: String, synced: Synced) {
    let api = Api::<Pod>::namespaced(client, &namespace);
    let mut listed = HashSet::<PodUid>::new();
    let mut first = Some(synced);
    let events = watcher::watcher(api, Config::default().labels(&ours()).page_size(PAGE));
    each(events, "pods", |event| {
        let touched = match event {
            Event::Init => {
                listed.clear();
                return;
            }
            Event::InitApply(pod) => {
                let seen = SeenPod::read(&pod);
                listed.extend(seen.as_ref().map(|seen| seen.uid));
                seen.map(|seen| shared.world().pods.put(seen))
            }
            Event::InitDone => {
                let touched = shared.world().pods.retain(&namespace, &listed);
                done(&mut first);
                Some(touched)
            }
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

/// What is seen is taken in whole; what broke is begun anew by the watcher, with a pause.
async fn each<K: kube::Resource + Clone>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    what: &'static str,
    mut take: impl FnMut(Event<K>),
) where
    K::DynamicType: Default + Eq + std::hash::Hash + Clone,
{
    let mut events = pin!(events.default_backoff());
    loop {
        match events.try_next().await {
            Ok(Some(event)) => take(event),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(
                    what,
                    error = crate::chain(&error),
                    "a watch broke and is begun anew"
                );
            }
        }
    }
}

fn done(first: &mut Option<Synced>) {
    if let Some(synced) = first.take() {
        synced.send_modify(|count| *count += 1);
    }
}
