//! The events of outputs that have a spool: they wait on the disk.
//!
//! A [stream] is what the spool has of one output of an app, whoever left it: configurations before,
//! or a process before. The newest lane that is open has it. Without one it stays where it is.

#[cfg(all(feature = "spool", unix))]
mod cache;
#[cfg(test)]
#[cfg(all(feature = "spool", unix))]
mod faults;
#[cfg(all(feature = "spool", unix))]
mod flight;
#[cfg(all(feature = "spool", unix))]
mod stream;
#[cfg(all(feature = "spool", unix))]
mod streams;
#[cfg(test)]
#[cfg(all(feature = "spool", unix))]
mod tests;

#[cfg(not(all(feature = "spool", unix)))]
mod absent;

#[cfg(all(feature = "spool", unix))]
pub(super) use self::{
    flight::InFlight,
    stream::Spooled,
    streams::{Opening, Streams},
};
#[cfg(not(all(feature = "spool", unix)))]
pub(super) use absent::{InFlight, Spooled, Streams};

use super::ticket::Durable;

/// What became of an event that was to be spooled, or is waited for.
pub(super) enum Taken {
    /// The spool has it, and will have it on the disk, or the output will have it.
    Awaited(Durable),
    /// It is given up, as the configuration wants it.
    #[cfg_attr(
        not(all(feature = "spool", unix)),
        expect(dead_code, reason = "only a spool knows of it")
    )]
    Dropped,
    /// It is given up for want of room.
    #[cfg_attr(
        not(all(feature = "spool", unix)),
        expect(dead_code, reason = "only a spool knows of it")
    )]
    Lost,
}
