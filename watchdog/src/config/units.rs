//! Values with units: durations, shares, sizes, ports.
//!
//! In: one value of the tree. Out: a number in base units (ns, share of 1, bytes), or what is
//! wrong with it and the mend. Never: the value's name or place; the caller adds those.

use std::ops::RangeInclusive;

use super::tree::Value;

const YEAR_NS: f64 = 365.0 * 86_400.0 * 1e9;

/// Text of a scalar; `None` for lists and groups.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Int(number) => Some(number.to_string()),
        Value::Number(text) | Value::Text(text) => Some(text.trim().to_owned()),
        _ => None,
    }
}

/// Splits "12.5s" into 12.5 and "s".
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number = text[..end].parse::<f64>().ok()?;
    Some((number, text[end..].trim_start()))
}

/// A duration in ns. `0` alone needs no unit.
pub fn duration(value: &Value) -> Result<u64, String> {
    let wrong = || {
        format!("{value} is not a duration; write a number and a unit (ms, s, m, h), like \"12s\"")
    };
    let text = scalar(value).ok_or_else(wrong)?;
    let (number, unit) = number_and_unit(&text).ok_or_else(wrong)?;
    let unit_ns = match unit {
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        "" if number == 0.0 => 1.0,
        "" => return Err(format!("\"{text}\" has no unit; write \"{text}s\"")),
        _ => return Err(wrong()),
    };
    let span = number * unit_ns;
    if span > YEAR_NS {
        return Err(format!("\"{text}\" is longer than a year"));
    }
    Ok(span.round() as u64)
}

/// A duration that cannot be nothing.
pub fn positive_duration(value: &Value) -> Result<u64, String> {
    match duration(value)? {
        0 => Err(format!("{value} is no time at all; write at least \"1ms\"")),
        span => Ok(span),
    }
}

/// A duration that is not zero, or `off` (`None`).
pub fn duration_or_off(value: &Value) -> Result<Option<u64>, String> {
    match value {
        Value::Text(text) if text == "off" => Ok(None),
        _ => positive_duration(value)
            .map(Some)
            .map_err(|what| format!("{what}, or \"off\"")),
    }
}

/// A duration, or `auto` (`None`).
pub fn duration_or_auto(value: &Value) -> Result<Option<u64>, String> {
    match value {
        Value::Text(text) if text == "auto" => Ok(None),
        _ => duration(value)
            .map(Some)
            .map_err(|what| format!("{what}, or \"auto\"")),
    }
}

/// A percentage above 0 and up to 100, as a share of 1.
pub fn share(value: &Value) -> Result<f64, String> {
    let wrong = || format!("{value} is not a percentage; write one like \"50%\"");
    let text = scalar(value).ok_or_else(wrong)?;
    let (number, unit) = number_and_unit(&text).ok_or_else(wrong)?;
    match unit {
        "%" => {}
        "" if number > 0.0 && number <= 1.0 => {
            let percent = (number * 1e6).round() / 1e4;
            return Err(format!("\"{text}\" has no unit; write \"{percent}%\""));
        }
        "" => return Err(format!("\"{text}\" has no unit; write \"{text}%\"")),
        _ => return Err(wrong()),
    }
    if number <= 0.0 || number > 100.0 {
        return Err(format!("\"{text}\" is out of range; write 1% to 100%"));
    }
    Ok(number / 100.0)
}

/// A size in bytes.
pub fn size(value: &Value) -> Result<u64, String> {
    let wrong = || {
        format!("{value} is not a size; write a number and a unit (KiB, MiB, GiB), like \"64MiB\"")
    };
    let text = scalar(value).ok_or_else(wrong)?;
    let (number, unit) = number_and_unit(&text).ok_or_else(wrong)?;
    let unit_bytes = match unit {
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "" => return Err(format!("\"{text}\" has no unit; write \"{text}MiB\"")),
        "KB" | "kB" | "MB" | "GB" | "K" | "M" | "G" | "k" => {
            let letter = unit[..1].to_uppercase();
            return Err(format!(
                "\"{text}\" has a unit of unclear size; write \"{number}{letter}iB\""
            ));
        }
        _ => return Err(wrong()),
    };
    let bytes = number * unit_bytes;
    if bytes < 1.0 || bytes > 2f64.powi(50) {
        return Err(format!("\"{text}\" is out of range"));
    }
    Ok(bytes as u64)
}

/// One port, or a range "a-b".
pub fn ports(value: &Value) -> Result<RangeInclusive<u16>, String> {
    let wrong = || {
        format!(
            "{value} is not a port; write a number from 1 to 65535 or a range like \"2181-2190\""
        )
    };
    let text = scalar(value).ok_or_else(wrong)?;
    let port = |text: &str| match text.trim().parse::<u64>() {
        Ok(number @ 1..=65_535) => Ok(number as u16),
        Ok(number) => Err(format!(
            "port {number} does not exist; ports go from 1 to 65535"
        )),
        Err(_) => Err(wrong()),
    };
    let Some((first, last)) = text.split_once('-').filter(|(first, _)| !first.is_empty()) else {
        let only = port(&text)?;
        return Ok(only..=only);
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("{value} runs backwards; write \"{last}-{first}\""));
    }
    Ok(first..=last)
}

/// A span for people: "12s", "1.5s", "250ms".
#[must_use]
pub fn show_duration(span_ns: u64) -> String {
    if span_ns < 1_000_000_000 {
        format!("{}ms", span_ns as f64 / 1e6)
    } else {
        format!("{}s", span_ns as f64 / 1e9)
    }
}

/// A share for people: "67%".
#[must_use]
pub fn show_share(share: f64) -> String {
    format!("{}%", (share * 1e6).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration(&text("12s")), Ok(12_000_000_000));
        assert_eq!(duration(&text("250ms")), Ok(250_000_000));
        assert_eq!(duration(&text("1.5 s")), Ok(1_500_000_000));
        assert_eq!(duration(&text("2m")), Ok(120_000_000_000));
        assert_eq!(duration(&text("1h")), Ok(3_600_000_000_000));
        assert_eq!(duration(&Value::Int(0)), Ok(0));
        for (value, said) in [
            (Value::Int(12), "\"12\" has no unit; write \"12s\""),
            (text("12"), "\"12\" has no unit; write \"12s\""),
            (
                Value::Number("0.5".into()),
                "\"0.5\" has no unit; write \"0.5s\"",
            ),
            (
                Value::Int(-5),
                "\"-5\" is not a duration; write a number and a unit (ms, s, m, h), like \"12s\"",
            ),
            (
                text("12sec"),
                "\"12sec\" is not a duration; write a number and a unit (ms, s, m, h), like \"12s\"",
            ),
            (text("9000h"), "\"9000h\" is longer than a year"),
        ] {
            assert_eq!(duration(&value), Err(said.to_owned()));
        }
    }

    #[test]
    fn shares_need_a_percent_sign() {
        assert_eq!(share(&text("50%")), Ok(0.5));
        assert_eq!(share(&text("100%")), Ok(1.0));
        for (value, said) in [
            (Value::Int(50), "\"50\" has no unit; write \"50%\""),
            (
                Value::Number("0.07".into()),
                "\"0.07\" has no unit; write \"7%\"",
            ),
            (text("0%"), "\"0%\" is out of range; write 1% to 100%"),
            (text("101%"), "\"101%\" is out of range; write 1% to 100%"),
            (
                text("half"),
                "\"half\" is not a percentage; write one like \"50%\"",
            ),
        ] {
            assert_eq!(share(&value), Err(said.to_owned()));
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size(&text("64MiB")), Ok(64 << 20));
        assert_eq!(
            size(&text("64MB")),
            Err("\"64MB\" has a unit of unclear size; write \"64MiB\"".to_owned())
        );
        assert_eq!(
            size(&Value::Int(64)),
            Err("\"64\" has no unit; write \"64MiB\"".to_owned())
        );
    }

    #[test]
    fn ports_exist_and_ranges_run_forwards() {
        assert_eq!(ports(&Value::Int(2181)), Ok(2181..=2181));
        assert_eq!(ports(&text("2181")), Ok(2181..=2181));
        assert_eq!(ports(&text("12181-12190")), Ok(12181..=12190));
        assert_eq!(ports(&text("1-65535")), Ok(1..=65535));
        for (value, said) in [
            (
                Value::Int(0),
                "port 0 does not exist; ports go from 1 to 65535",
            ),
            (
                Value::Int(65_536),
                "port 65536 does not exist; ports go from 1 to 65535",
            ),
            (
                Value::Int(-1),
                "\"-1\" is not a port; write a number from 1 to 65535 or a range like \"2181-2190\"",
            ),
            (
                text("0-10"),
                "port 0 does not exist; ports go from 1 to 65535",
            ),
            (text("20-10"), "\"20-10\" runs backwards; write \"10-20\""),
        ] {
            assert_eq!(ports(&value), Err(said.to_owned()));
        }
    }
}
