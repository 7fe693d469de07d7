//! Session cookies (RFC 6265): read by no script, sent with no request that another site caused.

use http::{HeaderMap, HeaderValue, header};

/// A learner's session.
pub(crate) const LEARNER: &str = "carrel_session";
/// The operator's session.
pub(crate) const OPERATOR: &str = "carrel_operator";

/// The value of a cookie.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// A cookie to be set for so long; 0 seconds removes it.
pub(crate) fn set(name: &str, value: &str, seconds: i64, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text =
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        let cookies = "not_carrel_session=bad; theme=dark; carrel_session=good";
        headers.insert(header::COOKIE, HeaderValue::from_static(cookies));
        assert_eq!(find(&headers, LEARNER), Some("good"));
        assert_eq!(find(&headers, OPERATOR), None);
    }
}
