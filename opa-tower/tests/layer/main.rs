//! The layer as a whole, with a scripted engine in the place of a policy.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admin;
mod apps;
mod contract;
mod decisions;
mod holding;
mod requests;
mod servers;
mod support;
