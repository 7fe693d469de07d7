use futures::future::join_all;
use futures::{FutureExt as _, Stream, stream};
use tokio::time::sleep;

use super::*;

/// So many pieces of so many bytes, each after a pause.
fn pieces(count: usize, bytes: usize, pause: Duration) -> Body {
    let pieces = stream::iter(0..count).then(move |_| async move {
        sleep(pause).await;
        Ok::<_, axum::Error>(Bytes::from(vec![0; bytes]))
    });
    Body::from_stream(pieces)
}

/// What has come, and then nothing.
fn silent_after(bytes: Bytes) -> Body {
    Body::from_stream(stream::once(async move { Ok::<_, axum::Error>(bytes) }).chain(never()))
}

fn never() -> impl Stream<Item = Result<Bytes, axum::Error>> {
    stream::pending()
}

/// An intake of which so many bytes are left.
fn with_left(bytes: usize) -> (Intake, OwnedSemaphorePermit) {
    let intake = Intake::of_files();
    let units = u32::try_from((FILES_ROOM - bytes) / UNIT).unwrap();
    let taken = Arc::clone(&intake.room).try_acquire_many_owned(units);
    (intake, taken.unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_is_silent_is_ended_and_holds_room_only_for_what_came() {
    let intake = Intake::of_files();
    let all = intake.room.available_permits();
    for (came, held) in [(0, 0), (3 * UNIT + 1, 4)] {
        let began = Instant::now();
        let mut taking = Box::pin(intake.take(silent_after(vec![0; came].into())));
        assert!(taking.as_mut().now_or_never().is_none());
        assert_eq!(intake.room.available_permits(), all - held);
        assert_eq!(taking.await.unwrap_err().code, Code::RequestTimeout);
        assert_eq!(began.elapsed(), SILENCE);
        assert_eq!(intake.room.available_permits(), all);
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_at_a_bearable_pace_may_take_long_and_what_trickles_is_ended() {
    let intake = Intake::of_files();
    let (piece, pause) = (SLOWEST as usize * 5, Duration::from_secs(5));
    let taken = intake.take(pieces(100, piece, pause)).await.unwrap();
    assert_eq!(taken.bytes.len(), 100 * piece);
    let began = Instant::now();
    // What came fast before gives no patience.
    let fast = pieces(100, piece, Duration::ZERO).into_data_stream();
    let slow = pieces(100, 1, pause).into_data_stream();
    let trickles = Body::from_stream(fast.chain(slow));
    let ended = intake.take(trickles).await.unwrap_err();
    assert_eq!(ended.code, Code::RequestTimeout);
    assert!(began.elapsed() <= SILENCE + pause);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_waits_a_little_and_is_told_to_come_again() {
    let (intake, taken) = with_left(UNIT);
    let past = intake.take(Body::from(vec![0; 2 * UNIT])).await.unwrap();
    let began = Instant::now();
    let refused = intake.take(Body::from(vec![0; 2 * UNIT])).await;
    assert_eq!(refused.unwrap_err().code, Code::Unavailable);
    assert_eq!(began.elapsed(), FOR_ROOM);
    let small = intake.take(Body::from(vec![0; UNIT])).await.unwrap();
    let mut next = Box::pin(intake.take(Body::from("x")));
    assert!(next.as_mut().now_or_never().is_none(), "there is no room");
    drop(small);
    let held = next.await.unwrap();
    assert_eq!(held.bytes, "x");
    let mut next = Box::pin(intake.take(Body::from("y")));
    assert!(next.as_mut().now_or_never().is_none(), "one at a time");
    drop(past);
    assert_eq!(next.await.unwrap().bytes, "y");
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn of_many_that_grow_at_the_same_pace_past_all_room_each_comes_to_its_end() {
    const EACH: usize = 8 << 20;
    let intake = Intake::of_files();
    let pause = Duration::from_millis(1);
    let sent = (0..=FILES_ROOM / EACH).map(|_| async {
        let taken = intake.take(pieces(EACH >> 16, 1 << 16, pause)).await;
        taken.map(|content| content.bytes.len())
    });
    let taken = join_all(sent).await;
    assert!(
        taken.iter().all(|taken| matches!(taken, Ok(EACH))),
        "{taken:?}"
    );
}

#[tokio::test]
async fn more_than_the_most_is_refused_whether_it_was_told_or_not() {
    let intake = Intake::of_files();
    let told = Body::from(vec![0; MOST + 1]);
    let untold = pieces((MOST >> 20) + 1, 1 << 20, Duration::ZERO);
    for body in [told, untold] {
        let refused = intake.take(body).await;
        assert_eq!(refused.unwrap_err().code, Code::BodyTooLarge);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_goes_by_for_a_short_while_only() {
    let began = Instant::now();
    discard(silent_after(Bytes::from_static(b"some"))).await;
    assert_eq!(began.elapsed(), GOES_BY_FOR);
    let (more, asked) = std::sync::mpsc::channel();
    let endless = stream::repeat_with(move || {
        more.send(()).unwrap();
        Ok::<_, axum::Error>(Bytes::from(vec![0; 1 << 20]))
    });
    discard(Body::from_stream(endless)).await;
    assert_eq!(asked.try_iter().count(), (GOES_BY >> 20) + 1);
}
