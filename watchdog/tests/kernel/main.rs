//! Each probe alone, on this kernel: what it writes when the thing that it watches happens.
//!
//! Needs root and real software. A test that cannot run says why in a line that begins with
//! `SKIPPED:`.

mod block;
mod hung_disk;
mod journal;
