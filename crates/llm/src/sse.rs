//! Splits a stream of server-sent events into frames without changing a byte (WHATWG HTML, section 9.2.5). The relay
//! sends `raw` on and shows `event` and `data` to the meter.

/// One event, or comments alone, up to and including its blank line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The bytes as they came.
    pub raw: Vec<u8>,
    /// The `event` field.
    pub event: Option<String>,
    /// The `data` fields, joined by line feeds; empty in a comment.
    pub data: String,
}

/// Takes bytes in pieces of any size and gives whole frames.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// How far the buffer is searched.
    searched: usize,
    /// Where the line that is being searched begins.
    line: usize,
}

impl Splitter {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the end of their frame.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// What was never ended; for the end of the stream.
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Option<Frame> {
        while let Some(&byte) = self.buffer.get(self.searched) {
            let width = match byte {
                b'\n' => 1,
                b'\r' => match self.buffer.get(self.searched + 1) {
                    Some(b'\n') => 2,
                    Some(_) => 1,
                    // Whether a line feed belongs to it is in the next piece.
                    None => return None,
                },
                _ => {
                    self.searched += 1;
                    continue;
                }
            };
            let blank = self.line == self.searched;
            self.searched += width;
            self.line = self.searched;
            if blank {
                let raw: Vec<u8> = self.buffer.drain(..self.searched).collect();
                (self.searched, self.line) = (0, 0);
                return Some(read(raw));
            }
        }
        None
    }
}

fn read(raw: Vec<u8>) -> Frame {
    let text = String::from_utf8_lossy(&raw);
    let (mut event, mut data) = (None, Vec::new());
    for line in text.split(['\n', '\r']) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event = Some(value.to_owned()),
            "data" => data.push(value.to_owned()),
            _ => {}
        }
    }
    Frame {
        event,
        data: data.join("\n"),
        raw,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(pieces: &[&[u8]]) -> (Vec<Frame>, Vec<u8>) {
        let (mut splitter, mut found) = (Splitter::default(), Vec::new());
        for piece in pieces {
            splitter.push(piece);
            while let Some(frame) = splitter.next_frame() {
                found.push(frame);
            }
        }
        (found, splitter.into_rest())
    }

    const STREAM: &str = "event: a\ndata: {\"x\":\"ü\"}\n\n: ping\n\nevent: b\r\ndata: one\r\ndata: two\r\n\r\ndata: [DONE]\n\ndata: cut";

    #[test]
    fn events_comments_and_both_line_ends_are_read() {
        let (found, rest) = frames(&[STREAM.as_bytes()]);
        let read: Vec<_> = found
            .iter()
            .map(|frame| (frame.event.as_deref(), frame.data.as_str()))
            .collect();
        let expected = [
            (Some("a"), "{\"x\":\"ü\"}"),
            (None, ""),
            (Some("b"), "one\ntwo"),
            (None, "[DONE]"),
        ];
        assert_eq!(read, expected);
        assert_eq!(rest, b"data: cut");
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames_and_the_same_bytes(cuts in prop::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &STREAM.as_bytes()[pair[0]..pair[1]]).collect();
            let (found, rest) = frames(&pieces);
            prop_assert_eq!(&frames(&[STREAM.as_bytes()]).0, &found);
            let mut bytes: Vec<u8> = found.into_iter().flat_map(|frame| frame.raw).collect();
            bytes.extend(rest);
            prop_assert_eq!(bytes, STREAM.as_bytes());
        }
    }
}
