//! Leases: what is seen of their flows ([`observation`]), what is said of them ([`note`]), and
//! the rules in between.

pub mod book;
pub mod cadence;
pub mod facts;
pub mod normal;
pub mod note;
pub mod observation;
pub mod settings;
pub mod stage;
pub mod threads;
