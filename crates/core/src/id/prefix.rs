//! From the beginning of a text to the ids whose texts begin so.
//!
//! A text is the number that id and checksum make, 160 bits, in base 58, with a `1` for each leading zero byte. Texts of one length that begin in one way are the numbers of one range;
//! and the ids are the upper 128 bits of these.

use std::ops::RangeInclusive;

use super::DocumentId;

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Digits of the largest number.
const DIGITS_MAX: usize = 28;
/// Bytes of an id and its checksum.
const BYTES: usize = 20;

/// See [`DocumentId::with_prefix`].
pub(super) fn ranges(prefix: &str) -> Vec<RangeInclusive<DocumentId>> {
    let zeros = prefix.bytes().take_while(|byte| *byte == ALPHABET[0]).count();
    let digits: Option<Vec<u32>> = prefix.bytes().skip(zeros).map(digit).collect();
    match digits {
        None => Vec::new(),
        Some(digits) if digits.is_empty() => at_least(zeros).into_iter().collect(),
        Some(digits) if zeros < BYTES => exactly(zeros, &digits, prefix),
        Some(_) => Vec::new(),
    }
}

fn digit(byte: u8) -> Option<u32> {
    ALPHABET.iter().position(|of| *of == byte).map(|place| place as u32)
}

/// All ids with so many leading zero bytes, or more.
fn at_least(zeros: usize) -> Option<RangeInclusive<DocumentId>> {
    match zeros {
        0..16 => Some(DocumentId([0; 16])..=DocumentId((u128::MAX >> (8 * zeros)).to_be_bytes())),
        // The checksum of this one begins with no zero byte.
        16 => Some(DocumentId([0; 16])..=DocumentId([0; 16])),
        _ => None,
    }
}

/// Those with so many leading zero bytes, and then these digits.
fn exactly(zeros: usize, digits: &[u32], prefix: &str) -> Vec<RangeInclusive<DocumentId>> {
    let lowest = Number::power_of_256(BYTES - 1 - zeros);
    let highest = Number::power_of_256(BYTES - zeros).minus_one();
    let lengths = digits.len()..=DIGITS_MAX;
    let all = lengths.filter_map(|length| {
        let rest = length - digits.len();
        let first = Number::of(digits.iter().copied().chain(std::iter::repeat_n(0, rest)));
        let last = Number::of(digits.iter().copied().chain(std::iter::repeat_n(57, rest)));
        let (first, last) = (first.max(lowest), last.min(highest));
        if first > last { None } else { inner(first.id(), last.id(), prefix) }
    });
    let mut ranges: Vec<RangeInclusive<DocumentId>> = Vec::new();
    for range in all {
        // Where two lengths meet, both may end at one id.
        let is_seen = ranges.last().is_some_and(|last| last.end() >= range.start());
        let start = if is_seen { range.start().next() } else { Some(*range.start()) };
        ranges.extend(start.filter(|start| start <= range.end()).map(|start| start..=*range.end()));
    }
    ranges
}

/// At its ends a range may have an id with another checksum than it would take.
fn inner(first: DocumentId, last: DocumentId, prefix: &str) -> Option<RangeInclusive<DocumentId>> {
    let fits = |id: &DocumentId| id.to_string().starts_with(prefix);
    let first = if fits(&first) { first } else { first.next()? };
    let last = if fits(&last) { last } else { last.previous()? };
    (first <= last).then_some(first..=last)
}

/// A number of 192 bits, the most significant part first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Number([u32; 6]);

impl Number {
    /// The number with these digits, at most [`DIGITS_MAX`] of them.
    fn of(digits: impl Iterator<Item = u32>) -> Self {
        let mut number = Self([0; 6]);
        for digit in digits {
            let mut carry = u64::from(digit);
            for part in number.0.iter_mut().rev() {
                let product = u64::from(*part) * 58 + carry;
                *part = product as u32;
                carry = product >> 32;
            }
        }
        number
    }

    fn power_of_256(exponent: usize) -> Self {
        let mut number = Self([0; 6]);
        number.0[5 - exponent / 4] = 1 << (8 * (exponent % 4));
        number
    }

    fn minus_one(mut self) -> Self {
        for part in self.0.iter_mut().rev() {
            let (less, borrows) = part.overflowing_sub(1);
            *part = less;
            if !borrows {
                break;
            }
        }
        self
    }

    /// The id, if this is an id with its checksum.
    fn id(self) -> DocumentId {
        let mut bytes = [0; 16];
        for (bytes, part) in bytes.chunks_mut(4).zip(&self.0[1..5]) {
            bytes.copy_from_slice(&part.to_be_bytes());
        }
        DocumentId(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids() -> impl Strategy<Value = DocumentId> {
        // Leading zeros, and ids that lie close to each other.
        (any::<[u8; 16]>(), 0usize..17).prop_map(|(mut bytes, zeros)| {
            bytes[..zeros].fill(0);
            DocumentId::from_bytes(bytes)
        })
    }

    fn is_in(ranges: &[RangeInclusive<DocumentId>], id: &DocumentId) -> bool {
        ranges.iter().any(|range| range.contains(id))
    }

    proptest! {
        #[test]
        fn what_the_ranges_hold_is_what_filtering_finds(id in ids(), other in ids(), length in 0usize..30) {
            let text = id.to_string();
            let prefix = &text[..length.min(text.len())];
            let ranges = DocumentId::with_prefix(prefix);
            prop_assert!(is_in(&ranges, &id), "{prefix} of {text}");
            prop_assert_eq!(is_in(&ranges, &other), other.to_string().starts_with(prefix));
            prop_assert!(ranges.is_sorted_by(|a, b| a.end() < b.start()));
            // At the ends, where an id more or less would be.
            for range in &ranges {
                prop_assert!(range.start().to_string().starts_with(prefix));
                prop_assert!(range.end().to_string().starts_with(prefix));
                let outside = [range.start().previous(), range.end().next()];
                for id in outside.into_iter().flatten() {
                    prop_assert_eq!(is_in(&ranges, &id), id.to_string().starts_with(prefix), "{}", id);
                }
            }
        }

        #[test]
        fn any_text_will_do(prefix in "\\PC{0,40}", id in ids()) {
            let ranges = DocumentId::with_prefix(&prefix);
            prop_assert_eq!(is_in(&ranges, &id), id.to_string().starts_with(&prefix));
        }
    }

    #[test]
    fn no_prefix_is_all_and_a_url_counts_without_its_scheme() {
        let all = DocumentId([0; 16])..=DocumentId([255; 16]);
        assert_eq!(DocumentId::with_prefix(""), [all]);
        assert_eq!(DocumentId::with_prefix("automerge:4Nd"), DocumentId::with_prefix("4Nd"));
        assert_eq!(DocumentId::with_prefix("0"), []);
        assert_eq!(DocumentId::with_prefix(&"1".repeat(17)), []);
    }
}
