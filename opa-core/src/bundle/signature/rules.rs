//! What else a configuration says about signed bundles: deltas, and bundles that are older than the
//! active one.

use super::super::Bundle;
use super::super::error::BundleError;
use super::{Verification, fault};

impl Verification {
    /// Whether an unsigned delta may be taken.
    ///
    /// # Errors
    /// Bundles must be signed, and nothing exempts deltas.
    pub(in super::super) fn permit_delta(&self) -> Result<(), BundleError> {
        let exempt = self.signing.allow_unsigned_delta_bundles && !self.required_in_code;
        if self.required && !exempt {
            return Err(fault("delta bundles do not support signature verification"));
        }
        Ok(())
    }

    /// Whether there is a use for deltas.
    pub(crate) fn takes_deltas(&self) -> bool {
        self.permit_delta().is_ok()
    }

    /// Whether `fresh` may take the place of `active`, with
    /// [`refuse_older`](crate::config::SigningConfig::refuse_older).
    ///
    /// # Errors
    /// It is older, or doesn't tell.
    pub(crate) fn check_age(
        &self,
        active: Option<&Bundle>,
        fresh: &Bundle,
    ) -> Result<(), BundleError> {
        if !self.signing.refuse_older {
            return Ok(());
        }
        if !fresh.is_signed() {
            return Err(fault("`refuse_older`: bundle is not signed"));
        }
        let Some(issued_at) = fresh.signed_at() else {
            return Err(fault(
                "`refuse_older`: bundle signature does not tell when it was made (claim `iat`)",
            ));
        };
        match active.and_then(Bundle::signed_at) {
            Some(of_active) if issued_at < of_active => Err(fault(format!(
                "`refuse_older`: bundle was signed at {issued_at}, before the active one \
                 ({of_active}, both in seconds since 1970)"
            ))),
            _ => Ok(()),
        }
    }
}
