//! Which hosts and addresses an agent may reach. Decides, and looks nothing up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What a class allows: names, and networks.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    names: Vec<String>,
    networks: Vec<IpNet>,
}

impl Policy {
    /// Reads `spec.egress.allow`: host names, `*.` before a name for all below it, addresses and CIDRs.
    pub fn new(allow: &[String]) -> Self {
        let mut policy = Self::default();
        for entry in allow {
            if let Ok(network) = entry.parse::<IpNet>() {
                policy.networks.push(network);
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                policy.networks.push(address.into());
            } else {
                policy
                    .names
                    .push(entry.trim_end_matches('.').to_ascii_lowercase());
            }
        }
        policy
    }

    /// Whether a host, in lower case, may be asked for. An address may be if its network is allowed.
    pub fn allows_host(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self
                .networks
                .iter()
                .any(|network| network.contains(&address));
        }
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host
                .strip_suffix(parent)
                .is_some_and(|sub| sub.ends_with('.')),
            None => name == host,
        })
    }

    /// Whether an address may be connected to, whatever name led to it: public ones, and those of networks that the
    /// class names; never our own host, nor the link that clouds serve their metadata on.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if is_never_allowed(address) {
            return false;
        }
        is_public(address)
            || self
                .networks
                .iter()
                .any(|network| network.contains(&address))
    }
}

fn is_never_allowed(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4
            .iter()
            .any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            PUBLIC_V6.contains(&address)
                && !NOT_PUBLIC_V6
                    .iter()
                    .any(|network| network.contains(&address))
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), bits)
}

/// The IANA registry of special-purpose addresses (RFC 6890 and its successors).
const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 0, 2, 24),
    v4(192, 88, 99, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    v4(224, 0, 0, 4),
    v4(240, 0, 0, 4),
];

const fn v6(a: u16, b: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), bits)
}

/// Global unicast addresses, and those among them that carry or stand for others.
const PUBLIC_V6: Ipv6Net = v6(0x2000, 0, 3);
const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),
    v6(0x2001, 0xdb8, 32),
    v6(0x2002, 0, 16),
    v6(0x3fff, 0, 20),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        Policy::new(
            &allow
                .iter()
                .map(|entry| (*entry).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    fn allows(policy: &Policy, address: &str) -> bool {
        policy.allows_address(address.parse().expect("an address"))
    }

    #[test]
    fn names_are_allowed_exactly_or_below_a_star() {
        let policy = policy(&["Example.org.", "*.example.net"]);
        for good in ["example.org", "a.example.net", "a.b.example.net"] {
            assert!(policy.allows_host(good), "{good} was refused");
        }
        for bad in [
            "a.example.org",
            "example.net",
            "badexample.net",
            "",
            "93.184.216.34",
        ] {
            assert!(!policy.allows_host(bad), "{bad} was allowed");
        }
        assert!(!self::policy(&[]).allows_host("example.org"));
    }

    #[test]
    fn no_name_leads_to_an_address_that_is_not_public() {
        let none = policy(&[]);
        for public in ["93.184.216.34", "2606:2800:220:1::1"] {
            assert!(allows(&none, public), "{public} was refused");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            assert!(!allows(&none, private), "{private} was allowed");
        }
    }

    #[test]
    fn a_private_network_may_be_named_but_never_loopback_or_metadata() {
        let named = policy(&["10.1.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "fd00::/8"]);
        for good in ["10.1.2.3", "fd00::5"] {
            assert!(
                named.allows_host(good) && allows(&named, good),
                "{good} was refused"
            );
        }
        for bad in [
            "10.2.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "::ffff:127.0.0.1",
        ] {
            assert!(!allows(&named, bad), "{bad} was allowed");
        }
    }
}
