//! What of a request and an answer passes between a learner's browser and its agent. Pure.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_SECURITY_POLICY, COOKIE, HOST, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Added to every answer of an agent: its pages have an origin of their own and none of our cookies.
const SANDBOX: &str = "sandbox allow-scripts allow-forms";

/// Of one hop only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
];

/// What lets people in here, or says where they are.
const OURS: [HeaderName; 4] = [
    AUTHORIZATION,
    COOKIE,
    HOST,
    HeaderName::from_static("x-carrel-request"),
];

/// What would act on our whole origin, not on the agent's pages.
const OF_THE_ORIGIN: [HeaderName; 6] = [
    SET_COOKIE,
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("strict-transport-security"),
    HeaderName::from_static("alt-svc"),
    HeaderName::from_static("x-request-id"),
];

/// What an agent may see of a request.
pub(super) fn to_agent(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in &OURS {
        headers.remove(name);
    }
}

/// What a browser may see of an agent's answer.
pub(super) fn to_browser(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in &OF_THE_ORIGIN {
        headers.remove(name);
    }
    // Beside the agent's own policy, if it has one: a browser obeys both.
    headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The agent's path of a request's: everything after `/l/{id}`, spelled as it came. `None`: it steps out of its folder.
pub(super) fn agent_path(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/l/")?;
    let rest = &rest[rest.find('/')?..];
    let steps_out = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    let hidden = rest.to_ascii_lowercase();
    let hides_slash = hidden.contains("%2f") || hidden.contains("%5c") || hidden.contains('\\');
    let out = hides_slash && hidden.contains("..") || rest.split('/').any(steps_out);
    (!out).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_agent_sees_no_token_no_cookie_and_nothing_of_one_hop() {
        let mut headers = headers(&[
            ("authorization", "Bearer secret"),
            ("cookie", "carrel_session=secret"),
            ("connection", "keep-alive, x-of-one-hop"),
            ("x-of-one-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("accept", "text/html"),
        ]);
        to_agent(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
    }

    #[test]
    fn an_agents_page_sets_nothing_of_our_origin_and_is_boxed_in() {
        let mut headers = headers(&[
            ("set-cookie", "carrel_session=theirs"),
            ("service-worker-allowed", "/"),
            ("clear-site-data", "*"),
            ("content-security-policy", "default-src 'self'"),
            ("content-type", "text/html"),
        ]);
        to_browser(&mut headers);
        let policies: Vec<_> = headers.get_all(CONTENT_SECURITY_POLICY).iter().collect();
        assert_eq!(policies, ["default-src 'self'", SANDBOX]);
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn a_path_that_steps_out_is_refused() {
        assert_eq!(agent_path("/l/ada/a/b%20c"), Some("/a/b%20c"));
        assert_eq!(agent_path("/l/ada/"), Some("/"));
        assert_eq!(agent_path("/l/ada/..a/.b"), Some("/..a/.b"));
        for bad in [
            "/l/ada/../bob/",
            "/l/ada/%2e%2e/bob",
            "/l/ada/a/.%2E/b",
            "/l/ada/a%2f..%2fb",
            "/l/ada/a\\..\\b",
            "/l/ada",
        ] {
            assert_eq!(agent_path(bad), None, "{bad} was taken");
        }
    }
}
