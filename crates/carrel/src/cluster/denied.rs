//! What an API server's refusals mean for whoever typed the command.

use http::StatusCode;
use kube::Error;
use kube::client::UpgradeConnectionError;

use super::Cluster;
use crate::exit::{Failure, Kind};

/// What the user must be allowed to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Right {
    pub(crate) verb: &'static str,
    /// As RBAC has it, as in `pods/portforward` or `learners.carrel.dev`.
    pub(crate) resource: &'static str,
}

/// A call that did not succeed.
pub(crate) fn failure(cluster: &Cluster, right: Right, error: &Error) -> Failure {
    let Cluster {
        context,
        namespace,
        url,
        ..
    } = cluster;
    let Right { verb, resource } = right;
    let denied = |said: &str| {
        let verb = verb_of(said).unwrap_or(verb);
        format!(
            "context '{context}' may not {verb} {resource} in namespace '{namespace}': its user needs that right ({})",
            cluster.kubectl(&format!("auth can-i {verb} {resource}"))
        )
    };
    let unknown = || {
        format!(
            "the API server of context '{context}' does not know its user: log in anew, or name another context by --context"
        )
    };
    match error {
        Error::Api(status) => {
            // What stands before an API server may refuse without a word.
            let said = match status.message.as_str() {
                "" => format!(
                    "the API server of context '{context}' does not {verb} {resource}: it answers with {}",
                    status.code
                ),
                said => said.to_owned(),
            };
            match status.code {
                401 => Failure::new(Kind::NotAllowed, unknown()),
                403 if status.message.is_empty() || said.contains("is forbidden: User") => {
                    Failure::new(Kind::NotAllowed, denied(&said))
                }
                403 => Failure::new(Kind::NotAllowed, said),
                404 => Failure::new(Kind::NotFound, said),
                409 => Failure::new(Kind::Conflict, said),
                400 | 422 => Failure::new(Kind::Usage, said),
                503 => Failure::new(Kind::Away, said),
                _ => Failure::new(Kind::Failed, said),
            }
        }
        Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => match *status {
            StatusCode::FORBIDDEN => Failure::new(Kind::NotAllowed, denied("")),
            StatusCode::UNAUTHORIZED => Failure::new(Kind::NotAllowed, unknown()),
            status => {
                let message = format!(
                    "the API server of context '{context}' does not {verb} {resource}: it answers with {status}"
                );
                Failure::new(Kind::Failed, message)
            }
        },
        Error::Auth(why) => {
            let message = format!("no credentials for context '{context}': {why}");
            Failure::new(Kind::NotAllowed, message)
        }
        Error::Service(why) => {
            let why = root_cause(&**why);
            Failure::new(
                Kind::Away,
                format!("the API server at {url} (context '{context}') does not answer: {why}"),
            )
        }
        Error::HyperError(why) => {
            let why = root_cause(why);
            Failure::new(
                Kind::Away,
                format!("the API server at {url} (context '{context}') does not answer: {why}"),
            )
        }
        other => Failure::new(
            Kind::Failed,
            format!("the API server at {url} (context '{context}'): {other}"),
        ),
    }
}

/// The verb that an API server says is missing: for a port-forward it is one or two, by its version.
fn verb_of(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once(" cannot ")?;
    rest.split_once(" resource ").map(|(verb, _)| verb)
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
