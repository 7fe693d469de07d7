use base64::Engine as _;
use serde_json::{Value, json};

use super::*;
use crate::dialect::Dialect;

fn of(dialect: Dialect, body: &Value) -> Bound {
    bound(&Request::parse(dialect, body.to_string().as_bytes()).unwrap())
}

fn say(content: &Value) -> Bound {
    let body =
        json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
    of(Dialect::Anthropic, &body)
}

/// The counts are the highest of `cl100k_base`, `o200k_base`, Claude 2's and `DeepSeek`'s tokenizer.
#[test]
fn the_bound_of_text_is_above_what_tokenizers_count_and_not_wildly() {
    for (text, counted) in [
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("fn main() { println!(\"{}\", 1 + 2); }", 15),
        ("3.14159265358979323846", 10),
        ("qzxjkvwpqzxjkvwp", 10),
        ("Привет, как дела?", 9),
        ("今天天气很好，我们去公园吧。", 17),
        ("오늘은 날씨가 아주 좋아서 공원에 갔어요", 26),
        ("الطقس جميل جدا اليوم", 17),
        ("இன்று வானிலை மிகவும் நன்றாக உள்ளது", 64),
        ("ዛሬ አየሩ በጣም ጥሩ ነው", 40),
    ] {
        let bound = text_tokens(text);
        assert!(bound >= counted, "{text}: {bound} < {counted}");
        assert!(
            bound <= counted * 3,
            "{text}: {bound} is far above {counted}"
        );
    }
}

#[test]
fn an_image_costs_its_table_entry_and_not_its_bytes() {
    let image = |bytes: usize| json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A".repeat(bytes)}}]);
    assert_eq!(say(&image(10)), say(&image(1_000_000)));
    assert!(say(&image(10)).input_tokens >= IMAGE_TOKENS);
    let url = json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": url}]});
    assert!(of(Dialect::OpenAiChat, &body).input_tokens >= IMAGE_TOKENS);
}

#[test]
fn text_that_poses_as_an_image_in_a_tools_input_is_counted_as_text() {
    let posing = json!([{"type": "tool_use", "id": "t", "name": "n", "input":
        {"type": "image", "source": {"type": "base64", "data": "x1".repeat(50_000)}}}]);
    assert!(say(&posing).input_tokens > 90_000);
}

#[test]
fn a_picture_in_a_tools_result_is_counted_as_a_picture() {
    let result = json!([{"type": "tool_result", "tool_use_id": "t", "content":
        [{"type": "image", "source": {"type": "base64", "data": "A".repeat(400_000)}}]}]);
    let tokens = say(&result).input_tokens;
    assert!(
        (IMAGE_TOKENS..IMAGE_TOKENS + 500).contains(&tokens),
        "{tokens}"
    );
}

#[test]
fn a_document_costs_by_its_pages() {
    let document = |pdf: &[u8]| {
        let data = base64::engine::general_purpose::STANDARD.encode(pdf);
        say(&json!([{"type": "document", "source": {"type": "base64", "data": data}}])).input_tokens
    };
    let told = document(b"%PDF-1.7 /Type /Pages /Count 3 >> /Type /Page >> /Type /Page");
    assert!((3 * PAGE_TOKENS..4 * PAGE_TOKENS).contains(&told), "{told}");
    let untold = document(&vec![7; 40_000]);
    assert!(
        (10 * PAGE_TOKENS..11 * PAGE_TOKENS).contains(&untold),
        "{untold}"
    );
    let text =
        say(&json!([{"type": "document", "source": {"type": "text", "data": "one two three"}}]));
    assert!(text.input_tokens < 200);
}

#[test]
fn searches_and_long_caches_are_seen() {
    let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}],
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]});
    let bound = of(Dialect::Anthropic, &body);
    assert_eq!((bound.web_searches, bound.long_cache), (3, true));
    assert!(!say(&json!("hi")).long_cache);
}

#[test]
fn what_the_provider_reads_again_after_each_use_of_its_tools_is_counted_each_time() {
    let with_tools = |tools: &Value| {
        let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "a".repeat(9_000)}], "tools": tools});
        of(Dialect::Anthropic, &body)
    };
    let with = |tool: Value| with_tools(&json!([tool]));
    let plain = with(json!({"name": "web_search", "input_schema": {}}));
    assert_eq!((plain.rereads, plain.web_searches), (0, 0));
    let search = with(json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 3}));
    assert_eq!((search.rereads, search.web_searches), (10, 3));
    // All three may be found in the first round, and a use too many is answered too.
    assert!(search.input_tokens >= 11 * plain.input_tokens + 10 * 3 * 25_000);
    let fetch = with(json!({"type": "web_fetch_20250910", "name": "f", "max_uses": 1}));
    assert!(fetch.input_tokens >= 11 * plain.input_tokens + 10 * 500_000);
    assert_eq!(fetch.web_searches, 0);
    let absurd = with(json!({"type": "web_search_20250305", "max_uses": u64::MAX}));
    assert!(absurd.input_tokens > 1 << 50);
    let two_tools = [
        json!({"type": "web_search_20250305", "max_uses": 2}),
        json!({"type": "web_fetch_20250910", "max_uses": 1, "max_content_tokens": 100_000}),
    ];
    let both = with_tools(&json!(two_tools));
    let prompt = both.input_tokens - 10 * (100_000 + 2 * 25_000);
    assert!(
        (11 * plain.input_tokens..12 * plain.input_tokens).contains(&prompt),
        "{prompt}"
    );
}

#[test]
fn a_search_for_tools_adds_no_rounds_to_those_of_other_tools() {
    let rereads = |tools: &Value| {
        let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}], "tools": tools});
        of(Dialect::Anthropic, &body).rereads
    };
    let search = json!({"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"});
    let web = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 2});
    assert_eq!(rereads(&json!([search])), 10);
    assert_eq!(rereads(&json!([search, web])), 10);
}

#[test]
fn documents_share_what_is_unpacked_for_a_request() {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let objects = [b"1 0 ".as_slice(), &vec![b' '; 20 << 20]].concat();
    std::io::Write::write_all(&mut packed, &objects).unwrap();
    let mut pdf =
        b"/Type /Pages /Count 1 << /Type /ObjStm /First 4 /Filter /FlateDecode >> stream\n"
            .to_vec();
    pdf.extend(packed.finish().unwrap());
    pdf.resize(2 << 20, b' ');
    let data = base64::engine::general_purpose::STANDARD.encode(&pdf);
    let document = json!({"type": "document", "source": {"type": "base64", "data": data}});
    let of = |documents: usize| say(&json!(vec![document.clone(); documents])).input_tokens;
    assert!(of(1) < 2 * PAGE_TOKENS, "one page");
    assert!(
        of(2) > 600 * PAGE_TOKENS,
        "the second is not looked into any more"
    );
}

#[test]
fn documents_are_seen_wherever_they_lie() {
    let has = |content: &Value| {
        let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
        has_documents(&Request::parse(Dialect::Anthropic, body.to_string().as_bytes()).unwrap())
    };
    let document = json!({"type": "document", "source": {"type": "text", "data": "a"}});
    assert!(has(&json!([{"type": "text", "text": "a"}, document])));
    assert!(has(
        &json!([{"type": "tool_result", "tool_use_id": "t", "content": [document]}])
    ));
    assert!(has(&json!([{"type": "file", "file": {"file_data": ""}}])));
    assert!(!has(&json!([{"type": "image", "source": {}}])) && !has(&json!("document")));
}
