//! The documents of the configuration, applied to the store.

use carrel_core::class::{ClassSpec, DEFAULT_CLASS};
use carrel_core::{ClassName, LearnerId};
use carrel_store::SharedStore;
use carrel_store::learners::{Created, NewLearner};
use jiff::Timestamp;

use crate::config::Loaded;
use crate::exit::{Failure, Kind};

/// Refuses learners whose class neither the configuration has nor the store, where there is one yet.
pub(super) async fn check(loaded: &Loaded, store: Option<&SharedStore>) -> anyhow::Result<()> {
    for learner in &loaded.learners {
        let is_named = learner.class.as_str() == DEFAULT_CLASS
            || loaded
                .classes
                .iter()
                .any(|class| class.name == learner.class);
        let is_stored = match store {
            Some(store) if !is_named => store.class(&learner.class).await?.is_some(),
            _ => false,
        };
        if !is_named && !is_stored {
            let message = format!(
                "learner '{}' is to have the class '{}', which does not exist: add a LearnerClass document of that name, or correct spec.className",
                learner.id, learner.class
            );
            return Err(Failure::new(Kind::Usage, message).into());
        }
    }
    Ok(())
}

/// Writes the classes of the configuration, makes its learners, and sees to it that a class `default` exists.
pub(super) async fn apply(
    store: &SharedStore,
    loaded: &Loaded,
    now: Timestamp,
) -> anyhow::Result<()> {
    check(loaded, Some(store)).await?;
    let default: ClassName = DEFAULT_CLASS.parse()?;
    if store.class(&default).await?.is_none() {
        store.put_class(&default, &ClassSpec::default()).await?;
    }
    for class in &loaded.classes {
        let before = store.class(&class.name).await?;
        if before.is_some_and(|before| before != class.spec) {
            tracing::warn!(class = %class.name, "the configuration's class is in force again: what was applied since it was last read is gone");
        }
        store.put_class(&class.name, &class.spec).await?;
    }
    for learner in &loaded.learners {
        create(store, &learner.id, &learner.class, now).await?;
        store.set_desired_state(&learner.id, learner.state).await?;
    }
    Ok(())
}

pub(super) async fn create(
    store: &SharedStore,
    id: &LearnerId,
    class: &ClassName,
    now: Timestamp,
) -> anyhow::Result<()> {
    let new = NewLearner {
        id: id.clone(),
        class: class.clone(),
        aliases: Vec::new(),
    };
    match store.create_learner(&new, now).await? {
        Created::New | Created::Same => Ok(()),
        Created::Differs => {
            store.change_learner(id, Some(class), None).await?;
            Ok(())
        }
        Created::AliasTaken(_) | Created::StillErasing => {
            let message = format!("learner '{id}' is being erased: start again when it is gone");
            Err(Failure::new(Kind::Conflict, message).into())
        }
    }
}
