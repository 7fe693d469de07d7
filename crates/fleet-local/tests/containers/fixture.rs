//! A runtime in a folder of its own, and the shortest way to run one attack in a container.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use carrel_fleet_local::container::{
    Container, ContainerId, ContainerSpec, Exit, Limits, Options, RootKind, Runtime,
};

/// How a test ended that did not fail.
pub(crate) enum Outcome {
    Passed,
    Skipped(&'static str),
}

/// A named test.
pub(crate) type Test = (
    &'static str,
    fn(Bed) -> Pin<Box<dyn Future<Output = Outcome>>>,
);

/// What one test needs of the host.
pub(crate) struct Bed {
    pub(crate) runtime: Runtime,
    pub(crate) folder: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("carrel-test-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let runtime = Runtime::open(options(folder.path().join("state"))).unwrap();
        Self { runtime, folder }
    }

    /// A container in slot `slot` that runs `inside WORDS`.
    pub(crate) fn spec(&self, slot: u32, words: &[&str]) -> ContainerSpec {
        let home = self.folder.path().join(format!("learner-{slot}"));
        let (shared_dir, workspace_dir) = (home.join("shared"), home.join("workspace"));
        let host = Runtime::host_ids(slot);
        for folder in [&shared_dir, &workspace_dir] {
            std::fs::create_dir_all(folder).unwrap();
            chown(folder, Some(host.uid), Some(host.gid)).unwrap();
        }
        // What a careful fleet does: the way to a learner's folders is closed to everyone else.
        std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let mut argv = vec!["/carrel".to_owned(), "inside".to_owned()];
        argv.extend(words.iter().map(ToString::to_string));
        ContainerSpec {
            id: ContainerId::try_from(format!("learner-{slot}")).unwrap(),
            root: RootKind::HostUsr,
            shared_dir,
            workspace_dir,
            argv,
            env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
            host,
            limits: Limits {
                cpu_millis: 900,
                memory_bytes: 64 << 20,
                pids: 32,
                tmp_bytes: 4 << 20,
            },
            hostname: format!("desk-{slot}"),
        }
    }

    /// Runs `inside WORDS` to its end and gives what it said.
    pub(crate) async fn run(&self, words: &[&str]) -> String {
        let container = self.runtime.start(self.spec(1, words)).await.unwrap();
        let exit = ended(&container).await;
        let said = container.last_output();
        container.remove().await.unwrap();
        assert_eq!(exit, Exit::Code(0), "{said}");
        said
    }
}

pub(crate) fn options(state_root: PathBuf) -> Options {
    Options {
        executable: std::env::current_exe().unwrap(),
        subcommand: vec!["container".to_owned()],
        state_root,
        made_within: Duration::from_secs(30),
    }
}

/// Its end, which must come soon.
pub(crate) async fn ended(container: &Container) -> Exit {
    tokio::time::timeout(Duration::from_secs(30), container.wait())
        .await
        .unwrap()
        .unwrap()
}

/// The value of `key=` in what a container said.
pub(crate) fn value<'a>(said: &'a str, key: &str) -> &'a str {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key} in {said}"))
}

/// Writes a test as an async function in a table.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn tests() -> Vec<$crate::fixture::Test> {
            vec![$((stringify!($name), |bed| Box::pin($name(bed)))),*]
        }
    };
}
