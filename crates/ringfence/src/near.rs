//! Names that come near a misspelt one.

pub use ringfence_policy::near;
