//! What a pod tries before it takes anybody in: whether it is kept from what it must not reach. Where a network does not
//! implement policies they are ignored in silence, and an agent would find every door open.
//!
//! Policies may come after the pod: it tries again for a while, and takes no assignment meanwhile.

use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// How long one connection is tried: what is not kept away and as near as a node's own services answers in milliseconds, and whoever waits
/// for the pod waits for this.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// From one try to the next.
const EVERY: Duration = Duration::from_secs(1);
/// How long policies may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// Returns when none of these addresses is reached. Until then `tell` hears what is.
///
/// # Errors
/// With the reason when something is still reached after [`PATIENCE`].
pub(crate) async fn pass(addresses: &[String], tell: impl Fn(String)) -> Result<(), String> {
    repeat(|| reached(addresses), tell).await
}

async fn repeat<F>(mut look: impl FnMut() -> F, tell: impl Fn(String)) -> Result<(), String>
where
    F: Future<Output = Vec<String>>,
{
    let began = Instant::now();
    loop {
        let tried = Instant::now();
        let reached = look().await.join(", ");
        if reached.is_empty() {
            return Ok(());
        }
        if began.elapsed() >= PATIENCE {
            return Err(format!(
                "network policies are not enforced: the pod can reach {reached}"
            ));
        }
        tell(format!(
            "network policies are not enforced yet: the pod can reach {reached}"
        ));
        sleep_until(tried + EVERY).await;
    }
}

/// Those of the addresses that take a connection; all are tried at once.
async fn reached(addresses: &[String]) -> Vec<String> {
    let tries = addresses.iter().map(|address| async move {
        let connected = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
        matches!(connected, Ok(Ok(_))).then(|| address.clone())
    });
    join_all(tries).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::net::TcpListener;

    use super::*;

    /// What a self-test came to, what was told meanwhile and how long it took, when something is reached so many times.
    async fn with_reached(times: usize) -> (Result<(), String>, Vec<String>, Duration) {
        let (began, left, told) = (Instant::now(), Cell::new(times), RefCell::default());
        let look = || {
            let is_reached = left.get() > 0;
            left.set(left.get().saturating_sub(1));
            async move {
                let reached = is_reached.then(|| "10.96.0.1:443".to_owned());
                reached.into_iter().collect()
            }
        };
        let passed = repeat(look, |why| {
            RefCell::<Vec<String>>::borrow_mut(&told).push(why);
        });
        (passed.await, told.take(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_reaches_nothing_passes_at_once() {
        assert_eq!(with_reached(0).await, (Ok(()), vec![], Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn policies_that_come_later_are_waited_for() {
        let (passed, told, took) = with_reached(3).await;
        assert_eq!((passed, took), (Ok(()), EVERY * 3));
        assert_eq!(told.len(), 3);
        assert!(told[0].contains("10.96.0.1:443"), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn policies_that_never_come_are_named_with_what_was_reached() {
        let (passed, _, took) = with_reached(usize::MAX).await;
        let why = passed.expect_err("it is reached");
        assert!(
            why.contains("10.96.0.1:443") && why.contains("not enforced"),
            "{why}"
        );
        assert_eq!(took, PATIENCE);
    }

    #[tokio::test]
    async fn of_many_addresses_those_are_named_that_take_a_connection() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [open_at, closed_at] =
            [&open, &closed].map(|listener| listener.local_addr().unwrap().to_string());
        drop(closed);
        let addresses = [closed_at, "no-such-host.invalid:443".to_owned(), open_at];
        let [.., open_at] = &addresses;
        assert_eq!(reached(&addresses).await, [open_at.as_str()]);
        drop(open);
        assert!(reached(&addresses).await.is_empty());
    }
}
