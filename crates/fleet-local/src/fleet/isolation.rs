//! What keeps agents apart on this machine.

use std::time::Duration;

use carrel_protocol::fleet::IsolationReport;

use super::{Options, StartError, WantedIsolation};
use crate::container::{self, Isolation, Runtime};

/// Longer than a container takes on the slowest disk, and shorter than anybody's patience.
const MADE_WITHIN: Duration = Duration::from_secs(30);

/// The runtime of containers, if they work here and are wanted, and what is said of it.
pub(super) async fn isolation(
    options: &Options,
) -> Result<(Option<Runtime>, IsolationReport), StartError> {
    let process = |reason: &str| IsolationReport {
        isolation: "process".to_owned(),
        limits_missing: container::Limit::ALL
            .iter()
            .map(ToString::to_string)
            .collect(),
        warning: format!(
            "nothing isolates learners from each other or from this machine: {reason}"
        ),
    };
    if options.isolation == WantedIsolation::Process {
        return Ok((None, process("isolation 'process' was asked for")));
    }
    let runtime = Runtime::open(container::Options {
        executable: options.executable.clone(),
        subcommand: vec!["container".to_owned()],
        state_root: options.run_dir.join("c"),
        made_within: MADE_WITHIN,
    })
    .map_err(StartError::Runtime)?;
    runtime.sweep().await.map_err(StartError::Runtime)?;
    match (runtime.detect().await, options.isolation) {
        (Isolation::Oci { limits_missing, .. }, _) => {
            let limits_missing = limits_missing.iter().map(ToString::to_string).collect();
            let report = IsolationReport {
                isolation: "oci".to_owned(),
                limits_missing,
                warning: String::new(),
            };
            Ok((Some(runtime), report))
        }
        (Isolation::Process { reason }, WantedIsolation::Oci) => {
            Err(StartError::NoContainers(reason))
        }
        (Isolation::Process { reason }, _) => Ok((None, process(&reason))),
    }
}
