//! Signatures as Standard Webhooks has them: HMAC-SHA256 over id, time and body, with dots between, in base64.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How secrets begin.
const PREFIX: &str = "whsec_";
/// Shorter ones could be guessed.
const SECRET_BYTES_MIN: usize = 24;
/// Longer ones are no better.
const SECRET_BYTES_MAX: usize = 64;

/// What only the server and a receiver know.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Reads `whsec_` and 24 to 64 bytes in base64.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "a secret is `{PREFIX}` and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64, such as `openssl rand -base64 32` makes"
            )
        };
        let bytes =
            text.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok()).ok_or_else(expected)?;
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(expected());
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|_| expected())
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mac = hmac(self.0.clone(), &[id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body]);
        format!("v1,{}", STANDARD.encode(mac))
    }
}

/// The code of a message in pieces.
fn hmac(mut mac: Hmac<Sha256>, message: &[&[u8]]) -> [u8; 32] {
    message.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().into()
}

/// Never into a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_macs_of_rfc_4231_come_out() {
        let cases: [(Vec<u8>, &[u8], &str); 3] = [
            (vec![0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, message, wanted) in cases {
            let (one, two) = message.split_at(4);
            let mac = Hmac::new_from_slice(&key).unwrap();
            assert_eq!(hex::encode(hmac(mac, &[one, two])), wanted);
        }
    }

    #[test]
    fn the_example_of_standard_webhooks_comes_out() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "whsec_", "whsec_!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ="] {
            assert!(Secret::parse(text).is_err(), "{text}");
        }
    }
}
