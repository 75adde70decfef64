//! Compact JSON web signatures with HS256, and the registered claims about time and audience.
//!
//! Laws
//! - Only HS256: whatever else a header asks for is refused before the signature is computed.
//! - Times come from the caller; there is no leeway, as in the original.
//!
//! Source: RFC 7515 §5.2, RFC 7519 §4.1; wording of the original's token library.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Secret, TokenError};

/// Writes no padding, reads with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, CONFIG);
const CONFIG: GeneralPurposeConfig =
    NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// [`HEADER`] as every token of ours and of the original begins.
const HEADER_ENCODED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// HMAC-SHA256 under one key, before the first byte of a message.
#[derive(Clone)]
pub(super) struct Keyed(Hmac<Sha256>);

impl Keyed {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length"))
    }
}

/// Longer than any token a client can put into a request head.
const TOKEN_BYTES_MAX: usize = 256 * 1024;

/// Signs `claims`, in the order they have.
pub(super) fn sign(claims: &Value, secret: &Secret) -> String {
    let payload = ascii_json(claims);
    let mut token = BASE64.encode(HEADER);
    token.push('.');
    BASE64.encode_string(payload, &mut token);
    let signature = mac(secret, token.as_bytes()).finalize().into_bytes();
    token.push('.');
    BASE64.encode_string(signature, &mut token);
    token
}

/// Returns the claims of a genuine payload that is valid at `now_unix_s`.
pub(super) fn claims(payload: &[u8], now_unix_s: u64) -> Result<Value, TokenError> {
    let claims = object(payload, "payload")?;
    check_registered(&claims, now_unix_s)?;
    Ok(claims)
}

/// Returns the payload of a genuine token; nobody has looked into it yet.
pub(super) fn genuine(secret: &Secret, token: &str) -> Result<Vec<u8>, TokenError> {
    let malformed = |text: &str| TokenError::Malformed(text.to_owned());
    if token.len() > TOKEN_BYTES_MAX {
        return Err(malformed("Token is too long"));
    }
    let (signed, signature) = token
        .rsplit_once('.')
        .ok_or_else(|| malformed("Not enough segments"))?;
    let (header, payload) = signed
        .split_once('.')
        .ok_or_else(|| malformed("Not enough segments"))?;
    let is_usual = header == HEADER_ENCODED;
    let header = match is_usual {
        true => Vec::new(),
        false => decode(header, "Invalid header padding")?,
    };
    let payload = decode(payload, "Invalid payload padding")?;
    let signature = decode(signature, "Invalid crypto padding")?;
    if !is_usual {
        check_header(&object(&header, "header")?)?;
    }
    mac(secret, signed.as_bytes())
        .verify_slice(&signature)
        .map_err(|_| TokenError::BadSignature)?;
    Ok(payload)
}

/// A digest, so that texts of different lengths can be compared in constant time.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn check_header(header: &Value) -> Result<(), TokenError> {
    if header["alg"] != "HS256" {
        return Err(TokenError::WrongAlgorithm);
    }
    // Critical extensions must be understood, and none is; `b64` would change what is signed.
    if header.get("crit").is_some() || header.get("b64").is_some_and(|value| value != true) {
        return Err(TokenError::Malformed(
            "Unsupported critical extension".to_owned(),
        ));
    }
    Ok(())
}

fn check_registered(claims: &Value, now_unix_s: u64) -> Result<(), TokenError> {
    if claims.get("exp").is_none() {
        return Err(TokenError::MissingExpiry);
    }
    for (claim, name) in [("iat", "Issued At"), ("nbf", "Not Before")] {
        if time(claims, claim, name)?.is_some_and(|from| from > i128::from(now_unix_s)) {
            return Err(TokenError::NotYetValid);
        }
    }
    let exp = time(claims, "exp", "Expiration Time")?;
    if exp.is_some_and(|until| until <= i128::from(now_unix_s)) {
        return Err(TokenError::Expired);
    }
    match claims.get("aud") {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(TokenError::Audience),
    }
}

fn time(claims: &Value, claim: &str, name: &str) -> Result<Option<i128>, TokenError> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    let whole = value
        .as_i64()
        .map(i128::from)
        .or(value.as_u64().map(i128::from));
    let text = || format!("{name} claim ({claim}) must be an integer.");
    whole.map(Some).ok_or_else(|| TokenError::Malformed(text()))
}

fn decode(segment: &str, text: &str) -> Result<Vec<u8>, TokenError> {
    BASE64
        .decode(segment)
        .map_err(|_| TokenError::Malformed(text.to_owned()))
}

fn object(bytes: &[u8], part: &str) -> Result<Value, TokenError> {
    match serde_json::from_slice(bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(TokenError::Malformed(format!(
            "Invalid {part} string: must be a json object"
        ))),
        Err(_) => Err(TokenError::Malformed(format!(
            "Invalid {part} string: not JSON"
        ))),
    }
}

fn mac(secret: &Secret, bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = secret.keyed.0.clone();
    mac.update(bytes);
    mac
}

/// Compact JSON in which everything beyond printable ASCII is an escape, as the original writes.
fn ascii_json(value: &Value) -> String {
    let compact = value.to_string();
    let mut text = String::with_capacity(compact.len());
    let mut units = [0; 2];
    for c in compact.chars() {
        if matches!(c, ' '..='~') {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_header_is_what_it_stands_for() {
        assert_eq!(BASE64.encode(HEADER), HEADER_ENCODED);
    }

    #[test]
    fn json_is_ascii_with_escapes_of_utf16_units() {
        let value = serde_json::json!({"a": "한\u{7f}\n\"😀é"});
        assert_eq!(
            ascii_json(&value),
            r#"{"a":"\ud55c\u007f\n\"\ud83d\ude00\u00e9"}"#
        );
    }
}
