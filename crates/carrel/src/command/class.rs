//! `carrel class`: what the containers of a kind of learner are given.

mod objects;

use std::path::Path;

use anyhow::Context as _;
use carrel_core::class::ClassSpec;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::learner::segment;
use crate::cli::{self, ClassCommand};
use crate::client::Client;
use crate::config;
use crate::exit::{Failure, Kind};
use crate::output::{self, Rows};
use crate::place::Place;

#[derive(Debug, Serialize, Deserialize)]
struct Class {
    name: String,
    spec: ClassSpec,
}

#[derive(Debug, Deserialize)]
struct List {
    classes: Vec<Class>,
}

pub(super) async fn run(command: ClassCommand) -> anyhow::Result<()> {
    match command {
        ClassCommand::Ls { client } => ls(&client).await,
        ClassCommand::Show { name, client } => show(&name, &client).await,
        ClassCommand::Apply { file, client } => apply(&file, &client).await,
    }
}

async fn show(name: &str, flags: &cli::Client) -> anyhow::Result<()> {
    let class = match Place::of(flags).await? {
        Place::Cluster(cluster) => objects::show(&cluster, name).await?,
        Place::Named { .. } | Place::Here(_) => {
            Client::find(flags)
                .await?
                .get(&format!("/admin/v1/classes/{}", segment(name)))
                .await?
        }
    };
    // As 'class apply' takes it.
    let document = json!({
        "apiVersion": "carrel.dev/v1alpha1",
        "kind": "LearnerClass",
        "metadata": {"name": class.name},
        "spec": class.spec,
    });
    output::one(&document, name, flags)
}

async fn ls(flags: &cli::Client) -> anyhow::Result<()> {
    let classes = match Place::of(flags).await? {
        Place::Cluster(cluster) => objects::ls(&cluster).await?,
        Place::Named { .. } | Place::Here(_) => {
            let list: List = Client::find(flags).await?.get("/admin/v1/classes").await?;
            list.classes
        }
    };
    let rows = Rows {
        items: &classes,
        headers: &[
            "NAME",
            "AGENT",
            "CPU",
            "MEMORY",
            "IDLE",
            "PER-DAY-USD",
            "IMAGE",
        ],
        plain: 6,
        cells: |class: &Class, _| {
            let spec = &class.spec;
            let agent = if spec.is_built_in_agent() {
                "built-in".to_owned()
            } else {
                format!("{:?}", spec.agent.adapter)
            };
            vec![
                class.name.clone(),
                agent,
                spec.resources.cpu.to_string(),
                spec.resources.memory.to_string(),
                format!("{}-{}s", spec.idle.min_seconds, spec.idle.max_seconds),
                spec.budget
                    .per_day()
                    .map(|usd| usd.to_string())
                    .unwrap_or_default(),
                spec.agent.image.clone(),
            ]
        },
        name: |class| class.name.clone(),
    };
    rows.print(flags)
}

async fn apply(file: &Path, flags: &cli::Client) -> anyhow::Result<()> {
    let loaded = if file == Path::new("-") {
        let text = std::io::read_to_string(std::io::stdin()).context("reading standard input")?;
        config::read(vec![("standard input".into(), text)], std::iter::empty())?
    } else {
        config::load(Some(file), std::iter::empty())?
    };
    if loaded.classes.is_empty() {
        let message = format!("{} has no LearnerClass document", file.display());
        return Err(Failure::new(Kind::Usage, message).into());
    }
    let server = match Place::of(flags).await? {
        Place::Cluster(cluster) => return objects::apply(&cluster, loaded.classes).await,
        Place::Named { .. } | Place::Here(_) => Client::find(flags).await?,
    };
    for class in loaded.classes {
        server
            .put(&format!("/admin/v1/classes/{}", class.name), &class.spec)
            .await?;
        output::talk(&format!(
            "class '{}' applied; each learner takes it at its next wake",
            class.name
        ));
    }
    Ok(())
}
