//! The tools that a provider runs itself, within one call: after each round of them it asks the model again, which reads all
//! again, so that one call costs as much as many.

use serde_json::Value;

/// What one search of the provider's own brings into the prompt.
const SEARCH_TOKENS: u64 = 25_000;
/// What a page brings that the provider fetches, where the request does not bound it.
const PAGE_TOKENS: u64 = 500_000;
/// How often the model is asked again within one call (Anthropic, "Handling stop reasons": the loop pauses after 10 rounds),
/// whichever tools are offered. No bound of uses makes it less: a use too many is answered by an error, which is read like a
/// result ("Web search tool", `max_uses_exceeded`), and newer searches run code between them. One round may use tools several
/// times side by side.
const MOST_REREADS: u64 = 10;
/// The bound of uses for a web tool that has none.
const MOST_USES: u64 = 5;
/// No budget pays for so many uses.
const PAST_ANY_BUDGET: u64 = 1 << 20;

/// What the tools of a request that the provider runs may do at most within one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Served {
    /// How often the model is asked again.
    pub(crate) rereads: u64,
    /// Searches of the web.
    pub(crate) web_searches: u64,
    /// What all uses together bring into the prompt, in tokens.
    pub(crate) found_tokens: u64,
    /// The most that one use brings.
    pub(crate) most_found_tokens: u64,
}

/// The worst of the tools that a request offers.
pub(crate) fn served(tools: &[Value]) -> Served {
    let mut served = Served::default();
    for tool in tools {
        let Some(brings) = brings(tool) else {
            continue;
        };
        let uses = tool["max_uses"].as_u64().unwrap_or(MOST_REREADS);
        let uses = uses.min(PAST_ANY_BUDGET);
        if is_search(tool) {
            served.web_searches += uses;
        }
        served.rereads = served.rereads.max(MOST_REREADS).max(uses);
        served.found_tokens = served
            .found_tokens
            .saturating_add(brings.saturating_mul(uses));
        served.most_found_tokens = served.most_found_tokens.max(brings);
    }
    served
}

/// Bounds the uses of a web tool that the request leaves unbounded, so that what was reserved holds. The search for tools knows
/// no such field.
pub(crate) fn bound_uses(tool: &mut Value) {
    let is_web = is_search(tool) || is_fetch(tool);
    if is_web && !tool["max_uses"].is_u64() {
        tool["max_uses"] = MOST_USES.into();
    }
}

/// Whether the worst of a tool is known: the client runs it, or it is one that is counted here.
pub(crate) fn is_bounded(tool: &Value) -> bool {
    const OF_CLIENTS: [&str; 6] = [
        "custom",
        "function",
        "bash_",
        "text_editor_",
        "computer_",
        "memory_",
    ];
    let kind = tool["type"].as_str().unwrap_or("custom");
    OF_CLIENTS.iter().any(|client| kind.starts_with(client)) || brings(tool).is_some()
}

/// What one use of a tool that the provider runs brings into the prompt, in tokens; `None` for a tool of the client's.
fn brings(tool: &Value) -> Option<u64> {
    if is_search(tool) {
        Some(SEARCH_TOKENS)
    } else if is_fetch(tool) {
        Some(tool["max_content_tokens"].as_u64().unwrap_or(PAGE_TOKENS))
    } else if is_kind(tool, "tool_search") {
        // What it finds are tools of the request, which are counted already.
        Some(0)
    } else {
        None
    }
}

fn is_search(tool: &Value) -> bool {
    is_kind(tool, "web_search")
}

fn is_fetch(tool: &Value) -> bool {
    is_kind(tool, "web_fetch")
}

fn is_kind(tool: &Value, kind: &str) -> bool {
    tool["type"]
        .as_str()
        .is_some_and(|name| name.starts_with(kind))
}
