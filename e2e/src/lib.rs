//! The harness of the tests that run against a real Kubernetes API.
//!
//! [`Lane`] is a cluster that `e2e/cluster` has brought up, [`Api`] talks to its API server. A test of the fast lane is a
//! [`World`]: a namespace, an agent of its own, and pods that are network namespaces of `ringfence-testkit` with Pod objects
//! that the test writes as kubelet and Multus would. A test of the full cluster is a [`Site`]: a namespace with real pods,
//! and the agent that the chart has installed.
//!
//! The tests are behind the feature `cluster` and are run by `hack/e2e`, which brings a cluster up first. By hand:
//!
//! ```text
//! e2e/tools/build && e2e/cluster up --fast && cargo build -p ringfence
//! RINGFENCE_E2E_RUN=/var/tmp/ringfence-e2e/r1 cargo test -p ringfence-e2e --features cluster
//! e2e/cluster down
//! ```

mod api;
mod helm;
mod lane;
mod site;
mod wait;
mod world;

pub use api::Api;
pub use helm::Helm;
pub use lane::Lane;
pub use site::{Cut, PORT, RealPod, Site, StaticPod};
pub use wait::{PATIENCE, eventually};
pub use world::{Right, World};
