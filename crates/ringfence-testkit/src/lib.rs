//! Real pods without a cluster: network namespaces wired as CNI plugins wire them, manifests as multi-network
//! plugins write them, and traffic by real sockets between them. For tests and for `hack/demo`; needs root.
//!
//! Everything is synchronous. Sockets are opened inside a pod's namespace by a thread that enters it through
//! `ringfence-netns` and leaves it again; afterwards they are used from anywhere.
//!
//! # Address plan
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | underlay, node k (from 1) | `192.0.2.(10+k)/24` | `2001:db8::(10+k)/64` |
//! | network n (from 0, in the order of [`Topology::network`]) | `10.(20+n).0.0/16` | `fd00:(20+n)::/64` |
//! | … its part on node k | `10.(20+n).k.0/24` | `fd00:(20+n)::k:0/112` |
//! | … its gateway on node k, where it has one | `10.(20+n).k.1` | `fd00:(20+n)::k:1` |
//! | … pod p (from 0, in the order of creation in the whole topology) | `10.(20+n).k.(10+p)` | `fd00:(20+n)::k:(10+p)` |
//!
//! The last groups of IPv6 addresses are written with the decimal digits of the IPv4 ones, so that the pair
//! `10.20.1.10` and `fd00:20::1:10` is easy to spot. A pod with two attachments on one network has the second address at
//! `… (110+p)`. MAC addresses are `02:72:66:` and then pod and interface number, except on the host side of a routed veth
//! (`ee:ee:ee:ee:ee:ee`, as Calico sets it).
//!
//! # Names
//!
//! A topology called `T` makes namespaces `rf-T-p<pid>n<count>-<rest>` in `/run/netns`: `…-fabric` (the wire between the
//! nodes), `…-node1`, and one per pod `…-<namespace>.<name>`. What a killed run left behind is removed by [`sweep`], which
//! every process does once before its first topology.
//!
//! Reading order: [`Topology`], [`PodSpec`], [`Path`], [`Echo`], [`Probe`], [`Matrix`], then [`Flow`], [`Bulk`],
//! [`Stream`], [`frame`], [`packet`], [`manifest`], [`Agent`].

mod agent;
mod barrage;
mod bulk;
mod command;
mod echo;
mod flow;
pub mod frame;
pub mod manifest;
mod matrix;
mod namespace;
pub mod packet;
mod path;
pub mod plan;
mod pod;
mod probe;
mod sniffer;
mod socket;
mod stream;
mod topology;
mod wait;
mod wiring;
mod yaml;

pub use agent::{Agent, ManifestFolder, Response, free_port, http_get};
pub use barrage::{Barrage, Must, Tally};
pub use bulk::Bulk;
pub use command::run as run_program;
pub use echo::Echo;
pub use flow::{Flow, Load};
pub use matrix::{Look, Matrix};
pub use namespace::{NamedNetns, sweep};
pub use path::Path;
pub use pod::{Attach, Dialect, Interface, Pod, PodSpec};
pub use probe::{Answer, Outcome, Probe, Protocol, TIMEOUT, probe_all};
pub use sniffer::{RawSender, Sniffer, StackSender};
pub use stream::Stream;
pub use topology::{Network, Topology};
pub use wait::eventually;
pub use wiring::Wiring;
