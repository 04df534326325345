//! (being built)
pub mod bundle;
