//! Without the feature there is no spool.

use std::sync::Arc;

use super::super::super::WhenFull;
use super::super::super::chunk::Compressor;
use super::super::super::output::OutputError;
use super::super::lane::Lane;
use super::super::outbox::{Encoded, Parcel};
use super::super::shared::Shared;
use super::super::transport::Transport;
use super::Taken;
use opa_core::AppId;

pub(in super::super) enum Streams {}

impl Streams {
    pub(in super::super) fn of_lane(
        &self,
        _: &Shared,
        _: &AppId,
        _: &Arc<str>,
        _: &Transport,
        _: WhenFull,
    ) -> Option<Spooled> {
        match *self {}
    }

    pub(in super::super) fn is_for_all(&self) -> bool {
        match *self {}
    }

    pub(in super::super) fn attach(&self, _: &Arc<Lane>) {
        match *self {}
    }

    pub(in super::super) async fn close(&self) {
        match *self {}
    }
}

pub(in super::super) enum Spooled {}

impl Spooled {
    pub(in super::super) fn take(&self, _: &Shared, _: Encoded) -> Taken {
        match *self {}
    }

    pub(in super::super) fn next(
        &self,
        _: bool,
        _: &mut Compressor,
    ) -> Result<Option<(Parcel, InFlight)>, OutputError> {
        match *self {}
    }

    pub(in super::super) fn is_busy(&self) -> bool {
        match *self {}
    }

    pub(in super::super) fn is_blocked(&self) -> bool {
        match *self {}
    }

    pub(in super::super) fn is_full_of(&self, _: &Shared) -> bool {
        match *self {}
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        match *self {}
    }

    pub(in super::super) fn is_full(&self) -> bool {
        match *self {}
    }

    pub(in super::super) fn has_backlog(&self) -> bool {
        match *self {}
    }

    pub(in super::super) fn owner(&self) -> Option<Arc<Lane>> {
        match *self {}
    }

    pub(in super::super) fn leave(&self) {
        match *self {}
    }
}

pub(in super::super) enum InFlight {}

impl InFlight {
    pub(in super::super) fn settle(self, _: u64) {
        match self {}
    }

    pub(in super::super) fn put_back(self) {
        match self {}
    }
}
