//! The command line: what can be said, and nothing that is done.

mod doctor;
mod keys;
mod place;
mod servers;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use doctor::Doctor;
pub(crate) use keys::KeysCommand;
pub(crate) use place::{Client, Place, is_plugin, quoted};
pub(crate) use servers::{At, ReadModel, Role, StoreCommand, Up, UpOutput, Vault};

/// A container of their own for every learner.
#[derive(Debug, Parser)]
#[command(
    name = "carrel",
    version,
    about,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    // Each command has it too, and hears what was said before its name.
    #[command(flatten)]
    _place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all of Carrel on this machine: gateway, web chat, console, router, vault and local containers
    Up(Up),
    /// Run a gateway as a process of its own: API, web chat, console
    Gateway(Role),
    /// Run a model router as a process of its own
    Router(Role),
    /// Run a vault as a process of its own, or change the vault's keys
    Vault(Vault),
    /// Run the fleet as a process of its own: the learners' containers on this machine
    Fleet(Role),
    /// Run the controller as a process of its own: the learners' pods in a Kubernetes cluster
    Controller(Role),
    /// Learners: make, look at, wake, put to sleep, talk to, erase
    #[command(subcommand)]
    Learner(LearnerCommand),
    /// Learner classes: what the containers of a kind of learner are given
    #[command(subcommand)]
    Class(ClassCommand),
    /// Snapshots of a learner's workspace
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// What was spent, from the ledger
    Usage(Usage),
    /// Models that the router offers
    #[command(subcommand)]
    Model(ModelCommand),
    /// Look for what is wrong, and say the next command
    Doctor(Doctor),
    /// The configuration as it takes effect
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The keys that the roles of an installation know each other by
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Print the definitions of LearnerClass and Learner, for 'kubectl apply --server-side -f -'
    Crd,
    /// Bring the store's schema up to this program's version
    Migrate(At),
    /// The store itself: whether it adds up, and what can be made anew
    #[command(subcommand)]
    Store(StoreCommand),
    /// Completion for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The version
    Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// Waiting for what takes time.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Wait {
    /// Return when it is done, not when it is asked for
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait
    #[arg(long, default_value = "60")]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LearnerCommand {
    /// Make a learner
    Create {
        /// Its id: 1 to 63 of a-z, 0-9 and '-'
        id: String,
        /// Its class
        #[arg(long)]
        class: Option<String>,
        /// Who it is elsewhere, as CHANNEL=ID; may be given several times
        #[arg(long = "alias", value_name = "CHANNEL=ID")]
        aliases: Vec<String>,
        #[command(flatten)]
        client: Client,
    },
    /// List learners
    Ls {
        #[command(flatten)]
        client: Client,
    },
    /// Show a learner
    Show {
        id: String,
        #[command(flatten)]
        client: Client,
    },
    /// Wake a learner
    Wake {
        id: String,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: Client,
    },
    /// Put a learner to sleep, after its running turn
    Sleep {
        id: String,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: Client,
    },
    /// Change a learner's class or aliases; takes effect at its next wake
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Set {
        id: String,
        /// Its class
        #[arg(long, group = "change")]
        class: Option<String>,
        /// Who it is elsewhere, as CHANNEL=ID; may be given several times, and replaces all that it had
        #[arg(long = "alias", value_name = "CHANNEL=ID", group = "change")]
        aliases: Vec<String>,
        #[command(flatten)]
        client: Client,
    },
    /// Talk to a learner's tutor; without a message, line by line from standard input
    ///
    /// On a terminal the reply is shown as it comes, elsewhere it is written when it is whole. With '-o json' each event of
    /// the stream is one line as it comes: state, delta, tool, restart (the deltas before it are void), last done or error.
    /// A connection that breaks is taken up again, also after the server was started anew.
    Chat {
        id: String,
        /// The message
        message: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// Show what happened to a learner
    Logs {
        id: String,
        /// Go on as more happens
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        client: Client,
    },
    /// Make a bearer token for a learner
    Token {
        id: String,
        /// Seconds it lives
        #[arg(long)]
        ttl: Option<u32>,
        /// Revoke all of the learner's tokens instead
        #[arg(long)]
        revoke: bool,
        #[command(flatten)]
        client: Client,
    },
    /// Make a link that signs a browser in as a learner, once
    Link {
        id: String,
        #[command(flatten)]
        client: Client,
    },
    /// Erase a learner with all of its data: messages, snapshots, keys, and what 'carrel usage' counts of it
    Rm {
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClassCommand {
    /// List classes
    Ls {
        #[command(flatten)]
        client: Client,
    },
    /// Show a class
    Show {
        name: String,
        #[command(flatten)]
        client: Client,
    },
    /// Write the classes of a YAML file; takes effect at each learner's next wake
    ///
    /// In a cluster they are objects: written by server-side apply, with the rights of the kubeconfig's user.
    Apply {
        /// The file; '-' is standard input
        #[arg(short = 'f', long = "filename")]
        file: PathBuf,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// Wrap every learner's data key by the first key of the key file, after a new one was put there; repeat it at will
    Rewrap {
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List a learner's snapshots, newest first
    Ls {
        learner: String,
        #[command(flatten)]
        client: Client,
    },
    /// Put the learner to sleep with a snapshot of now
    Create {
        learner: String,
        #[command(flatten)]
        client: Client,
    },
    /// Take an older snapshot as the newest state
    Restore {
        learner: String,
        /// Its name, or the beginning of it
        snapshot: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: Client,
    },
    /// Read a snapshot whole and say whether it is intact; without one, the newest
    Verify {
        learner: String,
        /// Its name, or the beginning of it
        snapshot: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// Remove a snapshot that is not the newest
    Rm {
        learner: String,
        /// Its name, or the beginning of it
        snapshot: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: Client,
    },
    /// Print what stock restic needs to open the learner's repository
    Restic {
        learner: String,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// A row for each
    #[arg(long, value_enum, default_value = "learner")]
    pub(crate) by: By,
    /// From this day (UTC, YYYY-MM-DD) or time on; else of the last 30 days
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Until this day or time
    #[arg(long)]
    pub(crate) until: Option<String>,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    Learner,
    Class,
    Model,
    Day,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// List models and routes
    Ls {
        #[command(flatten)]
        client: Client,
    },
    /// Ask a model or route to say a word
    Test {
        /// `provider/model` or a route
        #[arg(default_value = "default")]
        model: String,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what the file and the variables of this shell say, with the origin of what is not the default
    ///
    /// It is what a server would start with. One that runs may use other values: it has variables and flags of its own, and
    /// some changes of the file wait for its next start.
    Show(At),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use std::path::Path;

    use super::*;

    #[test]
    fn a_server_may_be_named_before_a_command_or_after_it() {
        Cli::command().debug_assert();
        let said = |words: &[&str]| Cli::try_parse_from([&["carrel"], words].concat());
        for words in [
            ["--data-dir", "here", "learner", "ls"],
            ["learner", "--data-dir", "here", "ls"],
            ["learner", "ls", "--data-dir", "here"],
        ] {
            let Ok(Command::Learner(LearnerCommand::Ls { client })) =
                said(&words).map(|cli| cli.command)
            else {
                unreachable!("{words:?}");
            };
            assert_eq!(client.place.data_dir.as_deref(), Some(Path::new("here")));
        }
        let first = ["--server", "http://x", "--token-file", "t", "doctor"];
        let Ok(Command::Doctor(Doctor { client, .. })) = said(&first).map(|cli| cli.command) else {
            unreachable!("{first:?}");
        };
        assert_eq!(client.place.server.as_deref(), Some("http://x"));
        assert_eq!(client.place.token_file.as_deref(), Some(Path::new("t")));
        let Ok(Command::Up(up)) = said(&["--data-dir", "here", "up"]).map(|cli| cli.command) else {
            unreachable!("a server can be started");
        };
        assert_eq!(up.folder.data_dir.as_deref(), Some(Path::new("here")));
        let context = ["--context", "far", "-n", "school", "usage"];
        let Ok(Command::Usage(Usage { client, .. })) = said(&context).map(|cli| cli.command) else {
            unreachable!("{context:?}");
        };
        assert_eq!(client.place.context.as_deref(), Some("far"));
        assert_eq!(client.place.namespace.as_deref(), Some("school"));
        let made = ["keys", "create", "--secret", "s", "--namespace", "school"];
        let Ok(Command::Keys(KeysCommand::Create { namespace, .. })) =
            said(&made).map(|cli| cli.command)
        else {
            unreachable!("{made:?}");
        };
        assert_eq!(namespace.as_deref(), Some("school"));
        let refused = said(&["up", "--server", "http://x"]).expect_err("it asks none");
        assert!(refused.to_string().contains("asks no server"), "{refused}");
        let refused = said(&["up", "--context", "far"]).expect_err("it asks no cluster");
        assert!(refused.to_string().contains("asks no server"), "{refused}");
    }

    #[test]
    fn the_keys_for_k9s_are_commands() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/k9s/plugins.yaml");
        let text = std::fs::read_to_string(file).expect("it is there");
        let keys: serde_json::Value = serde_yaml::from_str(&text).expect("it is YAML");
        let keys = keys["plugins"].as_object().expect("there are some");
        assert!(keys.len() >= 4, "{keys:?}");
        for (name, key) in keys {
            assert_eq!(key["command"], "carrel");
            let words = key["args"].as_array().expect("it has words");
            let words = words.iter().filter_map(|word| word.as_str());
            let said = Cli::try_parse_from(["carrel"].into_iter().chain(words));
            assert!(said.is_ok(), "{name}: {said:?}");
        }
    }
}
