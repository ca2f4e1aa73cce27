//! What the server's close codes ask of the client.

use super::Millis;
use crate::limits::RETRY_HINT_MAX;

/// The token is missing, expired or not known.
pub(crate) const TOKEN_EXPIRED: u16 = 4401;
/// The token is good, but not for this.
pub(crate) const FORBIDDEN: u16 = 4403;
/// The connection ended without a close frame.
pub(crate) const ABNORMAL: u16 = 1006;

/// What to do after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterClose {
    /// Come back: after so many milliseconds, or after a growing pause.
    Retry(Option<Millis>),
    /// Come back with a new token.
    RefreshToken,
    /// Coming back is useless. What people can do about it.
    Stop(&'static str),
}

/// What to do after a close with this code and reason.
pub(crate) fn after_close(code: u16, reason: &str) -> AfterClose {
    if let Some(advice) = advice(code) {
        return AfterClose::Stop(advice);
    }
    match code {
        TOKEN_EXPIRED => AfterClose::RefreshToken,
        1012 => AfterClose::Retry(retry_hint(reason)),
        _ => AfterClose::Retry(None),
    }
}

fn advice(code: u16) -> Option<&'static str> {
    Some(match code {
        1002 => "the server could not read the connection; is something between the two that changes it?",
        1003 => "the server takes no text frames here; are client and server of the same version?",
        1009 => "a message was too large for the server; send less at once",
        4400 => "the server could not read a message; are client and server of the same version?",
        FORBIDDEN => "this token may not do that; get one that may",
        4409 => "another client uses the same peer id",
        4413 => "too many documents are open; open fewer",
        4422 => "the server refused what was sent; see its log, and do not send that again",
        _ => return None,
    })
}

/// The number in "retry in 200 ms". A typing error in it must not silence a client for a day.
fn retry_hint(reason: &str) -> Option<Millis> {
    let (_, rest) = reason.split_once("retry in ")?;
    let (number, _) = rest.split_once(" ms")?;
    let hint: Millis = number.parse().ok()?;
    Some(hint.min(RETRY_HINT_MAX.as_millis() as Millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_hint_after_a_restart_counts_up_to_a_limit() {
        assert_eq!(after_close(1012, "restarting; retry in 200 ms"), AfterClose::Retry(Some(200)));
        assert_eq!(after_close(1012, "retry in 999999999 ms"), AfterClose::Retry(Some(300_000)));
        for odd in ["", "retry in x ms", "retry in 5", "retry in -1 ms"] {
            assert_eq!(after_close(1012, odd), AfterClose::Retry(None), "{odd}");
        }
        assert_eq!(after_close(1013, "retry in 200 ms"), AfterClose::Retry(None));
    }

    #[test]
    fn final_codes_are_those_of_the_protocol_page() {
        for code in [1002, 1003, 1009, 4400, 4403, 4409, 4413, 4422] {
            assert!(matches!(after_close(code, ""), AfterClose::Stop(_)), "{code}");
        }
        for code in [1000, 1001, 1006, 1011, 1012, 1013, 4408, 4429] {
            assert!(matches!(after_close(code, ""), AfterClose::Retry(_)), "{code}");
        }
        assert_eq!(after_close(4401, ""), AfterClose::RefreshToken);
    }
}
