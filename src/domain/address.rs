//! Which IP addresses are public unicast. Whether a rule allows an address is in `egress`; resolving is the engine's.
//!
//! Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates), the IPv6 address space
//! registry, and RFC 5771 and RFC 4291 for multicast. Where a registry marks a small block inside a special one as
//! globally reachable (PCP and TURN anycast, AS112, AMT), the block is refused all the same: no agent lives there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// IPv4 blocks that are not public unicast.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),       // this network, RFC 791
    v4([10, 0, 0, 0], 8),      // private, RFC 1918
    v4([100, 64, 0, 0], 10),   // shared address space of carriers (CGNAT), RFC 6598
    v4([127, 0, 0, 0], 8),     // loopback, RFC 1122
    v4([169, 254, 0, 0], 16),  // link-local, cloud metadata services among them, RFC 3927
    v4([172, 16, 0, 0], 12),   // private, RFC 1918
    v4([192, 0, 0, 0], 24),    // IETF protocol assignments, RFC 6890
    v4([192, 0, 2, 0], 24),    // documentation, RFC 5737
    v4([192, 88, 99, 0], 24),  // 6to4 relays, deprecated, RFC 7526
    v4([192, 168, 0, 0], 16),  // private, RFC 1918
    v4([198, 18, 0, 0], 15),   // benchmarking, RFC 2544
    v4([198, 51, 100, 0], 24), // documentation, RFC 5737
    v4([203, 0, 113, 0], 24),  // documentation, RFC 5737
    v4([224, 0, 0, 0], 4),     // multicast, RFC 5771
    v4([240, 0, 0, 0], 4),     // reserved, RFC 1112; holds the limited broadcast address as well
];

/// The only IPv6 block from which global unicast addresses are assigned. What is outside of it needs no entry below:
/// `::`, `::1`, IPv4-compatible `::/96`, NAT64 `64:ff9b::/96` and `64:ff9b:1::/48`, discard `100::/64`,
/// SRv6 `5f00::/16`, unique local `fc00::/7`, link-local `fe80::/10`, site-local `fec0::/10`, multicast `ff00::/8`.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0], 3);

/// Blocks inside `2000::/3` that are not public unicast.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0], 23), // IETF protocol assignments: Teredo, benchmarking, ORCHID and ORCHIDv2, RFC 2928
    v6([0x2001, 0xdb8], 32), // documentation, RFC 3849
    v6([0x2002, 0], 16), // 6to4, carries an IPv4 address, RFC 3056
    v6([0x3fff, 0], 20), // documentation, RFC 9637
];

/// A constant block; a bad prefix length fails the build.
const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), prefix)
}

/// A constant block, given by its first two groups; a bad prefix length fails the build.
const fn v6(groups: [u16; 2], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(groups[0], groups[1], 0, 0, 0, 0, 0, 0), prefix)
}

/// True for a global unicast address that no registry sets apart. An IPv4-mapped address is judged as the IPv4 address
/// in it, since that is what gets dialled; every other IPv6 form that carries an IPv4 address is not public.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(inner) => is_public(IpAddr::V4(inner)),
            None => GLOBAL_V6.contains(&ip) && !SPECIAL_V6.iter().any(|net| net.contains(&ip)) && !is_isatap(ip),
        },
    }
}

/// An IPv4 address in the interface's half of an address of any network, RFC 5214.
fn is_isatap(ip: Ipv6Addr) -> bool {
    let groups = ip.segments();
    groups[5] == 0x5efe && groups[4] & !0x0200 == 0
}

/// The IPv4 address inside an IPv4-mapped (`::ffff:a.b.c.d`) or IPv4-compatible (`::a.b.c.d`) address; any other
/// address as it is. `::` and `::1` are addresses of their own and stay.
pub fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) if !v6.is_unspecified() && !v6.is_loopback() => v6.to_ipv4().map_or(ip, IpAddr::V4),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn ordinary_addresses_are_public() {
        let all = "1.1.1.1 93.184.216.34 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.255.255 \
            172.32.0.0 192.0.1.0 198.17.255.255 198.20.0.0 223.255.255.255 2606:4700::1111 2001:200::1 \
            2001:4860:4860::8888 2003::1 3ffe::1 ::ffff:1.1.1.1";
        for ip in all.split_whitespace() {
            assert!(public(ip), "{ip}");
        }
    }

    #[test]
    fn special_addresses_are_not() {
        let all = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 169.254.169.254 \
            172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.9 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 \
            198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: \
            ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::1.1.1.1 ::127.0.0.1 \
            64:ff9b::1.1.1.1 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:0:53aa:64c::1 2001:2::1 \
            2001:10::1 2001:20::1 2001:1ff:ffff::1 2001:db8::1 2002:0a00:0001::1 2002:101:101::1 3fff::1 \
            2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:10.0.0.1 3fff:fff::1 4000::1 5f00::1 fc00::1 fd12:3456::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1";
        for ip in all.split_whitespace() {
            assert!(!public(ip), "{ip}");
        }
    }

    #[test]
    fn the_embedded_address_comes_out_and_nothing_else_changes() {
        for (from, to) in [
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("::", "::"),
            ("64:ff9b::a00:1", "64:ff9b::a00:1"),
            ("10.0.0.1", "10.0.0.1"),
            ("fd00::1", "fd00::1"),
        ] {
            assert_eq!(unmapped(from.parse().unwrap()), to.parse::<IpAddr>().unwrap(), "{from}");
        }
    }

    proptest! {
        #[test]
        fn a_mapped_address_is_judged_as_what_it_maps(bits: u32) {
            let plain = Ipv4Addr::from(bits);
            let mapped = IpAddr::V6(plain.to_ipv6_mapped());
            prop_assert_eq!(is_public(mapped), is_public(IpAddr::V4(plain)));
            prop_assert_eq!(unmapped(mapped), IpAddr::V4(plain));
        }

        #[test]
        fn what_the_standard_library_calls_special_is_never_public(bits: u32) {
            let ip = Ipv4Addr::from(bits);
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast()
                || ip.is_broadcast() || ip.is_documentation() || ip.is_unspecified();
            prop_assert!(!(special && is_public(IpAddr::V4(ip))));
        }

        #[test]
        fn nothing_outside_of_global_unicast_is_public(bits: u128) {
            let ip = Ipv6Addr::from(bits);
            let outside = ip.segments()[0] >> 13 != 1 && ip.to_ipv4_mapped().is_none();
            prop_assert!(!(outside && is_public(IpAddr::V6(ip))));
        }

        #[test]
        fn an_address_that_carries_another_is_never_public(bits: u32) {
            let [a, b, c, d] = bits.to_be_bytes();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for groups in [
                [0x64, 0xff9b, 0, 0, 0, 0, high, low],
                [0x2002, high, low, 0, 0, 0, 0, 1],
                [0x2001, 0, 0x4136, 0xe378, 0x8000, 0x63bf, !high, !low],
                [0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low],
                [0x2606, 0x4700, 0, 0, 0x0200, 0x5efe, high, low],
                [0, 0, 0, 0, 0, 0, high, low],
            ] {
                prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::from(groups))));
            }
        }
    }
}
