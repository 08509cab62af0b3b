//! Egress rules: where a request may go. Denied unless a rule allows it.
//!
//! A rule is held against the parsed URL (by the same parser that the HTTP client dials with) before a run is admitted
//! and again before it is sent; the address that a name resolves to is held against it when the connection is made.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use super::address;

/// One row of `dot_wrapper.egress_rule`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its number, for the ledger.
    pub id: i64,
    /// `http` or `https`.
    pub scheme: String,
    /// The host as a URL parser normalises it: lower case, punycode, IPv6 in brackets.
    pub host: String,
    /// The port, 1 to 65535.
    pub port: u16,
    /// The path, or a prefix of it that ends at a segment border.
    pub path_prefix: String,
    /// When not empty: the addresses that may be connected to, private ones included.
    /// When empty: public unicast addresses only.
    pub cidrs: Vec<IpNet>,
}

/// Why a URL or an address is not allowed: a reason for machines and a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Lower case with underscores.
    pub reason: &'static str,
    /// One line.
    pub message: String,
}

/// All rules, as one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// The first rule that allows the URL; for an address literal, the first one that allows the address as well.
    ///
    /// # Errors
    /// `Denied` when the URL is not http or https, carries user information, has no host, or no rule matches; and
    /// `address_denied` when the host is an address literal that the matching rule does not allow.
    pub fn check_url(&self, url: &Url) -> Result<&Rule, Denied> {
        let denied = |reason, message: String| Err(Denied { reason, message });
        if !matches!(url.scheme(), "http" | "https") {
            return denied("scheme_denied", format!("scheme {} is not http or https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return denied("userinfo_denied", "the URL carries user information".into());
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return denied("host_missing", "the URL has no host".into());
        };
        let name = host.to_string();
        let mut matching = self.0.iter().filter(|rule| rule.matches(url.scheme(), &name, port, url.path()));
        let Some(rule) = matching.next() else {
            return denied(
                "no_egress_rule",
                format!("no egress rule allows {}://{name}:{port}{}", url.scheme(), url.path()),
            );
        };
        match literal(&host) {
            Some(ip) if !rule.allows_address(ip) => match matching.find(|other| other.allows_address(ip)) {
                Some(other) => Ok(other),
                None => denied("address_denied", format!("egress rule {} does not allow address {ip}", rule.id)),
            },
            _ => Ok(rule),
        }
    }
}

impl Rule {
    fn matches(&self, scheme: &str, host: &str, port: u16, path: &str) -> bool {
        let prefix = self.path_prefix.trim_end_matches('/');
        self.scheme == scheme
            && named(&self.host) == named(host)
            && self.port == port
            && (path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')))
    }

    /// True when a connection to this address is allowed under this rule.
    pub fn allows_address(&self, ip: IpAddr) -> bool {
        if self.cidrs.is_empty() {
            return address::is_public(ip);
        }
        let plain = address::unmapped(ip);
        self.cidrs.iter().any(|net| net.contains(&plain) || net.contains(&ip))
    }
}

/// A name without the root's dot. It may end in one; with two it is no name.
fn named(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// The address, where the host is one and no name has to be resolved.
pub fn literal(host: &Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(IpAddr::V4(*ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(*ip)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> Rules {
        let rule = |id, scheme: &str, host: &str, port, path: &str, cidrs: &[&str]| Rule {
            id,
            scheme: scheme.into(),
            host: host.into(),
            port,
            path_prefix: path.into(),
            cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
        };
        Rules(vec![
            rule(1, "https", "agent.example", 443, "/v1", &[]),
            rule(2, "http", "127.0.0.1", 8077, "/", &["127.0.0.0/8"]),
            rule(3, "http", "10.0.0.9", 80, "/", &[]),
            rule(4, "http", "10.0.0.8", 80, "/", &[]),
            rule(5, "http", "10.0.0.8", 80, "/", &["10.0.0.0/8"]),
        ])
    }

    fn check(text: &str) -> Result<i64, &'static str> {
        rules().check_url(&Url::parse(text).unwrap()).map(|r| r.id).map_err(|d| d.reason)
    }

    #[test]
    fn what_a_rule_names_is_allowed_and_nothing_else() {
        for (url, want) in [
            ("https://agent.example/v1/run", Ok(1)),
            ("https://AGENT.example./v1", Ok(1)),
            ("https://agent.example../v1", Err("no_egress_rule")),
            ("https://agent.example:443/v1/../v1/x", Ok(1)),
            ("http://agent.example/v1/run", Err("no_egress_rule")),
            ("https://agent.example:8443/v1", Err("no_egress_rule")),
            ("https://agent.example/v10", Err("no_egress_rule")),
            ("https://agent.example/v1/../admin", Err("no_egress_rule")),
            ("https://agent.example@evil.example/v1", Err("userinfo_denied")),
            ("https://evil.example#agent.example/v1", Err("no_egress_rule")),
            ("https://agent.example.evil.example/v1", Err("no_egress_rule")),
            ("http://127.0.0.1:8077/x", Ok(2)),
            ("http://127.1:8077/x", Ok(2)),
            ("http://2130706433:8077/x", Ok(2)),
            ("http://0x7f.1:8077/x", Ok(2)),
            ("http://[::1]:8077/x", Err("no_egress_rule")),
            ("http://10.0.0.9/x", Err("address_denied")),
            ("http://10.0.0.8/x", Ok(5)),
            ("file:///etc/passwd", Err("scheme_denied")),
        ] {
            assert_eq!(check(url), want, "{url}");
        }
    }

    #[test]
    fn a_name_may_resolve_to_public_addresses_unless_the_rule_lists_others() {
        let rules = rules();
        assert!(rules.0[0].allows_address("93.184.216.34".parse().unwrap()));
        assert!(!rules.0[0].allows_address("169.254.169.254".parse().unwrap()));
        assert!(!rules.0[0].allows_address("::ffff:10.0.0.1".parse().unwrap()));
        assert!(rules.0[1].allows_address("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!rules.0[1].allows_address("93.184.216.34".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn an_empty_rule_list_denies_everything(text in "https?://[a-z0-9.:/@#?-]{1,40}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert!(Rules::default().check_url(&url).is_err());
            }
        }
    }
}
