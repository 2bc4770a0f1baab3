//! Leases: what is seen of their flows ([`observation`]), what is said of them ([`note`]), and
//! the rules in between.

pub mod note;
pub mod observation;
