//! Signatures by keypair, as the SDK makes them and the Manager checks them.
//!
//! The body is not part of it: its place holds the hash of nothing.

use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proxy_core::token::Secret;
use reqwest::Url;
use sha2::{Digest as _, Sha256};

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a Url,
    /// As it stands in the header `Date`.
    pub(super) date: &'a str,
    pub(super) content_type: &'a str,
    pub(super) version: &'a str,
}

impl Signed<'_> {
    /// The value of `Authorization`.
    pub(super) fn authorization(&self, access_key: &str, secret_key: &Secret) -> String {
        let host = match (self.url.host_str(), self.url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let target = match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        };
        let text = format!(
            "{}\n{target}\n{}\nhost:{host}\ncontent-type:{}\nx-backendai-version:{}\n{}",
            self.method.to_uppercase(),
            self.date,
            self.content_type.to_lowercase(),
            self.version,
            hex(&Sha256::digest(b"")),
        );
        // The day is the first ten characters, without its dashes.
        let day: String = self.date.chars().take(10).filter(|c| *c != '-').collect();
        let signature = signature(secret_key.as_bytes(), &day, &host, &text);
        format!("BackendAI signMethod=HMAC-SHA256, credential={access_key}:{signature}")
    }
}

/// The signature of a text: the key is bound to the day, then to the host.
pub fn signature(secret_key: &[u8], day: &str, host: &str, text: &str) -> String {
    let key = mac(&mac(secret_key, day.as_bytes()), host.as_bytes());
    hex(&mac(&key, text.as_bytes()))
}

/// The time as the SDK writes it, in whole seconds.
pub(super) fn date(now: SystemTime) -> String {
    let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
    let now = now.to_zoned(TimeZone::UTC);
    now.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from `generate_signature` of `ai.backend.client` 26.9.6.
    #[test]
    fn signatures_are_those_of_the_sdk() {
        for (method, url, keys, want) in [
            (
                "POST",
                "http://127.0.0.1:8091/admin/gql",
                (
                    "AKIAIOSFODNN7EXAMPLE",
                    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                ),
                "ecfac70e0f3292578b9b565468215d6a244c8997378ee8946942cdd8c8f9ebfc",
            ),
            (
                "GET",
                "https://manager.example.com/folders/_/shared?vfolder_id=0123",
                ("AK", "s"),
                "909c88630186f88ad2f93e441dfb9cd9a5f11ebd8dba3b0d4d0dc60bc0553b29",
            ),
        ] {
            let signed = Signed {
                method,
                url: &Url::parse(url).unwrap(),
                date: "2026-11-24T13:55:01+00:00",
                content_type: "application/json",
                version: "v8.20240915",
            };
            let (access, secret) = keys;
            let credential = format!("credential={access}:{want}");
            let made = signed.authorization(access, &Secret::new(secret));
            assert_eq!(
                made,
                format!("BackendAI signMethod=HMAC-SHA256, {credential}")
            );
        }
    }

    #[test]
    fn dates_are_written_as_the_sdk_does() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_795_528_501_250);
        assert_eq!(date(at), "2026-11-24T13:55:01+00:00");
    }
}
