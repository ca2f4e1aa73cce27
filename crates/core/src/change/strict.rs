//! Columns, read in exactly the form in which Automerge writes them.
//!
//! A saved document holds no changes but operations: whoever loads it encodes the changes anew and compares hashes. A change in any other encoding than
//! Automerge's own, however readable, comes out of that with another hash, and the document cannot be loaded any more. So there is one right
//! encoding, and these readers take no other.

/// What is not as Automerge writes it.
pub(crate) type Flaw = &'static str;

const SHORT: Flaw = "data ends early";
const OVERLONG: Flaw = "a number is longer than it needs to be";
const REPEATED: Flaw = "runs of a column are not joined";

/// Takes an unsigned number.
pub(crate) fn uleb(input: &mut &[u8]) -> Result<u64, Flaw> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let byte = u8(input)?;
        let bits = u64::from(byte & 0x7f);
        if shift > 63 || (shift == 63 && bits > 1) {
            return Err("a number is too large");
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err(OVERLONG) } else { Ok(value) };
        }
        shift += 7;
    }
}

/// Takes a signed number.
pub(crate) fn sleb(input: &mut &[u8]) -> Result<i64, Flaw> {
    let (mut value, mut shift, mut before) = (0i64, 0, None);
    loop {
        let byte = u8(input)?;
        let is_last = byte & 0x80 == 0;
        // The tenth byte has room for the sign only.
        if shift == 63 && !(byte == 0 || byte == 0x7f) {
            return Err("a number is too large");
        }
        value |= i64::from(byte & 0x7f) << shift;
        if is_last {
            // A last byte that only repeats the sign of the one before is one too many.
            let repeats_sign =
                |before: u8| (byte == 0 && before & 0x40 == 0) || (byte == 0x7f && before & 0x40 != 0);
            if before.is_some_and(repeats_sign) {
                return Err(OVERLONG);
            }
            let is_negative = byte & 0x40 != 0;
            return Ok(if is_negative && shift < 57 { value | (-1 << (shift + 7)) } else { value });
        }
        (before, shift) = (Some(byte), shift + 7);
    }
}

fn u8(input: &mut &[u8]) -> Result<u8, Flaw> {
    let (first, rest) = input.split_first().ok_or(SHORT)?;
    *input = rest;
    Ok(*first)
}

/// Takes `len` bytes.
pub(crate) fn bytes<'a>(input: &mut &'a [u8], len: u64) -> Result<&'a [u8], Flaw> {
    let len = usize::try_from(len).map_err(|_| SHORT)?;
    let (taken, rest) = input.split_at_checked(len).ok_or(SHORT)?;
    *input = rest;
    Ok(taken)
}

/// Takes a length and that many bytes.
pub(crate) fn prefixed<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Flaw> {
    let len = uleb(input)?;
    bytes(input, len)
}

/// Takes a length and that many bytes of text.
pub(crate) fn text<'a>(input: &mut &'a [u8]) -> Result<&'a str, Flaw> {
    str::from_utf8(prefixed(input)?).map_err(|_| "text that is no UTF-8")
}

/// What a run-length encoded column holds.
pub(crate) trait Value<'a>: Copy + PartialEq {
    /// Takes one value.
    fn take(input: &mut &'a [u8]) -> Result<Self, Flaw>;
}

impl<'a> Value<'a> for u64 {
    fn take(input: &mut &'a [u8]) -> Result<Self, Flaw> {
        uleb(input)
    }
}

impl<'a> Value<'a> for i64 {
    fn take(input: &mut &'a [u8]) -> Result<Self, Flaw> {
        sleb(input)
    }
}

impl<'a> Value<'a> for &'a str {
    fn take(input: &mut &'a [u8]) -> Result<Self, Flaw> {
        text(input)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Run {
    /// Nothing was read yet.
    Start,
    Nulls,
    Repeat,
    Literal,
}

/// A column of runs: a length of two or more and a value; a negative length and that many values; or zero and a number of nulls. A column
/// without any value is left out, and reads as nulls without end.
pub(crate) struct Rle<'a, V> {
    input: &'a [u8],
    is_absent: bool,
    run: Run,
    left: u64,
    /// The value before, unless that is a null.
    last: Option<V>,
    has_value: bool,
}

impl<'a, V: Value<'a>> Rle<'a, V> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, is_absent: input.is_empty(), run: Run::Start, left: 0, last: None, has_value: false }
    }

    pub(crate) fn next(&mut self) -> Result<Option<V>, Flaw> {
        if self.is_absent {
            return Ok(None);
        }
        if self.left == 0 {
            self.start_run()?;
        }
        self.left -= 1;
        if self.run == Run::Literal {
            let value = V::take(&mut self.input)?;
            self.follow(value)?;
        }
        Ok(self.last)
    }

    /// A value that is there, in a column that may not have nulls.
    pub(crate) fn value(&mut self) -> Result<V, Flaw> {
        self.next()?.ok_or("a value is missing")
    }

    fn start_run(&mut self) -> Result<(), Flaw> {
        let (before, len) = (self.run, sleb(&mut self.input)?);
        self.left = len.unsigned_abs();
        match len {
            0 => {
                self.left = uleb(&mut self.input)?;
                if self.left == 0 || before == Run::Nulls {
                    return Err(REPEATED);
                }
                (self.run, self.last) = (Run::Nulls, None);
            }
            1 => return Err("a run of one"),
            2.. => {
                let value = V::take(&mut self.input)?;
                self.follow(value)?;
                self.run = Run::Repeat;
            }
            _ if before == Run::Literal => return Err(REPEATED),
            _ => self.run = Run::Literal,
        }
        Ok(())
    }

    /// Notes a value that must differ from the one before, or else it would have been counted there.
    fn follow(&mut self, value: V) -> Result<(), Flaw> {
        if self.last == Some(value) {
            return Err(REPEATED);
        }
        (self.last, self.has_value) = (Some(value), true);
        Ok(())
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(&self) -> Result<(), Flaw> {
        if self.is_absent {
            return Ok(());
        }
        if self.left > 0 || !self.input.is_empty() {
            return Err("a column is longer than the others");
        }
        if self.has_value { Ok(()) } else { Err("a column of nulls is not left out") }
    }
}

/// A run-length encoded column of differences.
pub(crate) struct Delta<'a> {
    differences: Rle<'a, i64>,
    value: i64,
}

impl<'a> Delta<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { differences: Rle::new(input), value: 0 }
    }

    pub(crate) fn next(&mut self) -> Result<Option<i64>, Flaw> {
        let Some(difference) = self.differences.next()? else { return Ok(None) };
        self.value = self.value.checked_add(difference).ok_or("a number is too large")?;
        Ok(Some(self.value))
    }

    pub(crate) fn finish(&self) -> Result<(), Flaw> {
        self.differences.finish()
    }
}

/// A column of booleans: lengths of runs, the first one of `false`. Left out, it reads as `false` without end.
pub(crate) struct Booleans<'a> {
    input: &'a [u8],
    is_absent: bool,
    is_first: bool,
    value: bool,
    left: u64,
}

impl<'a> Booleans<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, is_absent: input.is_empty(), is_first: true, value: true, left: 0 }
    }

    pub(crate) fn next(&mut self) -> Result<bool, Flaw> {
        if self.is_absent {
            return Ok(false);
        }
        while self.left == 0 {
            self.left = uleb(&mut self.input)?;
            self.value = !self.value;
            if self.left == 0 && !self.is_first {
                return Err(REPEATED);
            }
            self.is_first = false;
        }
        self.left -= 1;
        Ok(self.value)
    }

    pub(crate) fn finish(&self) -> Result<(), Flaw> {
        if self.is_absent || (self.left == 0 && self.input.is_empty()) {
            Ok(())
        } else {
            Err("a column is longer than the others")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_encoding() {
        for value in [0, 1, 63, 64, 127, 128, 8191, 8192, u64::from(u32::MAX), u64::MAX] {
            let mut written = Vec::new();
            crate::sync::message::write_leb128(&mut written, value);
            assert_eq!(uleb(&mut &written[..]), Ok(value));
            *written.last_mut().unwrap() |= 0x80;
            written.push(0);
            assert!(uleb(&mut &written[..]).is_err(), "{value} with a byte too many");
        }
        assert!(uleb(&mut &[0xff; 10][..]).is_err());
        for (written, value) in [
            (&[0x00][..], 0),
            (&[0x7f], -1),
            (&[0x3f], 63),
            (&[0x40], -64),
            (&[0xc0, 0x00], 64),
            (&[0xbf, 0x7f], -65),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f], i64::MIN),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00], i64::MAX),
        ] {
            assert_eq!(sleb(&mut &written[..]), Ok(value));
        }
        for overlong in [&[0x80, 0x00][..], &[0xff, 0x7f], &[0x83, 0x80, 0x00], &[0x80; 12]] {
            assert!(sleb(&mut &overlong[..]).is_err(), "{overlong:x?}");
        }
    }

    fn read(column: &[u8], len: usize) -> Result<Vec<Option<u64>>, Flaw> {
        let mut rle = Rle::new(column);
        let values = (0..len).map(|_| rle.next()).collect::<Result<_, _>>()?;
        rle.finish().map(|()| values)
    }

    #[test]
    fn columns_have_one_encoding() {
        assert_eq!(read(&[], 2), Ok(vec![None, None]));
        assert_eq!(read(&[0x7e, 1, 2, 2, 3, 0, 1], 5), Ok(vec![Some(1), Some(2), Some(3), Some(3), None]));
        let flawed: [(&[u8], usize, &str); 9] = [
            (&[1, 5], 1, "a run of one"),
            (&[2, 5, 2, 5], 4, "two runs of the same"),
            (&[0x7f, 5, 0x7f, 6], 2, "two literal runs"),
            (&[0x7e, 5, 5], 2, "equal literals"),
            (&[0x7f, 5, 2, 5], 3, "a run that goes on with the literal before"),
            (&[0, 2], 2, "nothing but nulls"),
            (&[0, 1, 0, 1, 0x7f, 5], 3, "two runs of nulls"),
            (&[2, 5], 1, "longer than asked for"),
            (&[2, 5], 3, "shorter than asked for"),
        ];
        for (column, len, what) in flawed {
            assert!(read(column, len).is_err(), "{what}");
        }
    }

    #[test]
    fn booleans_have_one_encoding() {
        let read = |column: &[u8], len| {
            let mut booleans = Booleans::new(column);
            let values = (0..len).map(|_| booleans.next()).collect::<Result<Vec<_>, _>>()?;
            booleans.finish().map(|()| values)
        };
        assert_eq!(read(&[], 1), Ok(vec![false]));
        assert_eq!(read(&[0, 1, 2], 3), Ok(vec![true, false, false]));
        assert!(read(&[1, 0, 1], 2).is_err(), "an empty run");
        assert!(read(&[2], 1).is_err(), "longer than asked for");
        assert!(read(&[2], 3).is_err(), "shorter than asked for");
    }
}
