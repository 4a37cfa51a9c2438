//! The harness of the tests that run against a real Kubernetes API.
//!
//! [`Lane`] is a cluster that `e2e/cluster` has brought up, [`Api`] talks to its API server, [`World`] is one test: a
//! namespace, pods and the agent. Pods of the fast lane are network namespaces of `ringfence-testkit` with Pod objects
//! that the test writes as the kubelet and Multus would.
//!
//! The tests are behind the feature `cluster` and are run by `hack/e2e`, which brings a cluster up first. By hand:
//!
//! ```text
//! e2e/tools/build && e2e/cluster up --fast && cargo build -p ringfence
//! RINGFENCE_E2E_RUN=/var/tmp/ringfence-e2e/r1 cargo test -p ringfence-e2e --features cluster
//! e2e/cluster down
//! ```

mod api;
mod lane;
mod wait;
mod world;

pub use api::Api;
pub use lane::Lane;
pub use wait::{PATIENCE, eventually};
pub use world::{Right, World};
