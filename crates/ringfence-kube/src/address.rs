//! Addresses and prefixes as annotations, statuses and policies write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An address that a pod's interface can have. Accepts blanks around it and a prefix length behind it; an IPv4-mapped
/// IPv6 address becomes the IPv4 address that it stands for.
///
/// The error says what is wrong with it. Addresses that every pod has or that no pod owns (loopback, link-local,
/// multicast, unspecified) would let one pod's annotation speak for others.
pub(crate) fn pod_address(text: &str) -> Result<IpAddr, &'static str> {
    let text = text.trim();
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    if address.contains('%') {
        return Err("an address with a zone is valid on one host only");
    }
    let parsed: IpAddr = address.parse().map_err(|_| "it is no IP address")?;
    if let Some(prefix) = prefix {
        let longest = if parsed.is_ipv4() { 32 } else { 128 };
        if decimal(prefix).is_none_or(|length| length > longest) {
            return Err("its prefix length does not exist");
        }
    }
    let address = parsed.to_canonical();
    let link_local = match address {
        IpAddr::V4(it) => it.is_link_local(),
        IpAddr::V6(it) => it.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Err("the unspecified address belongs to nobody")
    } else if address.is_loopback() {
        Err("every pod has the loopback address")
    } else if address.is_multicast() {
        Err("a multicast address belongs to nobody")
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Err("the broadcast address belongs to nobody")
    } else if link_local {
        Err("a link-local address may exist on every network at once")
    } else {
        Ok(address)
    }
}

/// A prefix of a policy. Stored objects hold forms that later API servers refuse, so host bits are masked off and
/// leading zeros are read as decimal (statement 72). The error says what is wrong.
pub(crate) fn prefix(text: &str) -> Result<IpNet, &'static str> {
    let (address, length) = text.split_once('/').ok_or("the prefix length is missing")?;
    let address = if address.contains(':') {
        let address = legacy_v6(address).ok_or("its address cannot be read")?;
        if address.to_ipv4_mapped().is_some() {
            return Err("an IPv4-mapped prefix matches no packet");
        }
        IpAddr::V6(address)
    } else {
        IpAddr::V4(legacy_v4(address).ok_or("its address cannot be read")?)
    };
    let length = decimal(length).ok_or("its prefix length is no number")?;
    let length = u8::try_from(length).map_err(|_| "its prefix length is too large")?;
    let net = IpNet::new(address, length).map_err(|_| "its prefix length is too large")?;
    Ok(net.trunc())
}

/// Four decimal octets, leading zeros allowed.
fn legacy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?).and_then(|value| u8::try_from(value).ok())?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// With an IPv4 address at the end the same holds for its octets: `64:ff9b::010.0.0.0`.
fn legacy_v6(text: &str) -> Option<Ipv6Addr> {
    match text.rsplit_once(':') {
        Some((start, end)) if end.contains('.') => format!("{start}:{}", legacy_v4(end)?).parse().ok(),
        _ => text.parse().ok(),
    }
}

/// One to nine digits and nothing else: `str::parse` would accept a sign.
fn decimal(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s072_s073_s221_prefixes_of_policies() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                prefix(text).ok().map(|net| net.to_string()).as_deref(),
                expected,
                "{text:?}"
            );
        };
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("10.1.2.3/8", Some("10.0.0.0/8"));
        check("010.001.000.000/16", Some("10.1.0.0/16"));
        check("10.0.0.0/08", Some("10.0.0.0/8"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("fd00::1/64", Some("fd00::/64"));
        check("::/0", Some("::/0"));
        check("fd00::1/128", Some("fd00::1/128"));
        check("64:ff9b::10.0.0.0/104", Some("64:ff9b::a00:0/104"));
        // Found by fuzzing: refused, unlike the same octets outside of an IPv6 address.
        check("64:ff9b::010.000.0.0/104", Some("64:ff9b::a00:0/104"));
        for bad in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "10.0.0.256/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/8/8",
            "fd00::/129",
            "fd00::%eth0/64",
            "::ffff:10.0.0.0/104",
            "::ffff:a00:0/96",
            "::ffff:010.0.0.0/104",
            "64:ff9b::10.0.0.256/104",
            "64:ff9b::10.0.0/104",
            "all",
            "10.0.0.0/99999999999999999999",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn s136_addresses_of_pods() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                pod_address(text).ok().map(|it| it.to_string()).as_deref(),
                expected,
                "{text:?}"
            );
        };
        check("10.20.1.10", Some("10.20.1.10"));
        check(" 10.20.1.10 ", Some("10.20.1.10"));
        check("192.0.2.2/24", Some("192.0.2.2"));
        check("2001:db8::2230/32", Some("2001:db8::2230"));
        check("::ffff:10.20.1.10", Some("10.20.1.10"));
        for bad in [
            "",
            "eth0",
            "010.0.0.1",
            "10.0.0.1/33",
            "10.0.0.1/",
            "0.0.0.0",
            "::",
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "224.0.0.1",
            "ff02::1",
            "169.254.1.1",
            "fe80::1",
            "fe80::1%eth0",
            "2001:db8::1%1",
            "255.255.255.255",
            "<nil>",
        ] {
            check(bad, None);
        }
    }
}
