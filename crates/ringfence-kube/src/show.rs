//! Decoded manifests as short texts, for the expectations of tests.

use std::fmt::Write as _;

use ringfence_model::{
    Attachment, Consequence, Coverage, Object, Peer, Peers, Policy, PortMatch, Ports, Requirement, Rule, Selector,
};

use crate::decode::Decoded;

/// One manifest: the object, then a line for each diagnostic.
pub(crate) fn decoded(decoded: &Decoded) -> String {
    let mut out = match &decoded.object {
        None => format!("{}: rejected\n", decoded.source),
        Some(Object::Policy(it)) => policy(it),
        Some(Object::Pod(it)) => {
            let mut out = format!("Pod {} uid={}", it.name, it.uid);
            if let Some(other) = &it.mirror_of {
                let _ = write!(out, " mirror={other}");
            }
            for (what, value) in [("hostNetwork", it.host_network), ("terminal", it.terminal)] {
                if value {
                    let _ = write!(out, " {what}");
                }
            }
            if let Some(node) = &it.node {
                let _ = write!(out, " node={node}");
            }
            let _ = write!(out, " started={}", it.started);
            for (key, value) in it.labels.iter() {
                let _ = write!(out, " {key}={value}");
            }
            if !it.host_addresses.is_empty() {
                let _ = write!(out, " host={:?}", it.host_addresses);
            }
            out.push('\n');
            for port in &it.ports {
                let _ = writeln!(out, "  port {} {}/{}", port.name, port.number, port.protocol);
            }
            for line in attachments(&it.attachments).lines() {
                let _ = writeln!(out, "  {line}");
            }
            out
        }
        Some(Object::Namespace(it)) => {
            let labels: Vec<String> = it.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!(
                "Namespace {} [{}]{}{}\n",
                it.name,
                labels.join(" "),
                if it.terminating { " terminating" } else { "" },
                if it.isolate_ingress { " isolated" } else { "" },
            )
        }
        Some(Object::Network(it)) => format!("Network {} plugins={:?} ipam={:?}\n", it.name, it.plugins, it.ipam),
    };
    for it in &decoded.diagnostics {
        assert_eq!(it.source, decoded.source, "{it}");
        assert!(!it.message.contains('\n') && it.message.chars().count() < 500, "{it}");
        let _ = writeln!(
            out,
            "! {:?} {} at {:?}: {} -> {}",
            it.severity,
            it.reason.as_str(),
            it.path,
            it.message,
            consequence(it.consequence)
        );
    }
    out
}

/// All manifests of a text.
pub(crate) fn text(text: &str) -> String {
    crate::decode(text, "test.yaml").iter().map(decoded).collect()
}

/// One line for each attachment.
pub(crate) fn attachments(attachments: &[Attachment]) -> String {
    let mut out = String::new();
    for it in attachments {
        let networks: Vec<String> = it.networks.iter().map(ToString::to_string).collect();
        let addresses: Vec<String> = it.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            out,
            "{}{} on [{}] has [{}]",
            it.interface.as_ref().map_or("?", |name| name.as_str()),
            if it.primary { " (primary)" } else { "" },
            networks.join(", "),
            addresses.join(", "),
        );
    }
    out
}

fn consequence(it: Consequence) -> &'static str {
    match it {
        Consequence::MatchesNothing => "matches nothing",
        Consequence::SelectsNothing => "selects nothing",
        Consequence::ActsNowhere => "acts nowhere",
        Consequence::PartIgnored => "part ignored",
        Consequence::ObjectIgnored => "object ignored",
        Consequence::KeepsLast => "keeps last",
        Consequence::None => "none",
    }
}

fn policy(it: &Policy) -> String {
    let coverage = match &it.coverage {
        Coverage::Scope => "scope".to_owned(),
        Coverage::Networks(names) => {
            // Bare plugin names and `default` look alike otherwise.
            let names: Vec<String> = names
                .iter()
                .map(|name| format!("{name:?}").split('(').next().unwrap_or("").to_owned() + " " + &name.to_string())
                .collect();
            format!("[{}]", names.join(", "))
        }
    };
    let target = it.target.as_ref().map_or_else(|| "nothing".to_owned(), selector);
    let mut out = format!("{} on {coverage} selects {target}\n", it.key);
    for (name, rules) in [("ingress", &it.ingress), ("egress", &it.egress)] {
        match rules {
            None => {}
            Some(rules) if rules.is_empty() => {
                let _ = writeln!(out, "  {name}: no rules");
            }
            Some(rules) => {
                for (position, it) in rules.iter().enumerate() {
                    let _ = writeln!(out, "  {name}[{position}]: {}", rule(it));
                }
            }
        }
    }
    out
}

fn rule(it: &Rule) -> String {
    let peers = match &it.peers {
        Peers::All => "everyone".to_owned(),
        Peers::OneOf(peers) => format!("[{}]", peers.iter().map(peer).collect::<Vec<_>>().join("; ")),
    };
    let ports = match &it.ports {
        Ports::All => "everything".to_owned(),
        Ports::OneOf(ports) => format!("[{}]", ports.iter().map(port).collect::<Vec<_>>().join("; ")),
    };
    format!("{peers} may {ports}")
}

fn peer(it: &Peer) -> String {
    match it {
        Peer::Pods { namespaces: None, pods } => format!("pods {}", selector(pods)),
        Peer::Pods {
            namespaces: Some(namespaces),
            pods,
        } => format!("pods {} of namespaces {}", selector(pods), selector(namespaces)),
        Peer::IpBlock(block) => block.to_string(),
        Peer::Nothing => "nothing".to_owned(),
    }
}

fn port(it: &PortMatch) -> String {
    match it {
        PortMatch::Range(it) if it.is_whole() => it.protocol.to_string(),
        PortMatch::Range(it) if it.first == it.last => format!("{}/{}", it.first, it.protocol),
        PortMatch::Range(it) => format!("{}-{}/{}", it.first, it.last, it.protocol),
        PortMatch::Named { name, protocol } => format!("{name}/{protocol}"),
        PortMatch::Nothing => "nothing".to_owned(),
    }
}

fn selector(it: &Selector) -> String {
    let parts: Vec<String> = it
        .requirements()
        .iter()
        .map(|it| match it {
            Requirement::In { key, values } => format!("{key} in {}", values.join("|")),
            Requirement::NotIn { key, values } => format!("{key} notin {}", values.join("|")),
            Requirement::Exists(key) => format!("{key}"),
            Requirement::DoesNotExist(key) => format!("!{key}"),
        })
        .collect();
    format!("{{{}}}", parts.join(", "))
}
