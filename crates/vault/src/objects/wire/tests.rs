use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use object_store::aws::AmazonS3ConfigKey;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore as _, ObjectStoreExt as _};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::*;
use crate::objects::{Trouble, bucket};
use crate::{S3, S3Credentials, S3Keys};

/// A server that answers after a while, by a clock that the test moves.
#[derive(Debug)]
struct Server {
    head: Duration,
    /// Before each piece of the body, one byte each.
    pieces: Vec<Duration>,
}

#[async_trait]
impl HttpService for Server {
    async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        sleep(self.head).await;
        let pieces = stream::iter(self.pieces.clone()).then(|pause| async move {
            sleep(pause).await;
            Ok::<_, HttpError>(bytes::Bytes::from_static(b"x"))
        });
        let body = StreamBody::new(pieces.map(|piece| piece.map(hyper::body::Frame::data)));
        Ok(HttpResponse::new(HttpResponseBody::new(body)))
    }
}

async fn answered(server: Server, sent: usize) -> Result<usize, HttpError> {
    let service = Service {
        inner: HttpClient::new(server),
    };
    let request = HttpRequest::new(vec![0; sent].into());
    let answer = service.call(request).await?;
    Ok(answer.into_body().collect().await?.to_bytes().len())
}

#[tokio::test(start_paused = true)]
async fn a_content_that_goes_on_may_take_long_and_one_that_stops_is_given_up() {
    let slow = Server {
        head: Duration::from_secs(20),
        pieces: vec![Duration::from_secs(20); 9],
    };
    assert_eq!(answered(slow, 0).await.unwrap(), 9);
    let start = Instant::now();
    let stops = Server {
        head: Duration::ZERO,
        pieces: vec![Duration::from_secs(20), Duration::from_hours(1)],
    };
    let error = answered(stops, 0).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Timeout);
    assert_eq!(start.elapsed(), Duration::from_secs(20) + QUIET);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_waited_for_by_what_was_sent() {
    let late = || Server {
        head: Duration::from_mins(2),
        pieces: Vec::new(),
    };
    let error = answered(late(), 0).await.unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Timeout);
    assert_eq!(answered(late(), 16 << 20).await.unwrap(), 0);
}

const TOKEN: &str = "bGVudC1mb3ItYW4taG91ci1hbmQtbm90LWxvbmdlcg";

fn options(endpoint: String) -> S3 {
    S3 {
        bucket: "snapshots".to_owned(),
        prefix: String::new(),
        endpoint,
        region: "us-east-1".to_owned(),
        path_style: true,
        keys: S3Keys::Fixed(S3Credentials {
            access_key_id: "an-id".to_owned(),
            secret_access_key: "a-secret".to_owned().into(),
            session_token: Some(TOKEN.to_owned().into()),
        }),
        authorities: None,
        may_be_new: true,
    }
}

#[test]
fn no_request_is_bounded_by_the_time_of_all_of_it() {
    let client = bucket::builder(&options(String::new())).unwrap();
    let bound = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
    assert_eq!(client.get_config_value(&bound), None);
}

/// A server that refuses and says what it was asked, and by which keys.
async fn quoting(headers: HeaderMap) -> (StatusCode, String) {
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap();
    let (token, signature) = (
        header("x-amz-security-token"),
        header("authorization").rsplit_once('=').unwrap().1,
    );
    let message = match headers.get("range") {
        None => "The provided token is malformed or otherwise invalid.".to_owned(),
        Some(_) => format!("{token} is invalid"),
    };
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>InvalidToken</Code><Message>{message}</Message>\
         <Token-0>{token}</Token-0><SignatureProvided>{signature}</SignatureProvided></Error>"
    );
    (StatusCode::FORBIDDEN, text)
}

#[tokio::test]
async fn a_refusal_is_told_by_its_code_and_message_and_never_with_a_key() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let served = axum::serve(listener, Router::new().fallback(quoting));
    TaskTracker::new().spawn(async move { served.await.unwrap() });
    let store = bucket::builder(&options(endpoint))
        .unwrap()
        .build()
        .unwrap();

    let place = Path::from("some/object");
    let refused = [
        ("get", store.get(&place).await.map(drop)),
        ("part", store.get_range(&place, 0..7).await.map(drop)),
        ("put", store.put(&place, "content".into()).await.map(drop)),
        ("copy", store.copy(&place, &Path::from("other")).await),
        ("delete", store.delete(&place).await),
        ("list", store.list_with_delimiter(None).await.map(drop)),
    ];
    for (what, refused) in refused {
        let error = refused.expect_err(what);
        assert_eq!(Trouble::of(&error), Trouble::NotAllowed, "{what}");
        let all = format!("{error} {error:?}");
        assert!(all.contains("403"), "{what}: {all}");
        assert!(all.contains("InvalidToken"), "{what}: {all}");
        let quotes = all.contains("malformed or otherwise invalid");
        assert_eq!(quotes, what != "part", "{what}: {all}");
        for secret in [TOKEN, "Provided>", "a-secret"] {
            assert!(!all.contains(secret), "{what}: {all}");
        }
    }
}

#[test]
fn what_a_server_says_after_it_began_well_is_heard_too() {
    let text =
        "<Error>\n<Code>SlowDown</Code><Message>Please\nreduce</Message><HostId>x</HostId></Error>";
    assert_eq!(told(text, &[]).unwrap(), "SlowDown: Please reduce");
    assert_eq!(told("<CopyObjectResult></CopyObjectResult>", &[]), None);
}
