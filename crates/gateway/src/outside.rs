//! A request as it was made outside, when proxies stand before this gateway. What `X-Forwarded-For` and
//! `X-Forwarded-Proto` say counts only from those that the operator trusts; from anybody else it is ignored.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Whose word on the outside is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads addresses and networks, as in `10.0.0.7` and `10.0.0.0/8`. `None`: one of them is neither.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Option<Self> {
        let network = |text: &T| {
            let text = text.as_ref();
            let one = || text.parse().ok().map(|address: IpAddr| address.into());
            text.parse().ok().or_else(one)
        };
        texts.iter().map(network).collect::<Option<_>>().map(Self)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The other end of the connection by which a request came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// Whether the connection is secured here.
    pub(crate) is_tls: bool,
}

/// A request as it was made outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Who made it.
    pub(crate) client: IpAddr,
    /// Whether it was made by https.
    pub(crate) https: bool,
}

impl Outside {
    /// Each proxy adds the address that it sees at the end: from there back, the first that is no trusted proxy is the
    /// client.
    pub(crate) fn of(peer: Peer, headers: &HeaderMap, trusted: &TrustedProxies) -> Self {
        let Peer { address, is_tls } = peer;
        let peer = address.to_canonical();
        if !trusted.has(peer) {
            return Self {
                client: peer,
                https: is_tls,
            };
        }
        let hops: Vec<&str> = words(headers, FORWARDED_FOR).collect();
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            let Ok(address) = hop.parse::<IpAddr>() else {
                break;
            };
            client = address.to_canonical();
            if !trusted.has(client) {
                break;
            }
        }
        let protocol = words(headers, FORWARDED_PROTO).next();
        Self {
            client,
            https: protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("https")),
        }
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str], protocol: &str) -> (String, bool) {
        let trusted = TrustedProxies::parse(&["10.0.0.0/8", "2001:db8::7"]).expect("networks");
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().expect("a value"));
        }
        headers.append(FORWARDED_PROTO, protocol.parse().expect("a value"));
        let peer = Peer {
            address: peer.parse().expect("an address"),
            is_tls: false,
        };
        let outside = Outside::of(peer, &headers, &trusted);
        (outside.client.to_string(), outside.https)
    }

    #[test]
    fn a_trusted_proxy_says_who_asks_and_how() {
        let client = |text: &str, https| (text.to_owned(), https);
        let one = seen("10.0.0.2", &["192.0.2.1"], "https");
        assert_eq!(one, client("192.0.2.1", true));
        let mapped = seen("::ffff:10.0.0.2", &["192.0.2.1"], "HTTPS, http");
        assert_eq!(mapped, client("192.0.2.1", true));
        // What the client itself claimed stands before what our proxies saw.
        let claimed = seen(
            "2001:db8::7",
            &["203.0.113.9, 192.0.2.1", "10.9.9.9"],
            "http",
        );
        assert_eq!(claimed, client("192.0.2.1", false));
        assert_eq!(seen("10.0.0.2", &[], "https"), client("10.0.0.2", true));
        let nonsense = seen("10.0.0.2", &["192.0.2.1, unknown"], "https");
        assert_eq!(nonsense, client("10.0.0.2", true));
    }

    #[test]
    fn anybody_elses_word_is_ignored() {
        let alone = seen("192.0.2.5", &["203.0.113.9"], "https");
        assert_eq!(alone, ("192.0.2.5".to_owned(), false));
    }

    #[test]
    fn who_comes_by_tls_came_by_https_unless_a_trusted_proxy_says_more() {
        let trusted = TrustedProxies::parse(&["10.0.0.2"]).expect("networks");
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_PROTO, "http".parse().expect("a value"));
        for (address, https) in [("192.0.2.5", true), ("10.0.0.2", false)] {
            let peer = Peer {
                address: address.parse().expect("an address"),
                is_tls: true,
            };
            assert_eq!(Outside::of(peer, &headers, &trusted).https, https);
        }
    }

    #[test]
    fn only_addresses_and_networks_are_trusted() {
        assert!(TrustedProxies::parse(&["proxy.example"]).is_none());
        assert!(TrustedProxies::parse(&["10.0.0.0/33"]).is_none());
        let none: [&str; 0] = [];
        assert_eq!(
            TrustedProxies::parse(&none),
            Some(TrustedProxies::default())
        );
    }
}
