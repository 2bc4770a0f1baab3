//! The faults, one file per family.

mod stopped;

use crate::fault::Fault;

/// All of them, in the order of the table.
pub fn all() -> Vec<&'static Fault> {
    [stopped::FAULTS].into_iter().flatten().collect()
}
