//! How many pages a PDF has at most, without a reader of PDFs (ISO 32000-1, sections 7.5.7 and 7.7.3): the largest number
//! that its page tree tells in plain sight and in compressed streams. Where it tells none, its size decides; where pages could
//! hide or come again, it counts as the longest that providers take (Anthropic, "PDF support": 600 pages): under encryption,
//! in a stream of objects that does not unpack, behind a name that is written in escapes, in a list of children that is
//! elsewhere or names one child twice. That is no proof that no reader finds more: what a provider bills above it is charged
//! in full.

use std::collections::HashSet;
use std::io::Read as _;

use flate2::bufread::ZlibDecoder;

/// The shortest page, for documents that do not tell how many they have.
const PAGE_BYTES: u64 = 4_000;
/// What providers take at most.
const MOST_PAGES: u64 = 600;
/// What is unpacked of one document at most, and how many times its size beside a little; one that holds more counts as the
/// longest. So a request of many small ones does not make us unpack without end.
const MOST_UNPACKED: u64 = 32 << 20;
const MOST_TIMES: u64 = 16;
const A_LITTLE: u64 = 64 << 10;

pub(crate) fn pages(pdf: &[u8]) -> u64 {
    let by_size = (pdf.len() as u64).div_ceil(PAGE_BYTES).max(1);
    if hides_pages(pdf) {
        return MOST_PAGES;
    }
    let mut told = told_pages(pdf);
    let mut object_streams = after(pdf, b"/ObjStm").count();
    let mut left = MOST_UNPACKED.min(MOST_TIMES * pdf.len() as u64 + A_LITTLE);
    // Streams do not overlap: whoever makes us read the same bytes again and again wastes our time.
    let mut unread = 2 * pdf.len() as u64;
    let mut unpacked = Vec::new();
    for packed in streams(pdf) {
        unpacked.clear();
        let mut unpacking = ZlibDecoder::new(packed).take(left);
        // What is broken or packed otherwise unpacks to nothing, or to what was right of it.
        drop(unpacking.read_to_end(&mut unpacked));
        left -= unpacked.len() as u64;
        unread = unread.saturating_sub(unpacking.get_ref().total_in());
        if left == 0 || unread == 0 {
            return MOST_PAGES;
        }
        // A stream of objects begins with their numbers.
        if unpacked
            .trim_ascii_start()
            .first()
            .is_some_and(u8::is_ascii_digit)
        {
            object_streams = object_streams.saturating_sub(1);
        }
        if hides_pages(&unpacked) {
            return MOST_PAGES;
        }
        told = told.plus(told_pages(&unpacked));
    }
    if object_streams > 0 {
        return MOST_PAGES;
    }
    match told.most() {
        0 => by_size,
        told => told,
    }
    .min(MOST_PAGES)
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
        || after(text, b"/").any(is_escaped_without_need)
}

/// Whether a name has a letter as an escape, which nobody writes who does not hide it.
fn is_escaped_without_need(name: &[u8]) -> bool {
    let end = name
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'#');
    let name = &name[..end.unwrap_or(name.len())];
    after(name, b"#").any(|rest| {
        let digits = rest
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        code.is_some_and(|code| code.is_ascii_alphabetic())
    })
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

/// The content of each stream, from its beginning.
fn streams(pdf: &[u8]) -> impl Iterator<Item = &[u8]> {
    after(pdf, b"stream").filter_map(|rest| {
        let rest = rest.strip_prefix(b"\r").unwrap_or(rest);
        rest.strip_prefix(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn with_stream(content: &[u8]) -> Vec<u8> {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        packed.write_all(content).unwrap();
        let mut pdf =
            b"%PDF-1.7\n<< /Type /Pages /Count 1 >>\n9 0 obj << /Type /ObjStm >> stream\r\n"
                .to_vec();
        pdf.extend(packed.finish().unwrap());
        pdf.extend(b"\nendstream endobj");
        pdf
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
    }

    #[test]
    fn what_tells_nothing_is_as_long_as_its_size_allows() {
        assert_eq!(pages(&vec![7; 40_000]), 10);
        assert_eq!(pages(b""), 1);
    }
}
