//! Flags of `carrel doctor`.

use clap::Args;

use super::Client;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Look at a cluster in which nothing is installed yet: its version, what is there, and what the kubeconfig's user may do
    ///
    /// The database and the bucket are tried, too, when CARREL_STORE_URL, CARREL_OBJECTS_URL and the like or the carrel.yaml of
    /// --data-dir name them.
    #[arg(long)]
    pub(crate) pre: bool,
    /// With --pre: the name that the release will have
    #[arg(long, default_value = "carrel", requires = "pre")]
    pub(crate) release: String,
    /// With --pre: a namespace for learners' pods; may be given several times, else the chart's
    #[arg(long = "learner-namespace", value_name = "NAME", requires = "pre")]
    pub(crate) learner_namespaces: Vec<String>,
    #[command(flatten)]
    pub(crate) client: Client,
}
