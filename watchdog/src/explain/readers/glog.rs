//! glog: `W1104 22:36:43.185218 147990 file.cc:288] message`; since 0.6 with a year, `W20221104 …`.
//!
//! The layout stands in glog's `LogSink::ToString` and `LogMessage::Init`.

use super::{Head, Kind, Moment, Reader};
use crate::explain::stamp::{Stamp, clock, digits, known_year, month_and_day};
use crate::explain::wall::{DAY, days_from_civil};

/// This layout.
pub const READER: Reader = Reader {
    kind: Kind::Glog,
    name: "glog",
    head,
    claims,
};

fn head(line: &[u8]) -> Option<Head<'_>> {
    if !matches!(line.first()?, b'I' | b'W' | b'E' | b'F') {
        return None;
    }
    let dated = line.get(5) != Some(&b' ');
    let date = if dated { 5 } else { 1 };
    let (month, day) = month_and_day(digits(line, date, 2)?, digits(line, date + 2, 2)?)?;
    let start = date + 5;
    if line.get(start - 1) != Some(&b' ') {
        return None;
    }
    let (of_day, taken) = clock(line.get(start..)?)?;
    let rest = start + taken;
    let blanks = line
        .get(rest..)?
        .iter()
        .take_while(|byte| **byte == b' ')
        .count();
    let thread = rest + blanks;
    let length = line[thread..].iter().position(|byte| *byte == b' ')?;
    let close = thread + memchr::memchr(b']', &line[thread..])?;
    let stamp = if dated {
        Stamp {
            local: days_from_civil(known_year(digits(line, 1, 4)?)?, month, day) * DAY + of_day,
            zone: None,
            yearless: None,
            len: rest,
        }
    } else {
        Stamp {
            local: of_day,
            zone: None,
            yearless: Some((month, day)),
            len: rest,
        }
    };
    Some(Head {
        moment: Moment::Wall(stamp),
        thread: &line[thread..thread + length],
        message: (close + 2).min(line.len()),
    })
}

fn claims(line: &[u8]) -> u32 {
    if line.starts_with(b"Log line format: [IWEF]") {
        return 5;
    }
    3 * u32::from(head(line).is_some())
}
