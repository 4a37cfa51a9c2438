//! 123 on the wire: a DHCP client sends from a packet socket, past the IP stack.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_model::{
    Attachment, Coverage, InterfaceName, Labels, NamespacedName, Network as Definition, Object, Pod, PodUid, Policy,
    PolicyKey, PolicyKind, Scope, Selector,
};
use ringfence_netlink::Enforcer;
use ringfence_policy::{Index, Locality, Options, TargetFacts};
use ringfence_testkit::{Network, PodSpec, RawSender, Sniffer, Topology, Wiring, frame::Frame};

use crate::generate::network;
use crate::stage::BLUE;

/// Frames to the broadcast address, as ports from and to, and whether the other pod sees them.
fn check(ipam: &str, frames: &[((u16, u16), bool)]) -> Result<()> {
    let mut topology = Topology::new("agreement-dhcp")?;
    topology.network(Network::new(BLUE, Wiring::Bridge))?;
    let spec = |name: &str| PodSpec::multus(name).attach("net1", BLUE);
    let pods = topology.pods(vec![spec("x/client"), spec("x/server")])?;
    let (client, server) = (&pods[0], &pods[1]);
    let features = ringfence_netlink::probe()?;
    let ruleset = ruleset(ipam, features)?;
    let mut enforcer = client.netns.run(|| Enforcer::open(features))??;
    enforcer.enforce(Some(&ruleset))?;

    let sniffer = Sniffer::start(server, "net1")?;
    let sender = RawSender::open(client, "net1")?;
    let frame = |(from, to): (u16, u16)| -> Result<Frame> {
        Ok(Frame {
            source_mac: client.interfaces[0].mac,
            target_mac: [0xff; 6],
            source: format!("0.0.0.0:{from}").parse()?,
            target: format!("255.255.255.255:{to}").parse()?,
        })
    };
    for (ports, _) in frames {
        sender.send(&frame(*ports)?.udp(b"discover"))?;
    }
    // Frames of one sender arrive in order, so after this one every other has arrived, or never will.
    enforcer.enforce(None)?;
    sender.send(&frame((1, 1))?.udp(b"the last"))?;
    let to = |port: u16| {
        move |packet: &ringfence_testkit::frame::Packet| packet.protocol == 17 && packet.target.port() == port
    };
    sniffer
        .wait_for(Duration::from_secs(10), to(1))
        .context("the last frame")?;
    for ((from, port), wanted) in frames {
        let seen = sniffer.saw(|it| to(*port)(it) && it.source.port() == *from);
        assert_eq!(seen, *wanted, "ipam {ipam}: {from} to {port}\n{ruleset}");
    }
    Ok(())
}

/// The client's rules under a policy that denies everything.
fn ruleset(ipam: &str, kernel: ringfence_ruleset::KernelFeatures) -> Result<ringfence_ruleset::Ruleset> {
    let uid = PodUid::new("client")?;
    let interface = InterfaceName::new("net1")?;
    let mut index = Index::new(Options {
        locality: Locality::All,
        scope: Scope::Secondary,
        kernel,
        node_addresses: [].into(),
    });
    index.apply(Object::Network(Definition {
        name: NamespacedName::new("x", "blue"),
        plugins: vec!["macvlan".into()],
        ipam: [ipam.into()].into(),
    }));
    index.apply(Object::Pod(Pod {
        mirror_of: None,
        uid: uid.clone(),
        name: NamespacedName::new("x", "client"),
        node: None,
        labels: Labels::default(),
        attachments: vec![Attachment {
            interface: Some(interface.clone()),
            networks: [network(BLUE)].into(),
            primary: false,
            addresses: [].into(),
        }],
        ports: [].into(),
        host_network: false,
        terminal: false,
        started: 0,
        host_addresses: [].into(),
    }));
    index.apply(Object::Policy(Policy {
        key: PolicyKey {
            kind: PolicyKind::MultiNetworkPolicy,
            name: NamespacedName::new("x", "closed"),
        },
        coverage: Coverage::Networks([network(BLUE)].into()),
        target: Some(Selector::everything()),
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
    }));
    let facts = TargetFacts {
        interfaces: [interface].into(),
        gateways: [].into(),
    };
    index.set_facts(&uid, Some(facts));
    index.commit();
    index.ruleset(&uid).cloned().context("a closed pod has rules")
}

#[test]
fn s123_frames_of_a_dhcp_client_leave_where_addresses_come_by_dhcp() {
    let open = [
        ((68, 67), true),
        ((546, 547), true),
        ((67, 68), false),
        ((68, 53), false),
    ];
    check("dhcp", &open).expect("the wire");
    let closed = [((68, 67), false), ((546, 547), false)];
    check("whereabouts", &closed).expect("the wire");
}
