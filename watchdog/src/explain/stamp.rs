//! Time stamps at the head of a line, in the shapes that loggers write.
//!
//! In: bytes. Out: local nanoseconds, the zone if the stamp carries one, and how many bytes it
//! took. Never: a guess; what is not a stamp is `None`.

use super::wall::{DAY, SECOND, days_from_civil};

/// A stamp as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since 1970 as if the local time were UTC; without a year, since the year's
    /// first day.
    pub local: i64,
    /// Seconds east of UTC, if written.
    pub zone: Option<i32>,
    /// Month and day, where no year is written.
    pub yearless: Option<(u32, u32)>,
    /// Bytes taken.
    pub len: usize,
}

impl Stamp {
    /// Microseconds since 1970, as the journal counts.
    #[must_use]
    pub fn of_unix_us(us: i64) -> Option<Self> {
        let local = us.checked_mul(1000)?;
        // As far as years are believed.
        (0..230 * 365 * DAY).contains(&local).then_some(Self {
            local,
            zone: Some(0),
            yearless: None,
            len: 0,
        })
    }
}

/// The number in `count` digits at `at`.
#[inline]
#[must_use]
pub fn digits(bytes: &[u8], at: usize, count: usize) -> Option<i64> {
    let mut number = 0;
    for byte in bytes.get(at..at + count)? {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(number)
}

#[inline]
fn at(bytes: &[u8], index: usize) -> u8 {
    bytes.get(index).copied().unwrap_or(0)
}

/// `HH:MM:SS` and up to nine digits after `.` or `,`: nanoseconds of the day, and bytes taken.
#[inline]
#[must_use]
pub fn clock(bytes: &[u8]) -> Option<(i64, usize)> {
    if at(bytes, 2) != b':' || at(bytes, 5) != b':' {
        return None;
    }
    let (hour, minute, second) = (
        digits(bytes, 0, 2)?,
        digits(bytes, 3, 2)?,
        digits(bytes, 6, 2)?,
    );
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut ns = (hour * 3600 + minute * 60 + second) * SECOND;
    let mut len = 8;
    if matches!(at(bytes, 8), b'.' | b',') && at(bytes, 9).is_ascii_digit() {
        let mut unit = SECOND / 10;
        len = 9;
        while at(bytes, len).is_ascii_digit() {
            ns += i64::from(at(bytes, len) - b'0') * unit;
            unit /= 10;
            len += 1;
        }
    }
    Some((ns, len))
}

/// `Z`, `+0800`, `+08:00`, `+08`, `UTC`, the last and those with minutes also behind a blank: seconds east, and
/// bytes taken.
fn zone(bytes: &[u8]) -> Option<(i32, usize)> {
    if at(bytes, 0) == b'Z' {
        return Some((0, 1));
    }
    let blank = usize::from(at(bytes, 0) == b' ');
    let sign = match at(bytes, blank) {
        b'+' => 1,
        b'-' => -1,
        b'U' | b'G' => {
            let name = bytes.get(blank..blank + 3)?;
            let utc =
                matches!(name, b"UTC" | b"GMT") && !at(bytes, blank + 3).is_ascii_alphanumeric();
            return utc.then_some((0, blank + 3));
        }
        _ => return None,
    };
    let hours = digits(bytes, blank + 1, 2)?;
    let colon = usize::from(at(bytes, blank + 3) == b':');
    let (minutes, taken) = match digits(bytes, blank + 3 + colon, 2) {
        Some(minutes) => (minutes, blank + 5 + colon),
        None if blank == 0 && !at(bytes, 3).is_ascii_digit() => (0, 3),
        None => return None,
    };
    if hours > 14 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    Some((sign * seconds, taken))
}

/// Whatever a program's logger puts first: [`iso`], `22/11/04 22:36:43`, `04-Nov-2022 22:36:43.020`, `04 Nov 2022
/// 22:36:43,020`, `Nov 04, 2022 10:36:43 PM`, `Nov 04 2022 22:36:43`.
#[must_use]
pub fn loose(bytes: &[u8]) -> Option<Stamp> {
    if let Some(stamp) = iso(bytes) {
        return Some(stamp);
    }
    match at(bytes, 2) {
        b'/' if at(bytes, 5) == b'/' && at(bytes, 8) == b' ' => {
            let (month, day) = month_and_day(digits(bytes, 3, 2)?, digits(bytes, 6, 2)?)?;
            of(2000 + digits(bytes, 0, 2)?, month, day, bytes, 9)
        }
        b'-' | b' ' | b'/' if at(bytes, 6) == at(bytes, 2) => {
            let month = month_of(bytes.get(3..6)?)?;
            let (month, day) = month_and_day(month, digits(bytes, 0, 2)?)?;
            of(digits(bytes, 7, 4)?, month, day, bytes, 12)
        }
        _ => {
            let month = month_name(bytes)?;
            let (month, day) = month_and_day(month, digits(bytes, 4, 2)?)?;
            if at(bytes, 6) == b',' {
                of(digits(bytes, 8, 4)?, month, day, bytes, 13)
            } else {
                syslog(bytes).filter(|stamp| stamp.yearless.is_none())
            }
        }
    }
}

/// A date, and the time of day that stands at `start`.
fn of(year: i64, month: u32, day: u32, bytes: &[u8], start: usize) -> Option<Stamp> {
    let year = known_year(year)?;
    let rest = bytes.get(start..)?;
    // `9:36:43` has no zero before it in some.
    let short = at(rest, 1) == b':';
    let (mut of_day, mut taken) = if short {
        let padded: Vec<u8> = b"0".iter().chain(rest.iter().take(20)).copied().collect();
        clock(&padded).map(|(of_day, taken)| (of_day, taken - 1))?
    } else {
        clock(rest)?
    };
    let half = rest.get(taken..taken + 3).unwrap_or(b"");
    if matches!(half, b" AM" | b" PM") {
        let hour = of_day / (3600 * SECOND);
        let noon = 12 * 3600 * SECOND;
        of_day = match (half[1], hour) {
            (b'A', 12) => of_day - noon,
            (b'P', 0..12) => of_day + noon,
            _ => of_day,
        };
        taken += 3;
    }
    let zone = zone(bytes.get(start + taken..)?).inspect(|(_, more)| taken += more);
    Some(Stamp {
        local: days_from_civil(year, month, day) * DAY + of_day,
        zone: zone.map(|(seconds, _)| seconds),
        yearless: None,
        len: start + taken,
    })
}

/// `2022-11-04 22:36:43,020`, `2022-11-04T22:36:43.020+0800`, `2022/11/04 22:36:43.02Z`, …
#[must_use]
pub fn iso(bytes: &[u8]) -> Option<Stamp> {
    let dash = at(bytes, 4);
    if !matches!(dash, b'-' | b'/' | b'.')
        || at(bytes, 7) != dash
        || !matches!(at(bytes, 10), b' ' | b'T')
    {
        return None;
    }
    let year = known_year(digits(bytes, 0, 4)?)?;
    let (month, day) = month_and_day(digits(bytes, 5, 2)?, digits(bytes, 8, 2)?)?;
    let (of_day, taken) = clock(bytes.get(11..)?)?;
    let mut len = 11 + taken;
    let zone = zone(bytes.get(len..)?).inspect(|(_, taken)| len += taken);
    Some(Stamp {
        local: days_from_civil(year, month, day) * DAY + of_day,
        zone: zone.map(|(seconds, _)| seconds),
        yearless: None,
        len,
    })
}

/// `Nov  4 22:36:43`, as syslog has it; `Nov 04 2022 22:36:43` too.
#[must_use]
pub fn syslog(bytes: &[u8]) -> Option<Stamp> {
    let month = month_name(bytes)?;
    let day = match (at(bytes, 4), at(bytes, 5)) {
        (b' ', last) if last.is_ascii_digit() => i64::from(last - b'0'),
        _ => digits(bytes, 4, 2)?,
    };
    let (month, day) = month_and_day(month, day)?;
    if at(bytes, 6) != b' ' {
        return None;
    }
    if let Some(year) = digits(bytes, 7, 4).and_then(known_year)
        && at(bytes, 11) == b' '
    {
        let (of_day, taken) = clock(bytes.get(12..)?)?;
        return Some(Stamp {
            local: days_from_civil(year, month, day) * DAY + of_day,
            zone: None,
            yearless: None,
            len: 12 + taken,
        });
    }
    let (of_day, taken) = clock(bytes.get(7..)?)?;
    Some(Stamp {
        local: of_day,
        zone: None,
        yearless: Some((month, day)),
        len: 7 + taken,
    })
}

/// `Fri Nov  4 22:36:43 2022`, as `dmesg -T` has it.
#[must_use]
pub fn ctime(bytes: &[u8]) -> Option<Stamp> {
    if at(bytes, 3) != b' ' {
        return None;
    }
    let rest = bytes.get(4..)?;
    let stamp = syslog(rest)?;
    let (month, day) = stamp.yearless?;
    if at(rest, stamp.len) != b' ' {
        return None;
    }
    let year = known_year(digits(rest, stamp.len + 1, 4)?)?;
    Some(Stamp {
        local: days_from_civil(year, month, day) * DAY + stamp.local,
        zone: None,
        yearless: None,
        len: 4 + stamp.len + 5,
    })
}

/// `12.345` seconds since something: nanoseconds, and bytes taken.
#[must_use]
pub fn seconds(bytes: &[u8]) -> Option<(i64, usize)> {
    let whole = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if whole == 0 || whole > 9 || at(bytes, whole) != b'.' {
        return None;
    }
    let mut ns = digits(bytes, 0, whole)? * SECOND;
    let mut unit = SECOND / 10;
    let mut len = whole + 1;
    while at(bytes, len).is_ascii_digit() {
        ns += i64::from(at(bytes, len) - b'0') * unit;
        unit /= 10;
        len += 1;
    }
    (len > whole + 1).then_some((ns, len))
}

/// A year that a log can be of: others are a number that looks like one, and nanoseconds since 1970 end in
/// 2262.
#[must_use]
pub fn known_year(year: i64) -> Option<i64> {
    (1970..2200).contains(&year).then_some(year)
}

/// Month and day, if there are such.
#[must_use]
pub fn month_and_day(month: i64, day: i64) -> Option<(u32, u32)> {
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day);
    fits.then_some((month as u32, day as u32))
}

fn month_name(bytes: &[u8]) -> Option<i64> {
    let month = month_of(bytes.get(..3)?)?;
    (at(bytes, 3) == b' ').then_some(month)
}

fn month_of(name: &[u8]) -> Option<i64> {
    const NAMES: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let place = NAMES.chunks_exact(3).position(|known| known == name)?;
    Some(place as i64 + 1)
}

/// A count and its unit, as Go and people write it: `3.302s`, `100ms`, `2m30s`, in milliseconds.
#[must_use]
pub fn go_duration_ms(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1e-6,
                "us" | "µs" | "μs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3600e3,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::wall::MS;

    #[test]
    fn shapes_of_the_same_moment_agree() {
        let local = days_from_civil(2022, 11, 4) * DAY + (22 * 3600 + 36 * 60 + 43) * SECOND;
        for text in [
            "2022-11-04 22:36:43,020 x",
            "2022-11-04T22:36:43.020+0800",
            "2022/11/04 22:36:43.02Z",
            "2022-11-04 22:36:43.020000000 +08:00",
        ] {
            assert_eq!(
                iso(text.as_bytes()).unwrap().local,
                local + 20 * MS,
                "{text}"
            );
        }
        assert_eq!(ctime(b"Fri Nov  4 22:36:43 2022] x").unwrap().local, local);
        assert_eq!(
            iso(b"2022-11-04T22:36:43.020+0800").unwrap().zone,
            Some(28_800)
        );
        assert_eq!(
            syslog(b"Nov  4 22:36:43 host").unwrap().yearless,
            Some((11, 4))
        );
    }

    #[test]
    fn what_other_loggers_write() {
        let local = days_from_civil(2022, 11, 4) * DAY + (22 * 3600 + 36 * 60 + 43) * SECOND;
        for text in [
            "22/11/04 22:36:43 INFO x",
            "04-Nov-2022 22:36:43.000 INFO x",
            "04 Nov 2022 22:36:43,000 INFO x",
            "04/Nov/2022:22:36:43 +0800 x",
            "Nov 04, 2022 10:36:43 PM a.b.C d",
            "Nov 04 2022 22:36:43 x",
            "2022.11.04 22:36:43.000 x",
            "2022-11-04 22:36:43 UTC x",
            "2022-11-04T22:36:43+08 x",
        ] {
            assert_eq!(loose(text.as_bytes()).unwrap().local, local, "{text}");
        }
        let at = |text: &str| loose(text.as_bytes()).unwrap();
        assert_eq!(
            at("Nov 04, 2022 9:36:43 AM x").local,
            local - 13 * 3600 * SECOND
        );
        assert_eq!(
            at("Nov 04, 2022 12:36:43 AM x").local,
            local - 22 * 3600 * SECOND
        );
        assert_eq!(at("2022-11-04 22:36:43 UTC x").zone, Some(0));
        assert_eq!(at("2022-11-04T22:36:43+08 x").zone, Some(28_800));
        assert_eq!(at("2022-11-04 22:36:43,020 - INFO").zone, None);
        assert_eq!(at("2022-11-04 22:36:43,020 GMTX").zone, None);
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        for text in [
            "",
            "2022-11-04",
            "2022-13-04 22:36:43",
            "2022-11-04 25:00:00",
            "Foo  4 22:36:43",
            "9999-11-04 22:36:43",
            "0000-11-04 22:36:43",
        ] {
            assert_eq!(loose(text.as_bytes()), None, "{text}");
            assert_eq!(iso(text.as_bytes()), None, "{text}");
            assert_eq!(syslog(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(go_duration_ms("3.302s"), Some(3302.0));
        assert_eq!(go_duration_ms("2m30s"), Some(150_000.0));
        assert_eq!(go_duration_ms("100ms"), Some(100.0));
        assert_eq!(go_duration_ms("fast"), None);
    }
}
