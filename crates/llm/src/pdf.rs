//! How many pages a PDF has at most, without a reader of PDFs (ISO 32000-1, sections 7.5.7 and 7.7.3): by what its page
//! tree says in plain sight and in compressed streams, else by its size. The largest of the three numbers holds, so that a
//! false `/Count` alone lowers nothing. A tree that is hidden by encryption or an unusual filter is believed by size; the
//! provider's bill for it is charged in full, whatever was reserved.

use std::io::Read as _;

use flate2::bufread::ZlibDecoder;

/// The shortest page, for documents that do not tell how many they have.
const PAGE_BYTES: u64 = 4_000;
/// What providers take at most.
const MOST_PAGES: u64 = 600;
/// What is unpacked of one document at most; one that holds more counts as the longest.
const MOST_UNPACKED: u64 = 32 << 20;

pub(crate) fn pages(pdf: &[u8]) -> u64 {
    let by_size = (pdf.len() as u64).div_ceil(PAGE_BYTES).max(1);
    let mut told = told_pages(pdf);
    let mut left = MOST_UNPACKED;
    let mut unpacked = Vec::new();
    for packed in streams(pdf) {
        unpacked.clear();
        // What is broken or packed otherwise unpacks to nothing, or to what was right of it.
        drop(
            ZlibDecoder::new(packed)
                .take(left)
                .read_to_end(&mut unpacked),
        );
        left -= unpacked.len() as u64;
        if left == 0 {
            return MOST_PAGES;
        }
        told = told.plus(told_pages(&unpacked));
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
    for rest in after(text, b"/Kids") {
        let end = rest.iter().position(|byte| *byte == b']');
        let references = after(&rest[..end.unwrap_or_default()], b" R");
        told.children += references.count() as u64;
    }
    told
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
        assert_eq!(pages(&with_stream(leaves.as_bytes())), 80);
        let kids = format!("<< /Type /Pages /Kids [{}] >>", "7 0 R ".repeat(90));
        assert_eq!(pages(&with_stream(kids.as_bytes())), 90);
    }

    #[test]
    fn what_unpacks_to_too_much_counts_as_the_longest() {
        assert_eq!(pages(&with_stream(&vec![b' '; 33 << 20])), MOST_PAGES);
    }

    #[test]
    fn what_tells_nothing_is_as_long_as_its_size_allows() {
        assert_eq!(pages(&vec![7; 40_000]), 10);
        assert_eq!(pages(b""), 1);
    }
}
