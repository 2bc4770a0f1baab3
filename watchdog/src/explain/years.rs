//! From a stamp as written to a moment that all logs share: years that are not written, zones.
//!
//! In: what the logs' first lines, names and files' times tell of the date; `--timezone`. Out: one
//! [`Wall`] for each stamp. Never: today's date.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::stamp::{Stamp, digits, month_and_day};
use super::wall::{DAY, SECOND, Wall, civil_from_days, days_from_civil};

/// The zone that a report is told in, and what it is known from.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Seconds east of UTC.
    pub east: i32,
    /// `--timezone`, a log, or nothing.
    pub source: &'static str,
}

/// The offset that a zone's name or `+08:00` had on a day.
///
/// # Errors
///
/// What is wrong with the name.
pub fn offset_of(name: &str, days: i64) -> Result<i32, String> {
    let numeric = name.starts_with(['+', '-']);
    let zone = if numeric {
        let stamp = super::stamp::iso(format!("2000-01-01 00:00:00{name}").as_bytes());
        let east = stamp
            .and_then(|stamp| stamp.zone)
            .ok_or_else(|| format!("--timezone {name}: write +08:00 or Europe/Berlin"))?;
        TimeZone::fixed(Offset::from_seconds(east).map_err(|error| error.to_string())?)
    } else {
        TimeZone::get(name)
            .map_err(|error| format!("--timezone {name}: {error}; write +08:00 or Europe/Berlin"))?
    };
    let noon = Timestamp::from_second(days * 86_400 + 43_200).map_err(|error| error.to_string())?;
    Ok(zone.to_offset(noon).seconds())
}

/// Whole dates in a text (`2022-11-04`, `2022/11/04`, `20221104` after a dot or dash), as days since
/// 1970.
#[must_use]
pub fn dates_in(text: &[u8], most: usize) -> Vec<i64> {
    let mut found = Vec::new();
    for at in memchr::memmem::find_iter(text, b"20") {
        let Some(year) = digits(text, at, 4) else {
            continue;
        };
        if at > 0 && text[at - 1].is_ascii_digit() {
            continue;
        }
        let mark = text.get(at + 4).copied().unwrap_or(0);
        let (month, day, end) = if mark == b'-' || mark == b'/' {
            if text.get(at + 7) != Some(&mark) {
                continue;
            }
            (digits(text, at + 5, 2), digits(text, at + 8, 2), at + 10)
        } else if at > 0 && matches!(text[at - 1], b'.' | b'-') {
            (digits(text, at + 4, 2), digits(text, at + 6, 2), at + 8)
        } else {
            continue;
        };
        if text.get(end).is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let date = month.zip(day).and_then(|(m, d)| month_and_day(m, d));
        if let Some((month, day)) = date {
            found.push(days_from_civil(year, month, day));
            if found.len() >= most {
                break;
            }
        }
    }
    found
}

/// Turns stamps into moments.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// Days that are known to have been meant.
    known: Vec<i64>,
    /// The report's zone.
    pub zone: Zone,
    /// The last month and day that had no year, and the day it was.
    last: Option<((u32, u32), i64)>,
}

impl Calendar {
    /// `known` days since 1970, and the zone of stamps without one.
    #[must_use]
    pub fn new(mut known: Vec<i64>, zone: Zone) -> Self {
        known.sort_unstable();
        known.dedup();
        Self {
            known,
            zone,
            last: None,
        }
    }

    /// When it was, in the report's zone.
    #[inline]
    pub fn moment(&mut self, stamp: Stamp) -> Wall {
        let mut local = stamp.local;
        if let Some(date) = stamp.yearless {
            local += self.day(date) * DAY;
        }
        if let Some(zone) = stamp.zone {
            local += i64::from(self.zone.east - zone) * SECOND;
        }
        Wall(local)
    }

    /// Month and day in the year that brings them next to a known day.
    fn day(&mut self, date: (u32, u32)) -> i64 {
        if let Some((last, days)) = self.last
            && last == date
        {
            return days;
        }
        let nearest = self
            .known
            .iter()
            .flat_map(|known| {
                let (year, ..) = civil_from_days(*known);
                (year - 1..=year + 1).map(move |year| {
                    let days = days_from_civil(year, date.0, date.1);
                    ((days - known).abs(), days)
                })
            })
            .min()
            // No year at all: any leap year will do, spans are right in it.
            .map_or_else(|| days_from_civil(2000, date.0, date.1), |(_, days)| days);
        self.last = Some((date, nearest));
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::stamp::{iso, syslog};

    const UTC: Zone = Zone {
        east: 0,
        source: "nothing",
    };

    #[test]
    fn a_year_is_the_one_next_to_a_known_day() {
        let known = vec![days_from_civil(2022, 12, 31)];
        let mut calendar = Calendar::new(known, UTC);
        let of = |calendar: &mut Calendar, text: &str| {
            calendar.moment(syslog(text.as_bytes()).unwrap()).date()
        };
        assert_eq!(of(&mut calendar, "Jan  1 00:00:01 x"), "2023-01-01");
        assert_eq!(of(&mut calendar, "Dec 31 23:59:59 x"), "2022-12-31");
    }

    #[test]
    fn zones_meet_in_the_reports() {
        let zone = Zone {
            east: 28_800,
            source: "--timezone",
        };
        let mut calendar = Calendar::new(Vec::new(), zone);
        let utc = calendar.moment(iso(b"2022-11-04T14:36:43.020Z").unwrap());
        let local = calendar.moment(iso(b"2022-11-04 22:36:43,020").unwrap());
        assert_eq!(utc, local);
        assert_eq!(offset_of("Asia/Shanghai", 19_300), Ok(28_800));
        assert_eq!(offset_of("+08:00", 19_300), Ok(28_800));
        assert!(offset_of("Nowhere/None", 19_300).is_err());
    }

    #[test]
    fn dates_are_found_in_names_and_lines() {
        let day = days_from_civil(2022, 11, 4);
        assert_eq!(dates_in(b"meta.log.INFO.20221104-223600.1", 9), [day]);
        assert_eq!(dates_in(b"x 2022-11-04 y 2022/11/04", 9), [day, day]);
        assert!(dates_in(b"id 12022-11-04 20229999 2022-1104", 9).is_empty());
    }
}
