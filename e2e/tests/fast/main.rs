//! The agent on the real Kubernetes API: etcd, kube-apiserver, RBAC, and pods made of network namespaces. Needs a cluster;
//! `hack/e2e fast` brings one up and runs these.

mod away;
mod events;
mod faults;
mod networks;
mod order;
mod policies;
mod rights;
mod schema;
