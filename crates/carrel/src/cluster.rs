//! The cluster that a kubeconfig names, as the operator's commands see it: with the rights of its user, and no others.

mod denied;
mod release;
#[cfg(test)]
pub(crate) mod script;
mod tunnel;

use std::path::Path;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::cli::{self, quoted};
use crate::exit::{Failure, Kind};

pub(crate) use denied::{Right, failure};
pub(crate) use release::{
    COMPONENTS, Component, Reached, component_of, instance_of, is_ready, keys_of,
};
pub(crate) use tunnel::Tunnel;

/// A cluster, and the namespace in it that is meant.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Its name in the kubeconfig.
    pub(crate) context: String,
    /// The API server's address.
    pub(crate) url: String,
    /// By which kubectl finds it.
    flags: String,
}

impl Cluster {
    /// The one that the flags name.
    pub(crate) async fn named(place: &cli::Place) -> anyhow::Result<Self> {
        let file = place.kubeconfig.as_deref();
        let kubeconfig = read(file)?.ok_or_else(|| {
            let message =
                "no kubeconfig is there: name one by --kubeconfig or by the variable KUBECONFIG";
            Failure::new(Kind::Usage, message)
        })?;
        let context = place.context.clone().or(current_of(&kubeconfig));
        let context = context.ok_or_else(|| {
            let known: Vec<_> = kubeconfig.contexts.iter().map(|one| &*one.name).collect();
            let message = format!(
                "the kubeconfig has no current context: name one by --context ({})",
                known.join(", ")
            );
            Failure::new(Kind::Usage, message)
        })?;
        Self::of(kubeconfig, context, place).await
    }

    /// The current context's, if there is one.
    pub(crate) async fn current(place: &cli::Place) -> anyhow::Result<Option<Self>> {
        let Some(kubeconfig) = read(None)? else {
            return Ok(None);
        };
        match current_of(&kubeconfig) {
            Some(context) => Self::of(kubeconfig, context, place).await.map(Some),
            None => Ok(None),
        }
    }

    async fn of(
        kubeconfig: Kubeconfig,
        context: String,
        place: &cli::Place,
    ) -> anyhow::Result<Self> {
        let options = KubeConfigOptions {
            context: Some(context.clone()),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| unusable(&context, &error))?;
        let namespace = place.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config)
            .with_context(|| format!("preparing the way to the cluster of context '{context}'"))?;
        Ok(Self {
            client,
            namespace,
            flags: flags(place, &context),
            context,
            url,
        })
    }

    /// A command of kubectl for people to type, that asks the same namespace.
    pub(crate) fn kubectl(&self, words: &str) -> String {
        format!("kubectl {} -n {} {words}", self.flags, self.namespace)
    }

    /// A command of kubectl that asks no namespace, or says itself which.
    pub(crate) fn plain_kubectl(&self, words: &str) -> String {
        format!("kubectl {} {words}", self.flags)
    }

    /// A cluster behind a client that a test scripts.
    #[cfg(test)]
    pub(crate) fn scripted(client: Client) -> Self {
        Self {
            client,
            namespace: "school".to_owned(),
            context: "far".to_owned(),
            url: "https://far.example".to_owned(),
            flags: "--context far".to_owned(),
        }
    }
}

fn flags(place: &cli::Place, context: &str) -> String {
    let file = place.kubeconfig.as_ref();
    let file = file.map(|file| format!("--kubeconfig {} ", quoted(&file.display().to_string())));
    format!("{}--context {}", file.unwrap_or_default(), quoted(context))
}

fn current_of(kubeconfig: &Kubeconfig) -> Option<String> {
    kubeconfig
        .current_context
        .clone()
        .filter(|name| !name.is_empty())
}

/// The kubeconfig; `None` when there is no file.
fn read(file: Option<&Path>) -> anyhow::Result<Option<Kubeconfig>> {
    let read = match file {
        Some(file) => Kubeconfig::read_from(file).map(Some),
        // A shell may name files that are not made yet.
        None => Kubeconfig::read().map(Some).or_else(|error| match error {
            KubeconfigError::FindPath => Ok(None),
            KubeconfigError::ReadConfig(why, _) if why.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            other => Err(other),
        }),
    };
    read.map_err(|error| {
        let error = anyhow::Error::from(error);
        Failure::new(
            Kind::Usage,
            format!("the kubeconfig cannot be used: {error:#}"),
        )
        .into()
    })
}

fn unusable(context: &str, error: &KubeconfigError) -> Failure {
    let message = format!(
        "context '{context}' of the kubeconfig cannot be used ({error}): 'kubectl config get-contexts' lists those that there are"
    );
    Failure::new(Kind::Usage, message)
}
