//! A pod that attacks: what somebody with CAP_NET_RAW or CAP_NET_ADMIN inside a pod can do about its rules. The names of
//! the tests say how it ends (`closed_…`, `repaired_…`, `open_…`); the table in docs/security.md lists all of them, and
//! `table` holds it against the tests. Needs root, iproute2 with `tc`, and nft, and fails without them.

mod admin;
mod claims;
mod devices;
mod raw;
mod table;
mod world;
