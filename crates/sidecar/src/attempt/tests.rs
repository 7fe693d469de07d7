use carrel_core::MessageId;
use carrel_protocol::agent::Message;
use futures::StreamExt;
use jiff::Timestamp;
use uuid::Uuid;

use super::*;

fn attempt() -> Arc<Attempt> {
    let message = Message {
        message_id: MessageId(Uuid::from_u128(1)),
        text: "hello".to_owned(),
        attachments: Vec::new(),
        sent_time: Timestamp::UNIX_EPOCH,
    };
    Arc::new(Attempt::new(TurnOrder {
        turn_id: TurnId(Uuid::from_u128(2)),
        attempt: 3,
        message,
        attachments: Vec::new(),
        context: Vec::new(),
        restore_ms: 0,
    }))
}

fn text(text: &str) -> Frame {
    Frame::Text {
        text: text.to_owned(),
    }
}

fn status(text: &str) -> Frame {
    Frame::Status {
        text: text.to_owned(),
    }
}

fn died() -> Frame {
    Frame::Died {
        by_agent: true,
        reason: "signal 9".to_owned(),
    }
}

#[tokio::test]
async fn who_comes_late_hears_all_of_it_in_order_with_text_joined() {
    let attempt = attempt();
    for piece in ["a", "b"] {
        attempt.say(piece).expect("little");
    }
    attempt.mark(status("thinking")).expect("little");
    attempt.say("c").expect("little");
    attempt.end(died());
    attempt.end(Frame::Snapshotting);
    let heard: Vec<Frame> = attempt.frames().collect().await;
    assert_eq!(heard, [text("ab"), status("thinking"), text("c"), died()]);
}

#[tokio::test]
async fn who_listens_hears_each_piece_once_while_it_is_said() {
    let attempt = attempt();
    let mut frames = Box::pin(Arc::clone(&attempt).frames());
    attempt.say("one").expect("little");
    assert_eq!(frames.next().await, Some(text("one")));
    let listen = async { (frames.next().await, frames.next().await) };
    let talk = async {
        attempt.say("two").expect("little");
        tokio::task::yield_now().await;
        attempt.end(died());
    };
    let ((said, ended), ()) = tokio::join!(listen, talk);
    assert_eq!((said, ended), (Some(text("two")), Some(died())));
    assert_eq!(frames.next().await, None);
}

#[test]
fn a_reply_and_its_lines_are_bounded() {
    let attempt = attempt();
    attempt.say(&"x".repeat(TEXT_BYTES)).expect("just enough");
    assert_eq!(attempt.say("y"), Err(TooMuch));
    for _ in 0..MARKS {
        attempt
            .mark(status(&"ä".repeat(LINE_BYTES)))
            .expect("few enough");
    }
    assert_eq!(attempt.mark(status("z")), Err(TooMuch));
    let kept: usize = attempt.read(|log| {
        log.marks
            .iter()
            .map(|(_, f)| {
                if let Frame::Status { text } = f {
                    text.len()
                } else {
                    0
                }
            })
            .sum()
    });
    assert_eq!(kept, MARKS * LINE_BYTES);
}
