//! A message's files, written into the workspace before the agent hears of it: `inbox/<message>/<name>`.
//!
//! The agent may run meanwhile and the workspace is its own: no link is followed on the way.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carrel_core::MessageId;
use carrel_protocol::agent::{Attachment, Exchange, TurnRequest};
use carrel_protocol::sidecar::TurnOrder;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

/// The folder in the workspace.
const INBOX: &str = "inbox";
/// The most bytes of `CARREL_CONTEXT`: written twice as long at most, it still fits an order to the shim.
const CONTEXT_BYTES: usize = 32 * 1024;
/// How a text ends that is not all there.
const SHORTENED: &str = " … (shortened)";

/// Writes the attachments; what the agent is told.
pub(super) fn deliver(workspace: &Path, order: TurnOrder) -> io::Result<TurnRequest> {
    let mut message = order.message;
    if !order.attachments.is_empty() {
        let folder = folder(workspace, message.message_id)?;
        for (index, file) in order.attachments.into_iter().enumerate() {
            let name = file_name(index, &file.name);
            let data = STANDARD.decode(&file.data).map_err(io::Error::other)?;
            write(&folder, &name, &data)?;
            message.attachments.push(Attachment {
                path: format!("{INBOX}/{}/{name}", message.message_id),
                name: file.name,
                media_type: file.media_type,
            });
        }
    }
    Ok(TurnRequest {
        turn_id: order.turn_id,
        message,
        context: order.context,
    })
}

/// What a `Command` is told beside the text.
pub(super) fn environment(workspace: &Path, request: &TurnRequest) -> Vec<(String, String)> {
    let mut environment = vec![(
        "CARREL_MESSAGE".to_owned(),
        request.message.message_id.to_string(),
    )];
    if !request.message.attachments.is_empty() {
        let inbox = workspace
            .join(INBOX)
            .join(request.message.message_id.to_string());
        environment.push(("CARREL_INBOX".to_owned(), inbox.display().to_string()));
    }
    if !request.context.is_empty() {
        environment.push(("CARREL_CONTEXT".to_owned(), newest(&request.context)));
    }
    environment
}

/// As many of the exchanges as there is room for, the newest of them, as JSON.
fn newest(context: &[Exchange]) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut room = CONTEXT_BYTES;
    for exchange in context.iter().rev() {
        let text = serde_json::to_string(exchange).unwrap_or_default();
        let Some(left) = room.checked_sub(text.len() + 1) else {
            if texts.is_empty() {
                texts.push(serde_json::to_string(&shortened(exchange)).unwrap_or_default());
            }
            break;
        };
        room = left;
        texts.push(text);
    }
    texts.reverse();
    format!("[{}]", texts.join(","))
}

/// The same exchange, short enough to be told alone: of both texts the beginning, of neither less than half of the room
/// unless it is shorter.
fn shortened(exchange: &Exchange) -> Exchange {
    let room = CONTEXT_BYTES - r#"{"message":"","reply":""},"#.len();
    let left_by = |other: &str| room - other.chars().map(escaped).sum::<usize>().min(room / 2);
    Exchange {
        message: beginning(&exchange.message, left_by(&exchange.reply)),
        reply: beginning(&exchange.reply, left_by(&exchange.message)),
    }
}

/// As much of a text as has room in JSON, marked where it is not all of it.
fn beginning(text: &str, room: usize) -> String {
    let kept_within = |room: usize| {
        let mut end = 0;
        let mut ends = text.char_indices().map(|(at, char)| {
            end += escaped(char);
            (at, end)
        });
        ends.find(|(_, end)| *end > room).map(|(at, _)| &text[..at])
    };
    if kept_within(room).is_none() {
        return text.to_owned();
    }
    let kept = kept_within(room - SHORTENED.len()).unwrap_or(text);
    format!("{kept}{SHORTENED}")
}

/// How many bytes JSON has for a character.
fn escaped(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        char if char < ' ' => 6,
        char => char.len_utf8(),
    }
}

fn folder(workspace: &Path, message: MessageId) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(CWD, workspace, flags, Mode::empty())?;
    for name in [INBOX.to_owned(), message.to_string()] {
        match mkdirat(&at, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at = openat(&at, &name, flags, Mode::empty())?;
    }
    Ok(at)
}

fn write(folder: &OwnedFd, name: &str, data: &[u8]) -> io::Result<()> {
    match unlinkat(folder, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::from_raw_mode(0o644))?;
    File::from(file).write_all(data)
}

/// A name that is only a name. Numbered from the second on, so that equal ones do not meet.
fn file_name(index: usize, name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_control() || matches!(c, '/' | '\\') {
                '_'
            } else {
                c
            }
        })
        .collect();
    let mut plain = plain.trim_start_matches('.');
    while plain.len() > 150 {
        plain = &plain[..plain.len() - plain.chars().next_back().map_or(1, char::len_utf8)];
    }
    match (index, plain) {
        (_, "") => format!("file-{}", index + 1),
        (0, plain) => plain.to_owned(),
        (_, plain) => format!("{}-{plain}", index + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leads_anywhere() {
        assert_eq!(file_name(0, "notes.pdf"), "notes.pdf");
        assert_eq!(file_name(1, "notes.pdf"), "2-notes.pdf");
        assert_eq!(file_name(0, "../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(file_name(0, ".."), "file-1");
        assert_eq!(file_name(2, "a\nb\0"), "3-a_b_");
        assert!(file_name(0, &"ä".repeat(400)).len() <= 150);
    }

    #[test]
    fn a_long_context_is_cut_between_exchanges_and_the_newest_stay() {
        let exchange = |number: usize| Exchange {
            message: format!("{number}: {}", "问\"".repeat(1000)),
            reply: "答".repeat(1000),
        };
        let context: Vec<Exchange> = (0..20).map(exchange).collect();
        let told = newest(&context);
        assert!(told.len() <= CONTEXT_BYTES + 1, "{}", told.len());
        let told: Vec<Exchange> = serde_json::from_str(&told).expect("whole");
        assert!(told.len() > 2, "{}", told.len());
        assert_eq!(told, context[context.len() - told.len()..]);
        assert_eq!(newest(&[]), "[]");
    }

    #[test]
    fn the_newest_exchange_is_shortened_where_it_alone_is_too_long() {
        let tell = |message: &str, reply: &str| {
            let (message, reply) = (message.to_owned(), reply.to_owned());
            let older = Exchange {
                message: "older".to_owned(),
                reply: String::new(),
            };
            let told = newest(&[older, Exchange { message, reply }]);
            assert!(told.len() <= CONTEXT_BYTES + 1, "{}", told.len());
            let mut told: Vec<Exchange> = serde_json::from_str(&told).expect("whole");
            assert_eq!(told.len(), 1);
            told.remove(0)
        };
        let is_beginning = |told: &str, text: &str| {
            let kept = told.strip_suffix(SHORTENED).expect("it is marked");
            assert!(text.starts_with(kept), "{kept}");
            kept.len()
        };
        for text in ["a", "问", "🦉", "\"\n", "\u{1}", "\u{7f}é\\"] {
            let long = format!("x{}", text.repeat(40_000));
            let told = tell(&long, "short");
            is_beginning(&told.message, &long);
            assert_eq!(told.reply, "short");
            let bytes = serde_json::to_string(&told).expect("JSON").len();
            assert!(bytes > CONTEXT_BYTES - 8, "no room is wasted: {bytes}");

            let told = tell(&long, &long);
            let kept = is_beginning(&told.message, &long);
            assert_eq!(is_beginning(&told.reply, &long), kept);
        }
    }

    #[test]
    fn a_link_in_the_inbox_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (workspace, outside) = (folder.path().join("w"), folder.path().join("outside"));
        std::fs::create_dir(&workspace).expect("made");
        std::fs::create_dir(&outside).expect("made");
        std::os::unix::fs::symlink(&outside, workspace.join(INBOX)).expect("linked");
        let message = MessageId(uuid::Uuid::from_u128(5));
        assert!(super::folder(&workspace, message).is_err());
        std::fs::remove_file(workspace.join(INBOX)).expect("removed");
        let inbox = super::folder(&workspace, message).expect("made");
        std::os::unix::fs::symlink(
            outside.join("x"),
            workspace.join(INBOX).join(message.to_string()).join("a"),
        )
        .expect("linked");
        write(&inbox, "a", b"text").expect("written");
        assert!(!outside.join("x").exists());
    }
}
