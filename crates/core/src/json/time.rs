//! Times as RFC 3339 writes them.

use time::OffsetDateTime;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};
use time::format_description::well_known::{Iso8601, Rfc3339};

/// Milliseconds are written out, also if they are 0.
const WITH_MILLISECONDS: EncodedConfig = {
    let decimal_digits = std::num::NonZeroU8::new(3);
    Config::DEFAULT.set_time_precision(TimePrecision::Second { decimal_digits }).encode()
};

/// A time in milliseconds since 1970 as text, in UTC. Nothing for years that have not four digits.
pub(super) fn format(ms: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    let has_four_digits = (0..=9_999).contains(&time.year());
    has_four_digits.then(|| time.format(&Iso8601::<WITH_MILLISECONDS>).ok()).flatten()
}

/// Reads such a text, with any offset, and with any digits of the second; what is less than a millisecond is cut off.
pub(super) fn parse(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_568_523_004, "2026-11-25T01:02:03.004Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format(ms).as_deref(), Some(text));
            assert_eq!(parse(text), Some(ms), "{text}");
        }
        assert_eq!(format(253_402_300_800_000), None);
        assert_eq!(format(i64::MIN), None);
    }

    #[test]
    fn other_ways_to_write_a_time_are_read() {
        assert_eq!(parse("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse("1969-12-31t22:30:00.1234567-01:30"), Some(123));
        assert_eq!(parse("1970-01-01 00:00:00.5z"), Some(500));
    }

    #[test]
    fn what_is_no_time_is_told() {
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-02-30T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00Z ",
            "+970-01-01T00:00:00Z",
            "1970-01-01T00:00:00+0100",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
