//! Tokens made without the product: HS256 over any claims, right ones and forged ones.
//!
//! Source: contract, wire contract section 6; RFC 7519, RFC 7515.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

/// Signs `claims` with `secret`; the header is the one that every minted token has.
#[must_use]
pub fn mint(secret: &str, claims: &Value) -> String {
    mint_with(secret, &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

/// Signs with HS256 whatever the header says: for forging.
#[must_use]
pub fn mint_with(secret: &str, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let tag = URL_SAFE_NO_PAD.encode(hmac(secret, &signed));
    format!("{signed}.{tag}")
}

/// A token of algorithm `none`: no signature at all.
#[must_use]
pub fn unsigned(claims: &Value) -> String {
    format!(
        "{}.{}.",
        encode(&json!({"alg": "none", "typ": "JWT"})),
        encode(claims)
    )
}

/// The claims of a token, after checking its signature.
///
/// # Panics
/// When it is malformed or signed with another secret.
#[must_use]
#[track_caller]
pub fn claims(secret: &str, token: &str) -> Value {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "a token has three parts: {token}");
    let signed = format!("{}.{}", parts[0], parts[1]);
    let tag = URL_SAFE_NO_PAD.encode(hmac(secret, &signed));
    assert_eq!(tag, parts[2], "signature of {token}");
    assert_eq!(
        decode(parts[0]),
        json!({"alg": "HS256", "typ": "JWT"}),
        "token header"
    );
    decode(parts[1])
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |t| t.as_secs())
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decode(part: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .expect("base64url without padding");
    serde_json::from_slice(&bytes).expect("JSON inside a token")
}

fn hmac(secret: &str, signed: &str) -> Vec<u8> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes any key length");
    mac.update(signed.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
