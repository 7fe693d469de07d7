//! Packs on their way to the vault, several at once: `rustic_core` hands them over one after the other.
//!
//! What names a pack, an index or a snapshot, is sent only after all packs before it are durable.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// So many packs are on their way at once. Each is in memory until it has arrived.
const AT_ONCE: usize = 4;

/// Packs on their way.
#[derive(Debug, Clone, Default)]
pub(super) struct Uploads(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    under_way: Mutex<usize>,
    arrived: Condvar,
}

/// One pack on its way, until this is dropped.
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self
            .0
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.arrived.notify_all();
    }
}

impl Uploads {
    /// Begins one, after waiting until there is room for it. Whoever uploads keeps a failure.
    pub(super) fn begin(&self, upload: impl FnOnce() + Send + 'static) {
        self.wait_until_fewer_than(AT_ONCE, |under_way| *under_way += 1);
        let under_way = UnderWay(Arc::clone(&self.0));
        thread::spawn(move || {
            let _under_way = under_way;
            upload();
        });
    }

    /// Waits until none is on its way.
    pub(super) fn settle(&self) {
        self.wait_until_fewer_than(1, |_| {});
    }

    fn wait_until_fewer_than(&self, most: usize, then: impl FnOnce(&mut usize)) {
        let under_way = self.0.under_way.lock();
        let under_way = under_way.unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.arrived.wait_while(under_way, |count| *count >= most);
        then(&mut waited.unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn as_many_as_may_go_at_once_and_the_next_one_waits() {
        let uploads = Uploads::default();
        let together = Arc::new(Barrier::new(AT_ONCE + 1));
        let (arrive, arrived) = channel::<()>();
        let arrived = Arc::new(Mutex::new(arrived));
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..AT_ONCE {
            let (together, arrived) = (Arc::clone(&together), Arc::clone(&arrived));
            let done = Arc::clone(&done);
            uploads.begin(move || {
                // None would go on if they came one by one.
                together.wait();
                arrived.lock().unwrap().recv().unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        together.wait();
        let (more, seen) = (uploads.clone(), Arc::clone(&done));
        let next = thread::spawn(move || {
            let (tell, told) = channel();
            more.begin(move || tell.send(seen.load(Ordering::SeqCst)).unwrap());
            told.recv().unwrap()
        });
        assert_eq!(done.load(Ordering::SeqCst), 0);
        arrive.send(()).unwrap();
        assert!(next.join().unwrap() >= 1, "it waited for none");
        for _ in 1..AT_ONCE {
            arrive.send(()).unwrap();
        }
        uploads.settle();
        assert_eq!(done.load(Ordering::SeqCst), AT_ONCE);
    }

    #[test]
    fn one_that_panics_is_waited_for_like_any_other() {
        let uploads = Uploads::default();
        let (tell, told) = channel::<()>();
        uploads.begin(move || {
            let _said_when_it_ends = tell;
            std::panic::resume_unwind(Box::new("a defect"));
        });
        uploads.settle();
        told.recv().unwrap_err();
    }
}
