use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a poll changes its instance by, until the instance is configured otherwise.
///
/// Clones are the same ticket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket {
    lineage: Lineage,
    retired: Arc<AtomicBool>,
}

/// Tells contents apart that come from different places, or were held to different terms. Clones
/// are the same lineage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage(Arc<Mark>);

/// Not empty, so that each has an address of its own.
#[derive(Debug, Default)]
struct Mark(#[expect(dead_code, reason = "only its address counts")] u8);

impl Ticket {
    /// A ticket of another poll for the same content.
    pub(crate) fn successor(&self) -> Self {
        Self {
            lineage: self.lineage.clone(),
            retired: Arc::default(),
        }
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The poll must not change the instance any more. Called with the lock of the one activation
    /// held, under which the poll looks.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.retired, &other.retired)
    }
}

impl PartialEq for Lineage {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_has_the_lineage_and_a_life_of_its_own() {
        let first = Ticket::default();
        let second = first.successor();
        assert!(first != second && first == first.clone());
        assert!(first.lineage() == second.lineage());
        assert!(first.lineage() != Ticket::default().lineage());
        first.clone().retire();
        assert!(first.is_retired() && !second.is_retired());
    }
}
