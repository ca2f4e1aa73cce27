//! How values are written, wherever they stand.

use std::time::Duration;

use highwater_server::AllowedOrigins;

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// A duration such as `500ms`, `5s`, `2m`, `1h`; more than nothing.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = "expected a number with its unit, such as 500ms, 5s, 2m or 1h";
    match with_unit(text, &DURATION_UNITS) {
        Some(0) => Err("it must be more than nothing".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err(expected.to_owned()),
    }
}

/// The shortest way to write a duration that [`duration`] reads.
pub(super) fn show_duration(duration: Duration) -> String {
    show(duration.as_millis() as u64, &DURATION_UNITS)
}

/// A size such as `64MiB` or `4096B`; more than nothing.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let expected = "expected a number with its unit, such as 512KiB, 64MiB or 1GiB";
    match with_unit(text, &SIZE_UNITS).map(usize::try_from) {
        Some(Ok(0)) => Err("it must be more than nothing".to_owned()),
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(_)) | None => Err(expected.to_owned()),
    }
}

/// The shortest way to write a size that [`size`] reads.
pub(super) fn show_size(bytes: usize) -> String {
    show(bytes as u64, &SIZE_UNITS)
}

/// `*`, or origins with commas between them.
pub(super) fn origins(text: &str) -> Result<AllowedOrigins, String> {
    if text.trim() == "*" {
        return Ok(AllowedOrigins::Any);
    }
    let origin = |text: &str| {
        let origin = text.trim();
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        match host {
            Some(host) if !host.is_empty() && !host.contains(['/', ' ', '*']) => Ok(origin.to_owned()),
            _ => Err(format!(
                "{origin:?} is no origin: write it as a browser does, such as https://app.example.com, without a path"
            )),
        }
    };
    text.split(',').map(origin).collect::<Result<_, _>>().map(AllowedOrigins::These)
}

/// A number of things, at least one.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a number of at least 1".to_owned()),
    }
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let largest =
        units.iter().filter(|(_, factor)| value.is_multiple_of(*factor)).max_by_key(|(_, factor)| factor);
    let (unit, factor) = largest.unwrap_or(&units[0]);
    format!("{}{unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_they_are_shown() {
        for text in ["1ms", "500ms", "5s", "90s", "2m", "1h"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["1B", "1KiB", "64MiB", "1GiB", "1025B"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }

    #[test]
    fn values_without_a_unit_or_a_meaning_are_refused() {
        for text in ["", "5", "5 parsecs", "-1s", "0s", "1.5s", "s", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "64", "64MB", "0B", "-1KiB", "99999999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(count("0").is_err() && count("many").is_err() && switch("yes").is_err());
    }
}
