//! A way from one pod to another on one network: what probes, flows and streams are made from.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use ringfence_model::Family;
use ringfence_netns::Netns;

use crate::pod::Pod;
use crate::probe::{Probe, Protocol};

/// From an interface of one pod to an address and port of another.
#[derive(Debug, Clone)]
pub struct Path {
    /// The sender's namespace.
    pub from: Arc<Netns>,
    /// Its address.
    pub source: IpAddr,
    /// Its interface, so that nothing leaves by another one; `None` from a pod to itself, which goes over `lo`.
    pub interface: Option<String>,
    /// The receiver's namespace.
    pub to: Arc<Netns>,
    /// The receiver's address and port.
    pub target: SocketAddr,
    /// `x/a → x/b on weave`, for messages.
    pub label: String,
}

impl Path {
    /// On a network that both pods are on.
    pub fn new(from: &Pod, to: &Pod, network: &str, family: Family, port: u16) -> Result<Self> {
        let interface = from.on(network)?;
        let itself = Arc::ptr_eq(&from.netns, &to.netns);
        Ok(Self {
            from: from.netns.clone(),
            source: from.address(network, family)?,
            interface: (!itself).then(|| interface.name.clone()),
            to: to.netns.clone(),
            target: SocketAddr::new(to.address(network, family)?, port),
            label: format!("{} → {} on {network}", from.full_name(), to.full_name()),
        })
    }

    /// The same to another port.
    #[must_use]
    pub fn port(&self, port: u16) -> Self {
        let mut other = self.clone();
        other.target.set_port(port);
        other
    }

    /// A probe along it.
    pub fn probe(&self, protocol: Protocol) -> Probe {
        Probe {
            from: self.from.clone(),
            source: Some(self.source),
            interface: self.interface.clone(),
            to: self.target,
            protocol,
            label: self.label.clone(),
        }
    }

    /// A TCP probe along it.
    pub fn tcp(&self) -> Probe {
        self.probe(Protocol::Tcp)
    }

    /// A UDP probe along it.
    pub fn udp(&self) -> Probe {
        self.probe(Protocol::Udp)
    }

    /// An echo request along it; the port means nothing.
    pub fn ping(&self) -> Probe {
        self.probe(Protocol::Icmp)
    }
}
