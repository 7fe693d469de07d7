//! The last thing that a sidecar does: it writes how its pod ended where whoever made the pod finds it.

use std::fs;
use std::path::Path;

use carrel_protocol::sidecar::Farewell;

use crate::exit::Exit;
use crate::pod::Pod;
use crate::upstream::chain;

/// The last word of a pod that ends so.
pub(crate) fn of(pod: &Pod, exit: Exit) -> Farewell {
    let hello = pod.hello();
    let reason = match exit {
        Exit::Clean => String::new(),
        _ if hello.detail.is_empty() => exit.reason().to_owned(),
        _ => hello.detail,
    };
    Farewell {
        ending: exit.ending(),
        committed: hello.committed,
        fell_back: hello.fell_back,
        fence: hello.fence,
        snapshot_id: pod.newest(),
        reason,
    }
}

/// The last word of a sidecar that could not start.
pub(crate) fn unborn(error: &str) -> Farewell {
    Farewell {
        ending: Exit::Internal.ending(),
        committed: false,
        fell_back: false,
        fence: None,
        snapshot_id: None,
        reason: format!("the sidecar could not start: {error}"),
    }
}

/// Writes it, where a place was named. In place: a container's termination message is a file that is mounted.
pub(crate) fn leave(path: Option<&Path>, farewell: &Farewell) {
    let Some(path) = path else { return };
    let written = farewell
        .text()
        .map_err(std::io::Error::other)
        .and_then(|text| fs::write(path, text));
    if let Err(error) = written {
        tracing::error!(error = chain(&error), "the farewell could not be written");
    }
}
