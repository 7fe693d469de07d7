//! What a pod tries before it takes anybody in: whether it is kept from what it must not reach. Where a network does not
//! implement policies they are ignored in silence, and an agent would find every door open.
//!
//! Where there is no network yet nothing is reached, either: what the pod must reach comes first. Policies may come after the pod: it tries
//! again for a while, and takes no assignment meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{join_all, select_ok};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::{Instant, sleep_until, timeout};

use crate::options::SidecarOptions;

/// How long one connection is tried at most.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long one is tried at least that must not come about: what is not kept away and as near as a node's own services answers in
/// milliseconds, and whoever waits for the pod waits for this.
const REFUSED_AFTER: Duration = Duration::from_millis(500);
/// … and how many times as long as what must be reached took to answer.
const TIMES_AS_LONG: u32 = 10;
/// From one try to the next.
const EVERY: Duration = Duration::from_secs(1);
/// How long policies may take to come, from when something was reached that must not be.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a try came to.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Of what must be reached nothing is.
    Nothing,
    /// What must not be reached, and is.
    Open(Vec<SocketAddr>),
    /// Neither.
    Shut,
}

/// Returns when one of those is reached that must be, and none that must not. Until then `tell` hears what is wrong.
///
/// # Errors
/// With the reason when something is still reached after [`PATIENCE`].
pub(crate) async fn pass(options: &SidecarOptions, tell: impl Fn(String)) -> Result<(), String> {
    let (must, must_not) = (&options.must_reach, &options.must_not_reach);
    repeat(|| look(must, must_not), &must.join(" nor "), tell).await
}

async fn repeat<F>(
    mut look: impl FnMut() -> F,
    must: &str,
    tell: impl Fn(String),
) -> Result<(), String>
where
    F: Future<Output = Seen>,
{
    let mut open_since = None;
    loop {
        let tried = Instant::now();
        match look().await {
            Seen::Shut => return Ok(()),
            Seen::Nothing => tell(format!(
                "whether network policies are enforced is not known yet: the pod reaches neither {must}"
            )),
            Seen::Open(reached) => {
                let reached: Vec<_> = reached.iter().map(ToString::to_string).collect();
                let reached = reached.join(", ");
                if open_since.get_or_insert(tried).elapsed() >= PATIENCE {
                    return Err(format!(
                        "network policies are not enforced: the pod can reach {reached}"
                    ));
                }
                tell(format!(
                    "network policies are not enforced yet: the pod can reach {reached}"
                ));
            }
        }
        sleep_until(tried + EVERY).await;
    }
}

/// Of what must be reached one is enough: a pod does not wait for the others. All are tried at once.
async fn look(must: &[String], must_not: &[SocketAddr]) -> Seen {
    let began = Instant::now();
    let answers = must
        .iter()
        .map(|address| Box::pin(connects(address, CONNECT_WITHIN)));
    if !must.is_empty() && select_ok(answers).await.is_err() {
        return Seen::Nothing;
    }
    let within = (began.elapsed() * TIMES_AS_LONG).clamp(REFUSED_AFTER, CONNECT_WITHIN);
    let tries = must_not.iter().map(|address| async move {
        let connected = connects(*address, within).await;
        connected.is_ok().then_some(*address)
    });
    let reached: Vec<_> = join_all(tries).await.into_iter().flatten().collect();
    if reached.is_empty() {
        Seen::Shut
    } else {
        Seen::Open(reached)
    }
}

/// Whether an address takes a connection.
async fn connects(address: impl ToSocketAddrs, within: Duration) -> Result<(), ()> {
    match timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::net::TcpListener;

    use super::*;

    fn open() -> Seen {
        Seen::Open(vec![([10, 96, 0, 1], 443).into()])
    }

    /// What a self-test came to, what was told meanwhile and how long it took, when this is seen at each try.
    async fn seeing(see: impl Fn(usize) -> Seen) -> (Result<(), String>, Vec<String>, Duration) {
        let (began, tries, told) = (Instant::now(), Cell::new(0), RefCell::default());
        let look = || {
            let seen = see(tries.replace(tries.get() + 1));
            async { seen }
        };
        let passed = repeat(look, "10.96.0.7:7071", |why| {
            RefCell::<Vec<String>>::borrow_mut(&told).push(why);
        });
        (passed.await, told.take(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_reaches_nothing_that_is_shut_passes_at_once() {
        assert_eq!(
            seeing(|_| Seen::Shut).await,
            (Ok(()), vec![], Duration::ZERO)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn policies_that_come_later_are_waited_for() {
        let see = |tried| if tried < 3 { open() } else { Seen::Shut };
        let (passed, told, took) = seeing(see).await;
        assert_eq!((passed, took), (Ok(()), EVERY * 3));
        assert_eq!(told.len(), 3);
        assert!(told[0].contains("10.96.0.1:443"), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn policies_that_never_come_are_named_with_what_was_reached() {
        let (passed, _, took) = seeing(|_| open()).await;
        let why = passed.expect_err("it is reached");
        assert!(
            why.contains("10.96.0.1:443") && why.contains("not enforced"),
            "{why}"
        );
        assert_eq!(took, PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_that_is_not_there_yet_is_waited_for_and_proves_nothing() {
        let see = |tried| if tried < 99 { Seen::Nothing } else { open() };
        let (passed, told, took) = seeing(see).await;
        assert!(passed.is_err());
        assert_eq!(took, EVERY * 99 + PATIENCE);
        assert!(
            told[0].contains("not known yet") && told[0].contains("10.96.0.7:7071"),
            "{told:?}"
        );
    }

    #[tokio::test]
    async fn what_is_reached_is_told_only_where_something_is_reached_that_must_be() {
        let (a, b) = (listen().await, listen().await);
        let [at, beside, nobody] = [
            a.local_addr().unwrap(),
            b.local_addr().unwrap(),
            listen().await.local_addr().unwrap(),
        ];
        let must = |address: SocketAddr| [nobody.to_string(), address.to_string()];
        let must_not = [nobody, at];
        assert_eq!(look(&must(beside), &must_not).await, Seen::Open(vec![at]));
        assert_eq!(look(&[], &must_not).await, Seen::Open(vec![at]));
        assert_eq!(look(&must(nobody), &must_not).await, Seen::Nothing);
        drop(a);
        assert_eq!(look(&must(beside), &must_not).await, Seen::Shut);
    }

    async fn listen() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }
}
