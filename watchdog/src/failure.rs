//! Why the daemon ends other than by being asked to, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigErrors;
use crate::printable::printable_lines;

/// A reason to end.
#[derive(Debug)]
pub enum Failure {
    /// It was running, and could not go on: exit code 1.
    Running(String),
    /// It was called or configured wrongly: exit code 2.
    Usage(String),
    /// The node lacks something that it needs: exit code 3.
    Missing(String),
}

impl Failure {
    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Running(_) => 1,
            Self::Usage(_) => 2,
            Self::Missing(_) => 3,
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Running(what) | Self::Usage(what) | Self::Missing(what)) = self;
        // It may quote a file or a peer.
        f.write_str(&printable_lines(what))
    }
}

impl std::error::Error for Failure {}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Usage(errors.to_string())
    }
}
