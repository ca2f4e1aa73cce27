//! Times as RFC 3339 writes them.

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// From 0000-01-01 to 9999-12-31: what has four digits for the year.
const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// A time in milliseconds since 1970 as text, in UTC. Nothing for years that have not four digits.
pub(super) fn format(ms: i64) -> Option<String> {
    if !RANGE.contains(&ms) {
        return None;
    }
    let (year, month, day) = calendar_date(ms.div_euclid(DAY_MS));
    let ms = ms.rem_euclid(DAY_MS);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1_000))
}

/// Reads such a text, with any offset, and with any digits of the second; what is less than a millisecond is cut off.
pub(super) fn parse(text: &str) -> Option<i64> {
    let mut input = text.as_bytes();
    let year = digits(&mut input, 4)?;
    byte(&mut input, b"-")?;
    let month = digits(&mut input, 2)?;
    byte(&mut input, b"-")?;
    let day = digits(&mut input, 2)?;
    byte(&mut input, b"Tt ")?;
    let hours = digits(&mut input, 2)?;
    byte(&mut input, b":")?;
    let minutes = digits(&mut input, 2)?;
    byte(&mut input, b":")?;
    let seconds = digits(&mut input, 2)?;
    let fraction = fraction(&mut input)?;
    let offset = offset(&mut input)?;
    // A leap second reads as the one after it.
    let is_time = hours < 24 && minutes < 60 && seconds <= 60;
    let days = days(year, month, day);
    if !input.is_empty()
        || !is_time
        || !(1..=12).contains(&month)
        || calendar_date(days) != (year, month, day)
    {
        return None;
    }
    let minutes = hours * 60 + minutes - offset;
    Some(days * DAY_MS + minutes * 60_000 + seconds * 1_000 + fraction)
}

fn byte(input: &mut &[u8], any_of: &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    any_of.contains(first).then_some(*first)
}

fn digits(input: &mut &[u8], count: usize) -> Option<i64> {
    let (digits, rest) = input.split_at_checked(count)?;
    *input = rest;
    let digit = |number: i64, digit: &u8| {
        Some(number * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?))
    };
    digits.iter().try_fold(0, digit)
}

/// Milliseconds.
fn fraction(input: &mut &[u8]) -> Option<i64> {
    let Some(rest) = input.strip_prefix(b".") else {
        return Some(0);
    };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut digits_read, rest) = rest.split_at_checked(count)?;
    *input = rest;
    let kept = count.min(3);
    let ms = digits(&mut digits_read, kept)?;
    (count > 0).then(|| ms * 10i64.pow(3 - kept as u32))
}

/// Minutes that the clock is before UTC.
fn offset(input: &mut &[u8]) -> Option<i64> {
    let sign = match byte(input, b"Zz+-")? {
        b'+' => 1,
        b'-' => -1,
        _ => return Some(0),
    };
    let hours = digits(input, 2)?;
    byte(input, b":")?;
    let minutes = digits(input, 2)?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// Days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day so many days after 1970-01-01 in the calendar of ISO 8601; before it if the number is negative. At most 2^60 days.
pub fn calendar_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
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
            (*RANGE.start(), "0000-01-01T00:00:00.000Z"),
            (*RANGE.end(), "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format(ms).as_deref(), Some(text));
            assert_eq!(parse(text), Some(ms), "{text}");
        }
        assert_eq!(format(RANGE.end() + 1), None);
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
