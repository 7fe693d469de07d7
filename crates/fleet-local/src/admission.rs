//! Who may start now: so many a second, so many at once, so many alive. Fair by age: the first to ask is the first to start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What is admitted.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Incarnations alive at once.
    pub live: u32,
    /// Incarnations between their pod's making and their readiness at once.
    pub starting: u32,
    /// Starts a second.
    pub per_second: u32,
}

/// Before those who could make room are looked for again: all may have been busy.
const FULL_AGAIN: Duration = Duration::from_secs(1);

/// The gate before a start.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    live: Arc<Semaphore>,
    starting: Arc<Semaphore>,
    next_start: Arc<Mutex<Instant>>,
    interval: Duration,
    wanting_room: Arc<AtomicUsize>,
}

/// Counted among those for whom room has to be made, until it is dropped.
struct WantsRoom<'a>(&'a AtomicUsize);

impl<'a> WantsRoom<'a> {
    fn among(wanting: &'a AtomicUsize) -> Self {
        wanting.fetch_add(1, Ordering::AcqRel);
        Self(wanting)
    }
}

impl Drop for WantsRoom<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place among the living and among the starting; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _live: OwnedSemaphorePermit,
    starting: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// It has started: another may.
    pub(crate) fn started(&mut self) {
        self.starting = None;
    }
}

impl Admission {
    pub(crate) fn new(budget: Budget) -> Self {
        let permits = |count: u32| Arc::new(Semaphore::new(count.max(1) as usize));
        Self {
            live: permits(budget.live),
            starting: permits(budget.starting),
            next_start: Arc::new(Mutex::new(Instant::now())),
            interval: Duration::from_secs(1) / budget.per_second.max(1),
            wanting_room: Arc::default(),
        }
    }

    /// How many wait for one of the living to go.
    pub(crate) fn wanting_room(&self) -> usize {
        self.wanting_room.load(Ordering::Acquire)
    }

    /// Waits for a place, in the order of asking. `full` is called every second while all places of the living are taken.
    ///
    /// # Cancel safety
    /// Dropping it gives up the place in the line.
    pub(crate) async fn place(&self, full: impl Fn()) -> Option<Place> {
        let live = if let Ok(permit) = Arc::clone(&self.live).try_acquire_owned() {
            permit
        } else {
            let _wanting = WantsRoom::among(&self.wanting_room);
            let mut given = std::pin::pin!(Arc::clone(&self.live).acquire_owned());
            loop {
                full();
                if let Ok(permit) = tokio::time::timeout(FULL_AGAIN, &mut given).await {
                    break permit.ok()?;
                }
            }
        };
        let starting = Arc::clone(&self.starting).acquire_owned().await.ok()?;
        let start = {
            let mut next = self.next_start.lock().await;
            // An idle second may be made up for, no more.
            let now = Instant::now();
            let start = (*next).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
            *next = start + self.interval;
            start
        };
        tokio::time::sleep_until(start).await;
        Some(Place {
            _live: live,
            starting: Some(starting),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_the_cap_the_next_waits_until_a_place_is_given_back() {
        let admission = Admission::new(Budget {
            live: 1,
            starting: 5,
            per_second: 1000,
        });
        let first = admission
            .place(|| unreachable!("a place is free"))
            .await
            .expect("open");
        let full = std::cell::Cell::new(false);
        let mut second = std::pin::pin!(admission.place(|| full.set(true)));
        let early = tokio::time::timeout(Duration::from_mins(1), &mut second).await;
        assert!(early.is_err(), "the cap did not hold");
        assert_eq!(admission.wanting_room(), 1);
        drop(first);
        assert!(second.await.is_some());
        assert_eq!(admission.wanting_room(), 0);
        assert!(full.get(), "nobody was told to make room");
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_spread_over_the_second() {
        let admission = Admission::new(Budget {
            live: 100,
            starting: 100,
            per_second: 10,
        });
        let begin = Instant::now();
        let mut places = Vec::new();
        for _ in 0..40 {
            places.push(admission.place(|| ()).await);
        }
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_millis(2800) && took < Duration::from_millis(4200),
            "{took:?}"
        );
    }
}
