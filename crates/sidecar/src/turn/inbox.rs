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
            break;
        };
        room = left;
        texts.push(text);
    }
    texts.reverse();
    format!("[{}]", texts.join(","))
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
