//! How many pages a PDF has at most, without a reader of PDFs (ISO 32000-1, sections 7.5.7 and 7.7.3): the largest number
//! that its page tree tells in plain sight and in packed streams of objects. Where it tells none, its size decides; where pages
//! could hide or come again, it counts as the longest that providers take (Anthropic, "PDF support": 600 pages): under
//! encryption, in a stream of objects that does not unpack, behind a name that is written in escapes, in a list of children
//! that is elsewhere or names one child twice. That is no proof that no reader finds more: what a provider bills above it is
//! charged in full.

use std::collections::HashSet;
use std::io::Read as _;

use flate2::bufread::ZlibDecoder;

/// The shortest page, for documents that do not tell how many they have.
const PAGE_BYTES: u64 = 4_000;
/// What providers take at most.
const MOST_PAGES: u64 = 600;
/// What is unpacked for one request at most, and of one document how many times its size beside a little; one that holds more
/// counts as the longest. So a request of many small ones does not make us unpack without end. Only streams of objects count:
/// pictures, which unpack to many times their size, are left packed.
const MOST_UNPACKED: u64 = 32 << 20;
const MOST_TIMES: u64 = 16;
const A_LITTLE: u64 = 64 << 10;
/// Of every stream so much is unpacked to see whether it holds objects.
const PEEK: usize = 64;
/// What a page tree is read by.
const TELLING: [&[u8]; 6] = [b"Page", b"Kids", b"Type", b"Count", b"ObjStm", b"Encrypt"];

/// What may still be unpacked for one request.
#[derive(Debug)]
pub(crate) struct Room(u64);

impl Default for Room {
    fn default() -> Self {
        Self(MOST_UNPACKED)
    }
}

pub(crate) fn pages(pdf: &[u8], room: &mut Room) -> u64 {
    let by_size = (pdf.len() as u64).div_ceil(PAGE_BYTES).max(1);
    if hides_pages(pdf) {
        return MOST_PAGES;
    }
    let Some(packed) = told_in_streams(pdf, room) else {
        return MOST_PAGES;
    };
    match told_pages(pdf).plus(packed).most() {
        0 => by_size,
        told => told,
    }
    .min(MOST_PAGES)
}

/// What the packed streams of objects tell; `None` where one could hide pages or they hold too much.
fn told_in_streams(pdf: &[u8], room: &mut Room) -> Option<Told> {
    let size = pdf.len() as u64;
    let mut left = room.0.min(MOST_TIMES * size + A_LITTLE);
    // Streams do not overlap and are longer than a peek: whoever makes us read the same bytes again and again wastes our time.
    let mut unread = 2 * size;
    let mut told = Told::default();
    let mut unpacked = Vec::new();
    let mut unpacking = ZlibDecoder::new(&[][..]);
    let mut before = 0;
    for start in streams(pdf) {
        let is_declared = declares_objects(&pdf[before..start]);
        before = start;
        unpacking.reset(&pdf[start..]);
        unpacked.clear();
        // What is broken or packed otherwise unpacks to nothing, or to what was right of it.
        drop(
            unpacking
                .by_ref()
                .take(PEEK as u64)
                .read_to_end(&mut unpacked),
        );
        let holds_objects = begins_as_objects(&unpacked);
        if holds_objects {
            drop(unpacking.by_ref().take(left).read_to_end(&mut unpacked));
        }
        unread = unread.saturating_sub(unpacking.total_in().max(PEEK as u64));
        if unread == 0 || is_declared && !holds_objects {
            return None;
        }
        if !holds_objects {
            continue;
        }
        left = left.saturating_sub(unpacked.len() as u64);
        room.0 = room.0.saturating_sub(unpacked.len() as u64);
        if left == 0 || hides_pages(&unpacked) {
            return None;
        }
        told = told.plus(told_pages(&unpacked));
    }
    (!declares_objects(&pdf[before..])).then_some(told)
}

fn declares_objects(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"/ObjStm").is_some()
}

/// Whether a stream may be one of objects, whatever it is called: such begin with an object's number and its place.
fn begins_as_objects(unpacked: &[u8]) -> bool {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let mut words = unpacked.split(is_blank).filter(|word| !word.is_empty());
    let is_number = |word: &[u8]| word.iter().all(u8::is_ascii_digit);
    words.next().is_some_and(is_number)
        && words
            .next()
            .is_some_and(|word| word.first().is_some_and(u8::is_ascii_digit))
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
        told.leaves += u64::from(
            leaf.is_some_and(|after| !after.first().is_some_and(u8::is_ascii_alphanumeric)),
        );
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
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn pages(pdf: &[u8]) -> u64 {
        super::pages(pdf, &mut Room::default())
    }

    /// A document of one page with a packed stream.
    fn with(dictionary: &str, content: &[u8]) -> Vec<u8> {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        packed.write_all(content).unwrap();
        let head =
            format!("%PDF-1.7\n<< /Type /Pages /Count 1 >>\n9 0 obj << {dictionary} >> stream\r\n");
        let packed = packed.finish().unwrap();
        [head.as_bytes(), &packed, b"\nendstream endobj"].concat()
    }

    fn with_stream(content: &[u8]) -> Vec<u8> {
        with("/Type /ObjStm", content)
    }

    #[test]
    fn what_could_hide_pages_or_bring_them_again_counts_as_the_longest() {
        let forged = |more: &str| pages(format!("/Type /Pages /Count 1 {more}").as_bytes());
        assert_eq!(
            forged("/BaseFont /Times#20New#20Roman /Kids [1 0 R 11 0 R]"),
            2
        );
        for more in [
            "trailer << /Encrypt 9 0 R >>",
            "/Kids [2 0 R 2 0 R]",
            "/Kids 7 0 R",
            "/Type /P#61ge",
            "/Typ#65 /Page",
            "<< /Type /ObjStm /Filter /LZWDecode >> stream\nxyz endstream",
        ] {
            assert_eq!(forged(more), MOST_PAGES, "{more}");
        }
        let packed = with_stream(b"1 0 << /Kids [2 0 R 2 0 R] >>");
        assert_eq!(pages(&packed), MOST_PAGES);
    }

    #[test]
    fn pictures_are_left_packed_however_much_they_hold() {
        let screenshot = |pixel: u8| with("/Subtype /Image", &vec![pixel; 6 << 20]);
        for pixel in [0x1e, 0, 0xff, b'3', b' '] {
            assert_eq!(pages(&screenshot(pixel)), 1, "{pixel:#x}");
        }
        let mut mask = screenshot(0);
        mask.extend(with_stream(b"1 0 << /Type /Page >> << /Type /Page >>"));
        assert_eq!(pages(&mask), 2, "what comes after it is read");
    }

    #[test]
    fn what_looks_like_a_name_between_packed_bytes_hides_nothing() {
        let packed = b"/Type /Pages /Count 1 stream\n\x9c/#41\x01/x#62/Pag#zz#\nendstream";
        assert_eq!(pages(packed), 1);
    }

    #[test]
    fn a_stream_of_objects_is_known_by_what_it_holds_and_by_what_it_is_called() {
        let leaves = b"1 0 << /Type /Page >> << /Type /Page >> << /Type /Page >>";
        assert_eq!(pages(&with("/First 4 /N 1", leaves)), 3);
        let mut decoy = with_stream(b"% no number comes first\n1 0 << /Type /Page >>");
        decoy.extend(with("", b"0 0 m 1 1 l S"));
        assert_eq!(pages(&decoy), MOST_PAGES);
        let no_stream = b"/Type /Pages /Count 1 << /Type /ObjStm >> strea";
        assert_eq!(pages(no_stream), MOST_PAGES);
    }

    #[test]
    fn the_largest_of_the_numbers_that_a_page_tree_tells_holds() {
        let plain = |tree: &str| pages(tree.as_bytes());
        assert_eq!(plain("/Type /Pages /Count 3 /Kids [1 0 R]"), 3);
        assert_eq!(
            plain("/Type/Pages/Count 1 /Kids [1 0 R 2 0 R\n3 0 R 4 0 R]"),
            4
        );
        assert_eq!(plain("/Count 1 /Type /Page /Type/Page>> /Type  /Page\n"), 3);
        assert_eq!(plain("/Count 99999999999999999999999"), MOST_PAGES);
    }

    #[test]
    fn a_false_count_does_not_hide_the_pages_of_a_packed_stream() {
        let leaves = "<< /Type /Page /Contents 4 0 R >> ".repeat(80);
        assert_eq!(pages(&with_stream(format!("1 0 {leaves}").as_bytes())), 80);
        let kids: Vec<_> = (7..97).map(|child| format!("{child} 0 R")).collect();
        let kids = format!("1 0 << /Type /Pages /Kids [{}] >>", kids.join(" "));
        assert_eq!(pages(&with_stream(kids.as_bytes())), 90);
    }

    #[test]
    fn nothing_makes_us_read_the_same_again_and_again() {
        let began = std::time::Instant::now();
        assert_eq!(pages(&b"/Kids".repeat(1 << 20)), MOST_PAGES);
        assert_eq!(pages(&b"/Kids[".repeat(1 << 20)), MOST_PAGES);
        let mut ended = b"/Kids [".repeat(1 << 20);
        ended.push(b']');
        pages(&ended);
        // Streams that unpack to nothing, from many places to the same end.
        let mut nested = b"stream\n\x78\x9c".repeat(1 << 10);
        nested.extend(b"\0\0\0\xff\xff".repeat(1 << 20));
        pages(&nested);
        let small = with("", &[b'a'; 1 << 10]);
        let many = small[small.len() - 60..].repeat(1 << 17);
        assert!(streams(&many).count() >= 1 << 17);
        pages(&many);
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    #[test]
    fn what_unpacks_to_too_much_counts_as_the_longest() {
        // A stream of objects that hold nothing.
        let blank = |bytes: usize| with_stream(&[b"1 0 ".as_slice(), &vec![b' '; bytes]].concat());
        assert_eq!(pages(&blank(32 << 10)), 1);
        assert_eq!(pages(&blank(1 << 20)), MOST_PAGES, "many times its size");
        let mut large = blank(33 << 20);
        large.resize(4 << 20, b' ');
        assert_eq!(pages(&large), MOST_PAGES, "more than any document");
        let mut one_of_two = blank(20 << 20);
        one_of_two.resize(4 << 20, b' ');
        let mut room = Room::default();
        assert_eq!(super::pages(&one_of_two, &mut room), 1);
        assert_eq!(super::pages(&one_of_two, &mut room), MOST_PAGES, "together");
        let picture = with("/Subtype /Image", &[0; 99]);
        assert_eq!(super::pages(&picture, &mut room), 1, "holds no objects");
    }

    #[test]
    fn what_tells_nothing_is_as_long_as_its_size_allows() {
        assert_eq!(pages(&vec![7; 40_000]), 10);
        assert_eq!(pages(b""), 1);
    }
}
