//! How many pages a PDF has at most, without a reader of PDFs (ISO 32000-1, sections 7.5.7 and 7.7.3): the largest number
//! that its page tree tells in plain sight and in packed streams of objects. Where it tells none, its size decides; where pages
//! could hide or come again, it counts as the longest that providers take (Anthropic, "PDF support": 600 pages): under
//! encryption, in a stream of objects that does not unpack or is not found, behind a name that is written in escapes, in a list
//! of children that is elsewhere or names one child twice. That is no proof that no reader finds more: what a provider bills above it is
//! charged in full.

use std::collections::HashSet;
use std::io::Read as _;

use flate2::bufread::ZlibDecoder;

/// The shortest page, for documents that do not tell how many they have.
const PAGE_BYTES: u64 = 4_000;
/// What providers take at most.
const MOST_PAGES: u64 = 600;
/// What is unpacked of streams of objects for one request at most, and of one document how many times its size beside a little; one that holds more
/// counts as the longest. So a request of many small ones does not make us unpack without end. Pictures, which unpack to many
/// times their size, are left packed.
const MOST_UNPACKED: u64 = 32 << 20;
const MOST_TIMES: u64 = 16;
const A_LITTLE: u64 = 64 << 10;
/// Of every stream so much is unpacked to see whether it holds objects.
const PEEK: usize = 64;
/// And for one request so much altogether of streams that go on as a stream of objects may open: a black picture does.
const MOST_OPENING: u64 = 128 << 20;
const PIECE: usize = 8 << 10;
/// Between a name and its value.
const MOST_BLANKS: usize = 256;
/// What a page tree is read by.
const TELLING: [&[u8]; 7] = [
    b"Page", b"Kids", b"Type", b"Count", b"ObjStm", b"First", b"Encrypt",
];

/// What may still be unpacked for one request.
#[derive(Debug)]
pub(crate) struct Room {
    objects: u64,
    opening: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            objects: MOST_UNPACKED,
            opening: MOST_OPENING,
        }
    }
}

pub(crate) fn pages(pdf: &[u8], room: &mut Room) -> u64 {
    let by_size = (pdf.len() as u64).div_ceil(PAGE_BYTES).max(1);
    if hides_pages(pdf) {
        return MOST_PAGES;
    }
    let Some(packed) = told_in_streams(pdf, room, &mut 0) else {
        return MOST_PAGES;
    };
    match told_pages(pdf).plus(packed).most() {
        0 => by_size,
        told => told,
    }
    .min(MOST_PAGES)
}

/// What the packed streams of objects tell; `None` where one could hide pages or they hold too much. `read` counts the bytes that
/// were unpacked.
fn told_in_streams(pdf: &[u8], room: &mut Room, read: &mut u64) -> Option<Told> {
    let size = pdf.len() as u64;
    let mut told = Told::default();
    // What is said to be a stream of objects and was not found yet.
    let mut names = after(pdf, OBJECTS).count();
    let mut firsts = after(pdf, FIRST).filter(|rest| is_direct(rest)).count();
    if after(pdf, FIRST).next().is_none() {
        return (names == 0).then_some(told);
    }
    let mut left = room.objects.min(MOST_TIMES * size + A_LITTLE);
    let mut unpacked = Vec::new();
    let mut unpacking = ZlibDecoder::new(&[][..]);
    let mut before = 0;
    for start in streams(pdf) {
        let dictionary = dictionary(&pdf[before..start]);
        before = start;
        unpacking.reset(&pdf[start..]);
        let holds_objects = opens_as_objects(&mut unpacking, &mut unpacked, &mut room.opening);
        let mut is_readable = is_packed_once(dictionary);
        if holds_objects == Some(true) {
            // Of what is broken, readers may find more than this unpacks to.
            is_readable &= unpacking
                .by_ref()
                .take(left)
                .read_to_end(&mut unpacked)
                .is_ok();
        }
        // Streams do not overlap and are longer than a peek: whoever makes us read the same bytes again and again wastes our
        // time.
        *read += unpacking.total_in().max(PEEK as u64);
        is_readable &= holds_objects?;
        if *read >= 2 * size || declares_objects(dictionary) && !is_readable {
            return None;
        }
        if holds_objects == Some(false) {
            continue;
        }
        left = left.saturating_sub(unpacked.len() as u64);
        room.objects = room.objects.saturating_sub(unpacked.len() as u64);
        if left == 0 || hides_pages(&unpacked) {
            return None;
        }
        told = told.plus(told_pages(&unpacked));
        names += after(&unpacked, OBJECTS).count();
        names = names.saturating_sub(after(dictionary, OBJECTS).count().min(1));
        firsts = firsts.saturating_sub(after(dictionary, FIRST).count().min(1));
    }
    (names == 0 && firsts == 0).then_some(told)
}

/// The name of a stream of objects, and that of the place of its first one, which no other stream has.
const OBJECTS: &[u8] = b"/ObjStm";
const FIRST: &[u8] = b"/First";

/// The dictionary of a stream, at the end of what comes before it.
fn dictionary(before: &[u8]) -> &[u8] {
    let begins = memchr::memmem::rfind(before, b"obj");
    &before[begins.unwrap_or(0)..]
}

fn declares_objects(dictionary: &[u8]) -> bool {
    after(dictionary, FIRST).any(ends_name)
        // Of a kind that is told elsewhere.
        || after(dictionary, b"/Type").any(|rest| {
            ends_name(rest) && skip_blanks(rest).first().is_none_or(u8::is_ascii_digit)
        })
}

/// Whether nothing but one plain packing lies between what is read here and what readers of PDFs see.
fn is_packed_once(dictionary: &[u8]) -> bool {
    let has = |name| after(dictionary, name).any(ends_name);
    let is_plain = |filter: &[u8]| {
        let filter = skip_blanks(filter);
        let list = filter.strip_prefix(b"[");
        let rest = skip_blanks(list.unwrap_or(filter)).strip_prefix(b"/FlateDecode");
        rest.is_some_and(|rest| list.is_none() || skip_blanks(rest).starts_with(b"]"))
    };
    let mut filters = after(dictionary, b"/Filter");
    filters.next().is_some_and(is_plain)
        && filters.next().is_none()
        && !has(b"/F")
        && !has(b"/DP")
        && !has(b"/DecodeParms")
        && !dictionary.contains(&b'#')
}

/// Whether a name ends here.
fn ends_name(rest: &[u8]) -> bool {
    !rest.first().is_some_and(u8::is_ascii_alphanumeric)
}

/// Whether what follows a name may be a number and not a reference to another object.
fn is_direct(rest: &[u8]) -> bool {
    let value = skip_blanks(rest);
    let digits = value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let is_reference = || {
        skip_blanks(&value[digits..])
            .first()
            .is_some_and(u8::is_ascii_digit)
    };
    ends_name(rest) && (value.is_empty() || digits > 0 && !is_reference())
}

/// What comes next after blanks and comments, as far as it matters; nothing where there are too many of them.
fn skip_blanks(text: &[u8]) -> &[u8] {
    let mut text = &text[..text.len().min(MOST_BLANKS)];
    loop {
        text = &text[text.iter().take_while(|byte| is_blank(**byte)).count()..];
        if !text.starts_with(b"%") {
            return text;
        }
        let line = memchr::memchr2(b'\n', b'\r', text);
        text = &text[line.unwrap_or(text.len())..];
    }
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0
}

/// Whether a stream may be one of objects, whatever it is called: such open with an object's number and its place, after blanks
/// and comments of any length. `None` where it does not show within the room. Leaves in `unpacked` what is known of it.
fn opens_as_objects(
    unpacking: &mut ZlibDecoder<&[u8]>,
    unpacked: &mut Vec<u8>,
    room: &mut u64,
) -> Option<bool> {
    let mut opening = Opening::default();
    let mut piece = PEEK;
    loop {
        unpacked.resize(piece, 0);
        // What is broken or packed otherwise unpacks to nothing.
        let length = unpacking.read(unpacked).unwrap_or(0);
        unpacked.truncate(length);
        let shows = unpacked.iter().find_map(|byte| opening.read(*byte));
        if length == 0 || shows.is_some() {
            return Some(shows == Some(true));
        }
        *room = room.saturating_sub(length as u64);
        if *room == 0 {
            return None;
        }
        piece = PIECE;
    }
}

/// The opening of a stream, as far as it was read.
#[derive(Debug, Default)]
struct Opening {
    within: Within,
    has_number: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Within {
    #[default]
    Blanks,
    Comment,
    Number,
    /// Some readers take 1.0 for 1.
    Fraction,
}

impl Opening {
    /// Whether the stream may be one of objects, if this byte shows it.
    fn read(&mut self, byte: u8) -> Option<bool> {
        let next = match (byte, self.within) {
            (b'\n' | b'\r', _) => Within::Blanks,
            (_, Within::Comment) | (b'%', _) => Within::Comment,
            (byte, _) if is_blank(byte) => Within::Blanks,
            (b'.', _) | (b'0', Within::Fraction) => Within::Fraction,
            (b'+' | b'-', Within::Blanks) => Within::Number,
            (digit, Within::Blanks | Within::Number) if digit.is_ascii_digit() => Within::Number,
            _ => return Some(false),
        };
        let is_number = |within| matches!(within, Within::Number | Within::Fraction);
        self.has_number |= is_number(self.within) && !is_number(next);
        self.within = next;
        (self.has_number && is_number(next)).then_some(true)
    }
}

/// Three ways in which a page tree tells how many leaves it has.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    count: u64,
    leaves: u64,
    children: u64,
}

impl Told {
    fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.max(other.count),
            leaves: self.leaves + other.leaves,
            children: self.children + other.children,
        }
    }

    fn most(self) -> u64 {
        self.count.max(self.leaves).max(self.children)
    }
}

fn told_pages(text: &[u8]) -> Told {
    let mut told = Told::default();
    for rest in after(text, b"/Count") {
        told.count = told.count.max(number(rest));
    }
    for rest in after(text, b"/Type") {
        let leaf = rest.trim_ascii_start().strip_prefix(b"/Page");
        told.leaves += u64::from(leaf.is_some_and(ends_name));
    }
    for children in children(text).flatten() {
        told.children += after(children, b" R").count() as u64;
    }
    told
}

/// Whether pages could be where they are not counted, or be counted once and come more often.
fn hides_pages(text: &[u8]) -> bool {
    let names_twice = |list: Option<&[u8]>| {
        let Some(list) = list else {
            return true;
        };
        let words = list.split(u8::is_ascii_whitespace);
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let mut seen = HashSet::new();
        words
            .chunks(3)
            .any(|child| child.len() == 3 && !seen.insert(child))
    };
    after(text, b"/Encrypt").next().is_some()
        || children(text).any(names_twice)
        || after(text, b"/").any(is_disguised)
}

/// Whether a name by which pages are found is written in escapes, which nobody does who does not hide it. Other names have
/// escapes for good reasons, and between packed bytes anything looks like one.
fn is_disguised(name: &[u8]) -> bool {
    let end = name
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'#');
    let mut rest = &name[..end.unwrap_or(name.len())];
    if !rest.contains(&b'#') {
        return false;
    }
    let mut plain = Vec::new();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|_| first == b'#')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        plain.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    TELLING.contains(&plain.as_slice())
}

fn number(text: &[u8]) -> u64 {
    let digits = text
        .trim_ascii_start()
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum: u64, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    })
}

/// The lists of children, one after the other; `None` for one that is elsewhere or has no end, after which none is looked for.
fn children(mut text: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        let rest = after(text, b"/Kids").next()?;
        let list = rest.trim_ascii_start().strip_prefix(b"[");
        let ended = list.and_then(|list| list.split_at_checked(memchr::memchr(b']', list)?));
        text = ended.map_or(&[], |(_, after)| after);
        Some(ended.map(|(list, _)| list))
    })
}

/// What follows each place where a mark stands.
fn after<'a>(text: &'a [u8], mark: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let starts = memchr::memmem::find_iter(text, mark);
    starts.map(|start| &text[start + mark.len()..])
}

/// Where the content of each stream begins.
fn streams(pdf: &[u8]) -> impl Iterator<Item = usize> {
    const WORD: &[u8] = b"stream";
    memchr::memmem::find_iter(pdf, WORD).filter_map(|start| {
        let after = start + WORD.len();
        let blanks = pdf[after..]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        let begins = blanks > 0 && !pdf[..start].ends_with(b"end");
        begins.then_some(after + blanks)
    })
}

#[cfg(test)]
mod tests;
