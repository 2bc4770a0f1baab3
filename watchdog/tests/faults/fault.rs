//! What a fault is: a name, what is done, what the daemon should say, and how it is played.

use crate::sample::Sample;
use crate::scene::Scene;

/// One row of the matrix.
#[derive(Debug)]
pub struct Fault {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done, in a few words.
    pub does: &'static str,
    /// The causes that are right; `unknown` never is.
    pub expected: &'static [&'static str],
    /// How many victims at once.
    pub batch: usize,
    /// Samples in the short form; zero leaves it out there.
    pub short: usize,
    /// Whether it disturbs others that are played at the same time.
    pub alone: bool,
    /// Why it cannot be played here, if so.
    pub lacking: fn() -> Option<&'static str>,
    /// Plays one batch with that many victims, in the common scene or in one of its own.
    pub play: fn(&Scene, usize) -> Vec<Sample>,
}

impl Fault {
    /// A fault with eight victims at once, not in the short form.
    pub const fn new(
        name: &'static str,
        does: &'static str,
        expected: &'static [&'static str],
        play: fn(&Scene, usize) -> Vec<Sample>,
    ) -> Self {
        Self {
            name,
            does,
            expected,
            batch: 8,
            short: 0,
            alone: false,
            lacking: || None,
            play,
        }
    }

    /// The same with other numbers: victims at once, samples in the short form.
    pub const fn sized(mut self, batch: usize, short: usize) -> Self {
        self.batch = batch;
        self.short = short;
        self
    }

    /// The same for one that not every kernel can play.
    pub const fn where_not(mut self, lacking: fn() -> Option<&'static str>) -> Self {
        self.lacking = lacking;
        self
    }

    /// The same for one that disturbs others.
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }
}
