//! One element of `ports` against a protocol and a destination port.

use ringfence_model::{Pod, PortMatch, PortName, PortRange, Protocol};

use super::{L4, Shortfall};

/// The pods on which a named port counts.
pub(super) struct Lookup<'a>(pub(super) Vec<&'a Pod>);

/// Whether a port entry matches, or why it does not.
pub(super) fn port_matches(entry: &PortMatch, l4: L4, lookup: &Lookup<'_>) -> Result<(), Shortfall> {
    match entry {
        // 86, 87, 218 to 220: a rejected entry matches nothing.
        PortMatch::Nothing => Err(Shortfall::Invalid),
        PortMatch::Range(range) => {
            if range_matches(*range, l4) {
                Ok(())
            } else {
                Err(Shortfall::OtherPort {
                    allowed: *range,
                    asked: l4,
                })
            }
        }
        PortMatch::Named { name, protocol } => named_port_matches(name, *protocol, l4, lookup),
    }
}

/// 80, 82, 85: the protocol must be the same, and the port within both ends.
fn range_matches(range: PortRange, l4: L4) -> bool {
    match l4 {
        L4::Port { protocol, port } => {
            // 88: 1 to 65535 is the whole protocol, and so is 0 to 65535.
            let whole = range.first <= 1 && range.last == u16::MAX;
            protocol == range.protocol && (whole || (range.first <= port && port <= range.last))
        }
        // 113: a rule with ports never matches a protocol without them.
        L4::Icmpv6 { .. } | L4::Other(_) => false,
    }
}

/// 89 to 97: one of the pods declares name and protocol with this number.
fn named_port_matches(name: &PortName, protocol: Protocol, l4: L4, lookup: &Lookup<'_>) -> Result<(), Shortfall> {
    let mut why = Shortfall::NamedPortWithoutPod(name.clone());
    for pod in &lookup.0 {
        // 92: name and protocol; 95: every number that fits both.
        let mut numbers = Vec::new();
        for declared in &pod.ports {
            if declared.name == *name && declared.protocol == protocol {
                numbers.push(declared.number);
            }
        }
        let asked = match l4 {
            L4::Port { protocol: asked, port } if asked == protocol => Some(port),
            _ => None,
        };
        if asked.is_some_and(|port| numbers.contains(&port)) {
            return Ok(());
        }
        // 93: a pod that does not declare the name contributes nothing.
        why = if numbers.is_empty() {
            Shortfall::NamedPortUndeclared {
                pod: pod.name.clone(),
                name: name.clone(),
                protocol,
            }
        } else {
            Shortfall::NamedPortElsewhere {
                pod: pod.name.clone(),
                name: name.clone(),
                protocol,
                numbers,
                asked: l4,
            }
        };
    }
    Err(why)
}
