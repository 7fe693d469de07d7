//! Flags by which clients find their server, and how they print its answers.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Output;

/// Which server is meant: said before a command's name or after it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The gateway's address; else that of the server that runs on the data folder, else that in the kubeconfig's current context
    #[arg(long, env = "CARREL_SERVER", global = true)]
    pub(crate) server: Option<String>,
    /// A file with the admin token
    #[arg(long, env = "CARREL_TOKEN_FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// The data folder of the server on this machine
    #[arg(long, env = "CARREL_DATA_DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// A kubeconfig; else KUBECONFIG, else ~/.kube/config. With one of these three a release of Carrel in a cluster is meant
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig; else its current one
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// The release's namespace; else the context's
    #[arg(short, long, global = true)]
    pub(crate) namespace: Option<String>,
}

impl Place {
    /// Whether it says itself that a cluster is meant.
    pub(crate) fn names_cluster(&self) -> bool {
        let Self {
            kubeconfig,
            context,
            namespace,
            server: _,
            token_file: _,
            data_dir: _,
        } = self;
        kubeconfig.is_some() || context.is_some() || namespace.is_some() || is_plugin()
    }
}

/// Where the server is, and how answers are printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Client {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How it is printed
    #[arg(short, long, value_enum, default_value = "table", global = true)]
    pub(crate) output: Output,
    /// Tables without their first line
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
}

impl Client {
    /// A command for people to type, that speaks to the same server as this one.
    pub(crate) fn command(&self, words: &str) -> String {
        let flags = [
            ("--data-dir", shown(self.place.data_dir.as_deref())),
            ("--server", self.place.server.clone()),
            ("--token-file", shown(self.place.token_file.as_deref())),
            ("--kubeconfig", shown(self.place.kubeconfig.as_deref())),
            ("--context", self.place.context.clone()),
            ("--namespace", self.place.namespace.clone()),
        ];
        // A server is not told where one is.
        let count = if words == "up" { 1 } else { flags.len() };
        let flags = flags
            .into_iter()
            .take(count)
            .filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(&value?))));
        format!("carrel {words}{}", flags.collect::<String>())
    }
}

/// Whether kubectl calls it as its plugin: then a cluster is meant, whatever runs on this machine.
pub(crate) fn is_plugin() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).ends_with("kubectl-carrel"))
}

fn shown(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,~".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
