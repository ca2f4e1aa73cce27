//! What the server lets a client in with.

use std::fmt::{self, Write};
use std::sync::Arc;

use futures::future::BoxFuture;

/// Says whether a token that is cached will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRequest {
    /// The server refused the last one.
    pub expired: bool,
}

/// Why a function did not get a token.
pub(crate) type TokenError = Box<dyn std::error::Error + Send + Sync>;

type Ask = dyn Fn(TokenRequest) -> BoxFuture<'static, Result<String, TokenError>> + Send + Sync;

/// A token, or a function that gets one.
#[derive(Clone, Default)]
pub(crate) enum Token {
    #[default]
    None,
    Fixed(String),
    Ask(Arc<Ask>),
}

impl Token {
    pub(crate) fn can_be_refreshed(&self) -> bool {
        matches!(self, Self::Ask(_))
    }

    /// The url with the token as a query parameter, which is where all clients of Highwater put it.
    pub(crate) async fn url(&self, url: &str, request: TokenRequest) -> Result<String, TokenError> {
        Ok(match self {
            Self::None => url.to_owned(),
            Self::Fixed(token) => with_token(url, token),
            Self::Ask(ask) => with_token(url, &ask(request).await?),
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed(..)",
            Self::Ask(_) => "Ask(..)",
        })
    }
}

fn with_token(url: &str, token: &str) -> String {
    let mut result = url.to_owned();
    result.push(if url.contains('?') { '&' } else { '?' });
    result.push_str("token=");
    for byte in token.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            result.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(result, "%{byte:02X}");
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_put_into_the_url_without_harm_to_what_is_there() {
        let request = TokenRequest { expired: false };
        let token = Token::Fixed("a b&c=d/é".to_owned());
        assert_eq!(token.url("ws://h/x", request).await.unwrap(), "ws://h/x?token=a%20b%26c%3Dd%2F%C3%A9");
        assert_eq!(
            token.url("ws://h/?k=1", request).await.unwrap(),
            "ws://h/?k=1&token=a%20b%26c%3Dd%2F%C3%A9"
        );
        assert_eq!(Token::None.url("ws://h/", request).await.unwrap(), "ws://h/");
        assert!(!format!("{token:?}").contains("a b"), "it is not for logs");
    }
}
