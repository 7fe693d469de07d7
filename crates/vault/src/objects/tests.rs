//! Objects in a bucket whose server is late, by a clock that the test moves.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use carrel_core::RepositoryId;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetResultPayload, ListResult, MultipartUpload, PutMultipartOptions, PutPayload,
    PutResult, Result,
};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::*;

#[derive(Debug, Default)]
struct Server {
    inner: InMemory,
    /// Whether nothing is ever answered.
    is_stuck: AtomicBool,
    /// So many writes meet another writer, who fails.
    taken: AtomicU32,
    writes: AtomicU32,
    /// Before each piece of a content.
    pause: Duration,
}

const PIECES: usize = 4;

impl Server {
    async fn answers(&self) {
        if self.is_stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("server")
    }
}

#[async_trait]
impl ObjectStore for Server {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.answers().await;
        self.writes.fetch_add(1, Ordering::SeqCst);
        let taken = self
            .taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if taken.is_ok() {
            return Err(object_store::Error::AlreadyExists {
                path: location.to_string(),
                source: "another writer".into(),
            });
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.answers().await;
        let mut found = self.inner.get_opts(location, options.clone()).await?;
        let whole = self
            .inner
            .get_opts(location, options)
            .await?
            .bytes()
            .await?;
        if !self.pause.is_zero() {
            let length = whole.len().div_ceil(PIECES).max(1);
            let pieces = whole.chunks(length).map(Bytes::copy_from_slice);
            let pause = self.pause;
            let late = stream::iter(pieces.collect::<Vec<_>>()).then(move |piece| async move {
                sleep(pause).await;
                Ok(piece)
            });
            found.payload = GetResultPayload::Stream(late.boxed());
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        if self.is_stuck.load(Ordering::SeqCst) {
            return stream::pending().boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.is_stuck.load(Ordering::SeqCst) {
            return stream::pending().boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.answers().await;
        self.inner.copy_opts(from, to, options).await
    }
}

const REPOSITORY: RepositoryId = RepositoryId(Uuid::from_u128(7));

fn name() -> String {
    "ab".repeat(32)
}

/// Objects on a server, with the mark.
async fn on(server: Server, conditional: bool) -> (Objects, Arc<Server>) {
    let server = Arc::new(server);
    let mark = Path::from("carrel-storage");
    let text = "carrel storage 1\n";
    server.inner.put(&mark, text.into()).await.unwrap();
    let store = Arc::<Server>::clone(&server);
    let place = Place::Bucket(Arc::new(Bucket::stand_in(conditional)));
    (Objects { store, place }, server)
}

async fn put(objects: &Objects, bytes: usize) -> Result<Put> {
    let content = Bytes::from(vec![7; bytes]);
    objects
        .put(REPOSITORY, FileKind::Data, &name(), content)
        .await
}

#[tokio::test(start_paused = true)]
async fn what_another_writer_failed_to_make_is_made_after_a_while_and_not_tried_for_ever() {
    let (objects, server) = on(Server::default(), true).await;
    server.taken.store(2, Ordering::SeqCst);
    let start = Instant::now();
    assert_eq!(put(&objects, 1).await.unwrap(), Put::New);
    assert!(start.elapsed() >= Duration::from_secs(1), "no pause");
    assert_eq!(server.writes.swap(0, Ordering::SeqCst), 3);

    objects
        .remove(REPOSITORY, FileKind::Data, &name())
        .await
        .unwrap();
    server.taken.store(u32::MAX, Ordering::SeqCst);
    put(&objects, 1).await.unwrap_err();
    assert_eq!(server.writes.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_for_ever() {
    for conditional in [true, false] {
        let (objects, server) = on(Server::default(), conditional).await;
        put(&objects, 1).await.unwrap();
        server.is_stuck.store(true, Ordering::SeqCst);
        let (data, name) = (FileKind::Data, name());
        let calls: [(&str, BoxFuture<'_>); 6] = [
            ("put", Box::pin(async { put(&objects, 1).await.map(drop) })),
            (
                "size",
                Box::pin(async { objects.size(REPOSITORY, data, &name).await.map(drop) }),
            ),
            (
                "read",
                Box::pin(async { objects.read(REPOSITORY, data, &name).await.map(drop) }),
            ),
            (
                "remove_all",
                Box::pin(async {
                    objects
                        .remove_all(REPOSITORY, data, std::slice::from_ref(&name))
                        .await
                }),
            ),
            (
                "put_aside",
                Box::pin(objects.put_aside(REPOSITORY, data, &name)),
            ),
            ("erase", Box::pin(objects.erase(REPOSITORY))),
        ];
        for (what, call) in calls {
            let ended = timeout(Duration::from_mins(5), call).await;
            ended.expect(what).expect_err(what);
        }
    }
}

type BoxFuture<'a> = std::pin::Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

#[tokio::test(start_paused = true)]
async fn a_large_object_may_take_longer_than_a_small_one() {
    let server = Server {
        pause: Duration::from_secs(25),
        ..Server::default()
    };
    let (objects, _) = on(server, true).await;
    put(&objects, 16 << 20).await.unwrap();
    let found = objects.read(REPOSITORY, FileKind::Data, &name()).await;
    assert_eq!(found.unwrap().unwrap().len(), 16 << 20);

    objects.erase(REPOSITORY).await.unwrap();
    put(&objects, PIECES).await.unwrap();
    let found = objects.read(REPOSITORY, FileKind::Data, &name()).await;
    found.expect_err("a few bytes in more than a minute");
}
