//! The documents of the configuration, applied to the store.

use carrel_core::class::{ClassSpec, DEFAULT_CLASS};
use carrel_core::{ClassName, LearnerId};
use carrel_store::SharedStore;
use carrel_store::learners::{Created, NewLearner};
use jiff::Timestamp;

use crate::config::Loaded;
use crate::exit::{Failure, Kind};

/// Writes the classes of the configuration, makes its learners, and sees to it that a class `default` exists.
pub(super) async fn apply(
    store: &SharedStore,
    loaded: &Loaded,
    now: Timestamp,
) -> anyhow::Result<()> {
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
        if store.class(&learner.class).await?.is_none() {
            let message = format!(
                "learner '{}' is to have the class '{}', which does not exist: add a LearnerClass document of that name, or correct spec.className",
                learner.id, learner.class
            );
            return Err(Failure::new(Kind::Usage, message).into());
        }
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
