//! Which addresses a webhook may lead to.
//!
//! A webhook makes a process that stands among databases call whatever somebody named. So the address that is
//! *connected to* is judged, not the name: a name can lead elsewhere a moment later.
//!
//! Always refused, whatever the settings: what is no single host's (unspecified, multicast, broadcast, reserved), and the link's
//! own (169.254.0.0/16, fe80::/10), where clouds keep the credentials of the machine; and where they keep them elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds answer a machine about itself, outside the link's own addresses: Azure (168.63.129.16), Alibaba Cloud (100.100.100.200).
const CLOUDS_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
/// The same, as the first 32 bits: AWS (fd00:ec2::254 and others), Oracle Cloud (fd00:c1::a9fe:a9fe), Google Cloud (fd20:ce::254).
const CLOUDS_V6: [(u16, u16); 3] = [(0xfd00, 0x0ec2), (0xfd00, 0x00c1), (0xfd20, 0x00ce)];

/// How far webhooks may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of the internet.
    Public,
    /// And this machine, and private networks.
    Private,
}

impl Reach {
    /// Whether events may be posted to this address.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        match (kind(address), self) {
            (Kind::Public, _) | (Kind::Private, Self::Private) => true,
            (Kind::Private, Self::Public) | (Kind::Nobodys, _) => false,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Nobodys,
}

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => inner_v4(v6).map_or_else(|| kind_v6(v6), kind_v4),
    }
}

fn kind_v4(v4: Ipv4Addr) -> Kind {
    let [a, b, c, _] = v4.octets();
    match (a, b, c) {
        _ if CLOUDS_V4.contains(&v4) => Kind::Nobodys,
        (0 | 224..=255, ..) | (169, 254, _) => Kind::Nobodys,
        // Of protocols, of documents, of 6to4 relays, of benchmarks.
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) | (198, 18 | 19, _) => Kind::Nobodys,
        (127 | 10, ..) | (192, 168, _) | (172, 16..=31, _) | (100, 64..=127, _) => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_v6(v6: Ipv6Addr) -> Kind {
    let [a, b, ..] = v6.segments();
    match a {
        _ if CLOUDS_V6.contains(&(a, b)) => Kind::Nobodys,
        _ if v6.is_loopback() => Kind::Private,
        0xfc00..=0xfdff => Kind::Private,
        0x2001 if b == 0xdb8 => Kind::Nobodys,
        // The only part of the space that is given out.
        0x2000..=0x3fff => Kind::Public,
        _ => Kind::Nobodys,
    }
}

/// The IPv4 address that an IPv6 one leads to: mapped, compatible, NAT64, 6to4.
fn inner_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(pair(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_insides_of_a_network_are_not_reached_by_default() {
        let private = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "::1", "fd00::1"];
        for text in private.into_iter().chain(["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:0a00:0001::1"]) {
            let address = text.parse().expect(text);
            assert!(!Reach::Public.allows(address) && Reach::Private.allows(address), "{text}");
        }
    }

    #[test]
    fn what_is_nobodys_and_the_clouds_own_are_never_reached() {
        let nobodys =
            ["169.254.169.254", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"];
        let six = [
            "::",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2001:db8::1",
            "2002:a9fe:a9fe::",
        ];
        let clouds = [
            "168.63.129.16",
            "100.100.100.200",
            "::ffff:168.63.129.16",
            "64:ff9b::100.100.100.200",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ];
        for text in nobodys.into_iter().chain(six).chain(clouds) {
            assert!(!Reach::Private.allows(text.parse().expect(text)), "{text}");
        }
    }

    #[test]
    fn the_internet_is_reached() {
        for text in ["93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(Reach::Public.allows(text.parse().expect(text)), "{text}");
        }
    }
}
