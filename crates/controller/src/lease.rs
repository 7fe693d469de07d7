//! Who of several controllers acts: whoever holds the lease (`coordination.k8s.io/v1`). Times are taken from one's own clock alone: a lease
//! has run out when it was seen unchanged for as long as it lasts. Whoever cannot renew stops before that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carrel_telemetry::ApiWrites;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a lease lasts that is not renewed.
const LASTS: Duration = Duration::from_secs(15);
/// How long its holder acts after it was renewed last; what is left is for calls that are under way.
const ACTS: Duration = Duration::from_secs(10);
/// Between renewals, and between looks at another's.
const AGAIN: Duration = Duration::from_secs(2);

/// Until when this process may act; never, unless it holds the lease. A process that stood still finds that its time is over.
#[derive(Debug, Default)]
pub(crate) struct Term(Mutex<Option<Instant>>);

impl Term {
    /// Whether it is not over.
    pub(crate) fn runs(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    /// It lasts until then.
    pub(crate) fn lasts(&self, until: Instant) {
        *self.until() = Some(until);
    }

    /// It is over.
    pub(crate) fn end(&self) {
        *self.until() = None;
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease by name.
pub(crate) struct Leadership {
    leases: Api<Lease>,
    name: String,
    identity: String,
    now: fn() -> Timestamp,
    writes: ApiWrites,
}

impl Leadership {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        now: fn() -> Timestamp,
        writes: ApiWrites,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            now,
            writes,
        }
    }

    /// Waits until the lease is ours; whether it was so at once.
    ///
    /// # Cancel safety
    /// A lease that was just taken runs out by itself.
    pub(crate) async fn take(&self) -> (Held, bool) {
        let mut seen: Option<(String, Instant)> = None;
        let asked = Instant::now();
        loop {
            let began = Instant::now();
            match self.try_take(&mut seen).await {
                Ok(Some(lease)) => {
                    let held = Held {
                        lease,
                        renewed: began,
                    };
                    return (held, asked.elapsed() < AGAIN);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = crate::chain(&error),
                        "the lease could not be looked at"
                    );
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn try_take(&self, seen: &mut Option<(String, Instant)>) -> kube::Result<Option<Lease>> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            self.writes.count("leases", "create");
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(0)),
            };
            return taken(self.leases.create(&PostParams::default(), &lease).await);
        };
        let version = lease.resource_version().unwrap_or_default();
        let unchanged = match seen {
            Some((known, since)) if *known == version => since.elapsed(),
            _ => {
                *seen = Some((version, Instant::now()));
                Duration::ZERO
            }
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let lasts = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(LASTS, Duration::from_secs);
        if !holder.is_empty() && holder != self.identity && unchanged < lasts {
            return Ok(None);
        }
        let transitions = spec.lease_transitions.unwrap_or_default().saturating_add(1);
        let ours = Lease {
            spec: Some(self.spec(transitions)),
            ..lease
        };
        taken(self.replace(&ours).await)
    }

    /// Renews until it is told to end, and then still holds the lease; `None` when it does not any more. `leads` hears until when its
    /// holder may act.
    pub(crate) async fn keep(
        &self,
        mut held: Held,
        cancel: &CancellationToken,
        leads: impl Fn(Instant),
    ) -> Option<Held> {
        loop {
            let pause = tokio::time::sleep(AGAIN);
            if cancel.run_until_cancelled(pause).await.is_none() {
                return Some(held);
            }
            let began = Instant::now();
            let lease = Lease {
                spec: held.lease.spec.clone().map(|spec| LeaseSpec {
                    renew_time: Some(MicroTime((self.now)())),
                    ..spec
                }),
                ..held.lease.clone()
            };
            match timeout_at(held.acts_until(), self.replace(&lease)).await {
                Ok(Ok(lease)) => {
                    held = Held {
                        lease,
                        renewed: began,
                    };
                    leads(held.acts_until());
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                    tracing::error!("another controller has taken the lease");
                    return None;
                }
                Ok(Err(error)) if held.renewed.elapsed() + AGAIN < ACTS => {
                    tracing::warn!(
                        error = crate::chain(&error),
                        "the lease could not be renewed"
                    );
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::error!("the lease could not be renewed in time");
                    return None;
                }
            }
        }
    }

    /// Gives the lease to whoever comes next.
    pub(crate) async fn give_back(&self, held: Held) {
        let lease = Lease {
            spec: held.lease.spec.clone().map(|spec| LeaseSpec {
                holder_identity: None,
                renew_time: Some(MicroTime((self.now)())),
                ..spec
            }),
            ..held.lease
        };
        let given = timeout_at(Instant::now() + AGAIN, self.replace(&lease)).await;
        if !matches!(given, Ok(Ok(_))) {
            tracing::warn!(
                "the lease could not be given back: the next controller waits until it has run out"
            );
        }
    }

    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        self.writes.count("leases", "update");
        self.leases
            .replace(&self.name, &PostParams::default(), lease)
            .await
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = (self.now)();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// A lease that is ours.
pub(crate) struct Held {
    lease: Lease,
    renewed: Instant,
}

impl Held {
    /// Until when its holder may act, if it is not renewed.
    pub(crate) fn acts_until(&self) -> Instant {
        self.renewed + ACTS
    }
}

/// Somebody who was quicker is no error.
fn taken(written: kube::Result<Lease>) -> kube::Result<Option<Lease>> {
    match written {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
