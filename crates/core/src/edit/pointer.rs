//! JSON Pointers (RFC 6901).

use std::fmt;

use crate::limits::JSON_DEPTH_MAX;

/// The keys and places down to a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pointer(pub(super) Vec<String>);

impl Pointer {
    /// Reads a pointer, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = text.split('/');
        if tokens.next() != Some("") {
            return Err("a pointer is empty or begins with a slash".to_owned());
        }
        let tokens: Vec<String> = tokens.map(unescape).collect::<Result<_, _>>()?;
        if tokens.len() > JSON_DEPTH_MAX {
            return Err(format!("a pointer has at most {JSON_DEPTH_MAX} parts"));
        }
        Ok(Self(tokens))
    }

    /// The pointer to what holds the value, and the last key or place. Nothing for the whole document.
    pub(super) fn split(&self) -> Option<(&[String], &str)> {
        self.0.split_last().map(|(last, parents)| (parents, last.as_str()))
    }

    /// Whether the other pointer leads to something inside.
    pub(super) fn holds(&self, other: &Self) -> bool {
        other.0.len() > self.0.len() && other.0.starts_with(&self.0)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|token| write!(f, "/{}", escape(token)))
    }
}

/// A key as part of a pointer.
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescape(token: &str) -> Result<String, String> {
    let mut parts = token.split('~');
    let mut key = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.as_bytes().first() {
            Some(b'0') => key.push('~'),
            Some(b'1') => key.push('/'),
            _ => return Err("in a pointer, ~ is followed by 0 or 1".to_owned()),
        }
        key.push_str(&part[1..]);
    }
    Ok(key)
}

/// The place that a part of a pointer names in a list: digits without a zero before them.
pub(super) fn place(token: &str) -> Option<usize> {
    let is_place = token == "0" || token.starts_with(|c: char| ('1'..='9').contains(&c));
    token.parse().ok().filter(|_| is_place && token.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_read_and_written() {
        for (text, tokens) in [
            ("", vec![]),
            ("/", vec![""]),
            ("/a~1b", vec!["a/b"]),
            ("/m~0n", vec!["m~n"]),
            ("/~01", vec!["~1"]),
            ("/ /k\"l/ä", vec![" ", "k\"l", "ä"]),
            ("/a//0", vec!["a", "", "0"]),
        ] {
            let pointer = Pointer::parse(text).unwrap();
            assert_eq!(pointer.0, tokens, "{text}");
            assert_eq!(pointer.to_string(), text);
        }
        assert!(Pointer::parse("a").is_err());
        assert!(Pointer::parse("/~").is_err());
        assert!(Pointer::parse("/~2").is_err());
        assert!(Pointer::parse("/~ä").is_err());
        assert!(Pointer::parse(&"/a".repeat(JSON_DEPTH_MAX)).is_ok());
        assert!(Pointer::parse(&"/a".repeat(JSON_DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn places_have_one_way_to_be_written() {
        assert_eq!((place("0"), place("10")), (Some(0), Some(10)));
        for token in ["", "-", "-1", "+1", "01", "1e0", "1.0", " 1", "99999999999999999999"] {
            assert_eq!(place(token), None, "{token}");
        }
    }
}
