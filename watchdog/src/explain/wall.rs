//! Moments of the wall clock, as logs give them.
//!
//! In: civil dates and times. Out: nanoseconds that can be subtracted, and text. Never: the clock of
//! this machine; a log says when it is.

use std::fmt;

use serde::{Serialize, Serializer};

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const MS: i64 = 1_000_000;
/// Nanoseconds in a day.
pub const DAY: i64 = 86_400 * SECOND;

/// Nanoseconds since 1970, in the time that all of a report is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

impl Wall {
    /// Nanoseconds from `earlier` to this moment; negative if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This many nanoseconds later.
    #[must_use]
    pub const fn plus(self, ns: i64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// This many milliseconds earlier.
    #[must_use]
    pub const fn minus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_sub(ms.saturating_mul(MS)))
    }

    /// The date, `2022-11-04`.
    #[must_use]
    pub fn date(self) -> String {
        let (year, month, day) = civil_from_days(self.0.div_euclid(DAY));
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// The time of day: three digits after the second where that is all there is, else six.
    #[must_use]
    pub fn time(self) -> String {
        let of_day = self.0.rem_euclid(DAY);
        let (seconds, ns) = (of_day / SECOND, of_day % SECOND);
        let head = format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        if ns % MS == 0 {
            format!("{head}.{:03}", ns / MS)
        } else {
            format!("{head}.{:06}", ns / 1000)
        }
    }

    /// To the millisecond, rounded down: what is derived from figures in milliseconds claims no more.
    #[must_use]
    pub const fn to_ms(self) -> Self {
        Self(self.0 - self.0.rem_euclid(MS))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.date(), self.time())
    }
}

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}T{}", self.date(), self.time()))
    }
}

/// A span for people: `795 ms`, `6.31 s`, `18.1 s`, `2 min 5 s`. Three digits that count.
#[must_use]
pub fn span(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.saturating_abs();
    let seconds = ns as f64 / SECOND as f64;
    let text = match ns {
        _ if ns < 10 * MS && ns % MS != 0 => format!("{:.2} ms", ns as f64 / MS as f64),
        _ if ns < SECOND => format!("{:.0} ms", ns as f64 / MS as f64),
        _ if seconds < 9.995 => format!("{seconds:.2} s"),
        _ if seconds < 99.95 => format!("{seconds:.1} s"),
        _ => {
            let whole = seconds.round() as i64;
            let (minutes, rest) = (whole / 60, whole % 60);
            match minutes {
                _ if minutes >= 120 => format!("{} h {} min", minutes / 60, minutes % 60),
                _ if rest == 0 => format!("{minutes} min"),
                _ => format!("{minutes} min {rest} s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A span in seconds to the millisecond: `18.099 s`.
#[must_use]
pub fn exact(ns: i64) -> String {
    let ms = (ns as f64 / MS as f64).round() as i64;
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03} s", ms.abs() / 1000, ms.abs() % 1000)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`: it runs once a
/// log line, where a calendar of more comfort costs more than the rest of the line.
#[must_use]
pub const fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month = month as i64;
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day as i64 - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + days - 719_468
}

/// The date of a day since 1970-01-01.
#[must_use]
pub const fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    } as u32;
    let year = year_of_era + era * 400 + (if month <= 2 { 1 } else { 0 });
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2022, 11, 4), 19_300);
        for days in -800_000..800_000 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn spans_show_three_digits_that_count() {
        assert_eq!(span(18_099 * MS), "18.1 s");
        assert_eq!(span(9_968 * MS), "9.97 s");
        assert_eq!(span(795 * MS), "795 ms");
        assert_eq!(span(125 * SECOND), "2 min 5 s");
        assert_eq!(span(9_999 * MS), "10.0 s");
        assert_eq!(exact(18_099_120_000), "18.099 s");
        assert_eq!(exact(-5 * MS), "-0.005 s");
    }
}
