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
    with("/Type /ObjStm /N 1 /First 4 /Filter /FlateDecode", content)
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
    // Its outline is named as streams of objects are.
    let outline = b"/Type /Outlines /First 3 0 R /Last 4 0 R /Type /XRef /N 3";
    let screenshot = |pixel: u8| {
        let image = "/Subtype /Image /Filter /FlateDecode";
        [outline, &*with(image, &vec![pixel; 6 << 20])].concat()
    };
    for pixel in [0x1e, 0, 0xff, b'3', b' ', b'%', b'.'] {
        assert_eq!(pages(&screenshot(pixel)), 1, "{pixel:#x}");
    }
    let mut mask = screenshot(0);
    mask.extend(with_stream(b"1 0 << /Type /Page >> << /Type /Page >>"));
    assert_eq!(pages(&mask), 2, "what comes after it is read");
    let font = [outline, &*with("/Subtype /Type1C /Length1 9", b"\x01\0")].concat();
    assert_eq!(pages(&font), 1);
}

#[test]
fn what_looks_like_a_name_between_packed_bytes_hides_nothing() {
    let packed = b"/Type /Pages /Count 1 stream\n\x9c/#41\x01/x#62/Pag#zz#\nendstream";
    assert_eq!(pages(packed), 1);
}

#[test]
fn a_stream_of_objects_is_known_by_what_it_holds_and_by_what_it_is_called() {
    let leaves = b"1 0 << /Type /Page >> << /Type /Page >> << /Type /Page >>";
    assert_eq!(
        pages(&with("/First 4 /N 1 /Filter /FlateDecode", leaves)),
        3
    );
    let decoy = with("/First 7 0 R /Filter /FlateDecode", b"0 0 m 1 1 l S");
    assert_eq!(pages(&decoy), 1);
    let elsewhere = "/Type 5 0 R /N 1 /First 4 /Filter [ /FlateDecode ]";
    for opening in [
        "% no number comes first\n",
        &" ".repeat(1 << 20),
        &"0".repeat(99),
        "+",
        "1.0 ",
    ] {
        let content = [opening.as_bytes(), leaves].concat();
        assert_eq!(pages(&with(elsewhere, &content)), 3, "{opening:.9}");
    }
    for unreadable in [
        "/Type /ObjStm",
        "/Type 5 0 R",
        "/Type % of\n5 0 R",
        "/First 4",
        "/First 7 0 R",
    ] {
        let hidden = with(&format!("{unreadable} /Filter /LZWDecode"), b"\x80\x0b");
        let hidden = [decoy.as_slice(), &hidden].concat();
        assert_eq!(pages(&hidden), MOST_PAGES, "{unreadable}");
    }
    // What else lies between the packed bytes and the objects.
    for packing in [
        "/Filter [ /FlateDecode /ASCIIHexDecode ]",
        "/Filter /FlateDecode /DecodeParms << /Predictor 12 >>",
        "/F#69lter [] /Filter /FlateDecode",
    ] {
        let packed = with(&format!("/Type /ObjStm /First 4 {packing}"), leaves);
        assert_eq!(pages(&packed), MOST_PAGES, "{packing}");
    }
    let mut broken = with_stream(leaves);
    let end = broken.len() - b"\nendstream endobj".len();
    broken[end - 1] ^= 1;
    assert_eq!(pages(&broken), MOST_PAGES, "broken");
    let no_stream = b"/Type /Pages /Count 1 << /Type /ObjStm >> strea";
    assert_eq!(pages(no_stream), MOST_PAGES);
    // More names than streams.
    for name in [
        "5 0 obj /ObjStm endobj",
        "5 0 obj << /Nothing 0 /First 4 >> endobj",
    ] {
        let mut one_more = name.as_bytes().to_vec();
        assert_eq!(
            pages(&[&one_more, b"/Count 1".as_slice()].concat()),
            MOST_PAGES
        );
        one_more.extend(with_stream(b"1 0 << >>"));
        assert_eq!(pages(&one_more), MOST_PAGES, "{name}");
    }
    let within = with_stream(b"5 0 /ObjStm");
    assert_eq!(pages(&within), MOST_PAGES);
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
    for lists in [&b"/Kids"[..], b"/Kids[", b"/Kids []"] {
        let mut lists = lists.repeat(1 << 12);
        lists.push(b']');
        let read: usize = children(&lists).flatten().map(<[u8]>::len).sum();
        assert!(read <= lists.len());
    }
    // Streams that unpack to nothing, from many places to the same end.
    let mut nested = b"stream\n\x78\x9c".repeat(1 << 10);
    nested.extend(b"\0\0\0\xff\xff".repeat(1 << 16));
    // And to the same blanks.
    let blank = with("", &vec![b' '; 1 << 20]);
    let blanks = &blank[blank.windows(2).position(|at| at == b"\x78\xda").unwrap()..];
    let overlapping = [&b"stream\n\x78\xda".repeat(1 << 10), &blanks[2..]].concat();
    let small = with("", &[b'a'; 1 << 10]);
    let many = small[small.len() - 60..].repeat(1 << 12);
    assert!(streams(&many).count() >= 1 << 12);
    for streams in [nested, overlapping, many] {
        let pdf = [b"/First 3 0 R endobj ".as_slice(), &streams].concat();
        let (size, mut read) = (pdf.len() as u64, 0);
        told_in_streams(&pdf, &mut Room::default(), &mut read);
        assert!((size / 4..3 * size).contains(&read), "{read} of {size}");
    }
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
    let black = with("/Subtype /Image /FirstLine 0", &vec![0; 1 << 20]);
    let mut room = Room {
        opening: 3 << 19,
        ..Room::default()
    };
    let black = [b"/First 3 0 R".as_slice(), &black].concat();
    assert_eq!(super::pages(&black, &mut room), 1);
    assert_eq!(super::pages(&black, &mut room), MOST_PAGES, "never shows");
}

#[test]
fn what_tells_nothing_is_as_long_as_its_size_allows() {
    assert_eq!(pages(&vec![7; 40_000]), 10);
    assert_eq!(pages(b""), 1);
}
