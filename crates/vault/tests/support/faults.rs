//! An object store that fails on demand, and counts.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    None,
    /// Reading gives an input/output error.
    Read,
    /// There is no room.
    Full,
    /// Reading gets no answer.
    Stall,
}

#[derive(Debug)]
pub(crate) struct Faulty<T> {
    pub(crate) inner: T,
    pub(crate) switch: Arc<Switch>,
}

#[derive(Debug, Default)]
pub(crate) struct Switch {
    fault: AtomicU8,
    /// Listing below this gives an input/output error.
    pub(crate) unreadable: Mutex<Option<Path>>,
    /// Below this nothing is ever listed.
    pub(crate) stalled: Mutex<Option<Path>>,
    /// Whether somebody has waited for such a list, or for a reading that got no answer.
    pub(crate) has_stalled: AtomicBool,
    /// How many packs were begun, and until how many are no pack is written.
    pub(crate) packs: watch::Sender<usize>,
    pub(crate) together: AtomicUsize,
    /// Places written, each with whether it was create-only, in the order in which writing ended.
    pub(crate) written: Mutex<Vec<(String, bool)>>,
    /// How many indexes were begun to be read, and until how many are none is read.
    pub(crate) indexes: watch::Sender<usize>,
    pub(crate) indexes_together: AtomicUsize,
    /// Places read or looked at, in order.
    pub(crate) read: Mutex<Vec<String>>,
}

impl Switch {
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault.load(Ordering::SeqCst) == fault as u8
    }

    fn fails(&self, fault: Fault, kind: std::io::ErrorKind) -> Result<()> {
        if self.has(fault) {
            return Err(object_store::Error::Generic {
                store: "faulty",
                source: Box::new(std::io::Error::from(kind)),
            });
        }
        Ok(())
    }
}

impl<T: fmt::Display> fmt::Display for Faulty<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for Faulty<T> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.switch
            .fails(Fault::Full, std::io::ErrorKind::StorageFull)?;
        if location.as_ref().contains("/data/") {
            self.switch.packs.send_modify(|begun| *begun += 1);
            let together = self.switch.together.load(Ordering::SeqCst);
            let mut packs = self.switch.packs.subscribe();
            let begun = packs.wait_for(|begun| *begun >= together).await;
            begun.expect("the switch lives on");
        }
        let create = options.mode == PutMode::Create;
        let result = self.inner.put_opts(location, payload, options).await?;
        let mut written = self.switch.written.lock().expect("not poisoned");
        written.push((location.to_string(), create));
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.switch.fails(Fault::Read, std::io::ErrorKind::Other)?;
        let place = location.to_string();
        self.switch.read.lock().expect("not poisoned").push(place);
        if self.switch.has(Fault::Stall) {
            self.switch.has_stalled.store(true, Ordering::SeqCst);
            return futures::future::pending().await;
        }
        if location.as_ref().contains("/index/") {
            self.switch.indexes.send_modify(|begun| *begun += 1);
            let together = self.switch.indexes_together.load(Ordering::SeqCst);
            let mut indexes = self.switch.indexes.subscribe();
            let begun = indexes.wait_for(|begun| *begun >= together).await;
            begun.expect("the switch lives on");
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let is_below = |place: &Mutex<Option<Path>>| {
            let place = place.lock().expect("not poisoned");
            place
                .as_ref()
                .zip(prefix)
                .is_some_and(|(place, prefix)| prefix.prefix_matches(place))
        };
        if is_below(&self.switch.unreadable) {
            let error = object_store::Error::Generic {
                store: "faulty",
                source: Box::new(std::io::Error::from(std::io::ErrorKind::Other)),
            };
            return futures::stream::iter([Err(error)]).boxed();
        }
        if is_below(&self.switch.stalled) {
            self.switch.has_stalled.store(true, Ordering::SeqCst);
            return futures::stream::pending().boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
