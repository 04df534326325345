//! Data in regorus' form, held once for all policies that are joined with it.

use std::fmt;
use std::sync::{Arc, Weak};

use opa_rego::WeakValue;
use parking_lot::Mutex;
use regorus::Value as Theirs;

use super::convert::{Unsupported, Use, to_regorus};
use crate::Value;

/// Data as regorus holds it.
pub(super) struct Converted(pub(super) Theirs);

/// What was converted and is still in use.
#[derive(Default)]
pub(super) struct Conversions(Mutex<Vec<Conversion>>);

struct Conversion {
    of: WeakValue,
    /// Locked while it is made, so that equal work waits instead of being done twice.
    made: Arc<Mutex<Weak<Converted>>>,
}

impl Conversions {
    /// `data` in regorus' form. Equal data is the same value in memory already, so that is what it
    /// is found by.
    pub(super) fn get(&self, data: &Value) -> Result<Arc<Converted>, Unsupported> {
        let convert = || to_regorus(data, Use::Data).map(|theirs| Arc::new(Converted(theirs)));
        let Some(slot) = self.slot(data) else {
            return convert();
        };
        let mut made = slot.lock();
        if let Some(converted) = made.upgrade() {
            return Ok(converted);
        }
        let converted = convert()?;
        *made = Arc::downgrade(&converted);
        Ok(converted)
    }

    fn slot(&self, data: &Value) -> Option<Arc<Mutex<Weak<Converted>>>> {
        let of = data.downgrade()?;
        let mut all = self.0.lock();
        all.retain(|conversion| conversion.of.is_used());
        if let Some(known) = all.iter().find(|known| known.of.is_of(data)) {
            return Some(Arc::clone(&known.made));
        }
        let made = Arc::<Mutex<Weak<Converted>>>::default();
        let slot = Arc::clone(&made);
        all.push(Conversion { of, made });
        Some(slot)
    }
}

impl fmt::Debug for Conversions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conversions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_data_is_converted_once_and_forgotten_when_unused() {
        let conversions = Conversions::default();
        let data = Value::from_json(br#"{"a": [1]}"#).unwrap();
        let one = conversions.get(&data).unwrap();
        let two = conversions.get(&data.clone()).unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        let other = Value::from_json(br#"{"a": [1]}"#).unwrap();
        assert!(!Arc::ptr_eq(&one, &conversions.get(&other).unwrap()));
        drop(data);
        conversions.get(&other).unwrap();
        assert_eq!(conversions.0.lock().len(), 1);
    }
}
