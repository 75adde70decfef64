//! Keeps secrets out of every record, whoever wrote it: the last line of defence.
//!
//! Laws
//! - Configured secrets, values of `token=` in a query, and signed tokens (`eyJ….….…`) are
//!   replaced, in messages and in fields.
//! - A record without any of these costs a search, and no memory.

use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use super::record::Record;

const MASK: &str = "***";
/// Shorter texts occur by chance: masking them would make logs unreadable and tell the secret.
const SECRET_BYTES_MIN: usize = 6;
/// A signed token has more.
const TOKEN_BYTES_MIN: usize = 20;

/// What is hidden.
#[derive(Debug, Default)]
pub(super) struct Scrub(RwLock<Vec<String>>);

impl Scrub {
    pub(super) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let scrub = Self::default();
        for secret in secrets {
            scrub.hide(&secret);
        }
        scrub
    }

    /// Hides this text from now on.
    pub(super) fn hide(&self, secret: &str) {
        if SECRET_BYTES_MIN <= secret.len() {
            let mut secrets = self.0.write().unwrap_or_else(PoisonError::into_inner);
            secrets.push(secret.to_owned());
        }
    }

    /// Takes the secrets out of a record.
    pub(super) fn clean(&self, record: &mut Record) {
        let secrets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let texts = record
            .fields
            .iter_mut()
            .filter_map(|(_, value)| match value {
                Value::String(text) => Some(text),
                _ => None,
            });
        for text in texts.chain([&mut record.message]) {
            text_of(text, &secrets);
        }
    }
}

fn text_of(text: &mut String, secrets: &[String]) {
    for secret in secrets {
        if text.contains(secret.as_str()) {
            *text = text.replace(secret.as_str(), MASK);
        }
    }
    hide_runs(text, "token=", 0);
    hide_runs(text, "token%3D", 0);
    hide_runs(text, "eyJ", TOKEN_BYTES_MIN);
}

/// Replaces what follows `begin`, as far as a token goes. With a least length, `begin` is part of
/// the token itself.
fn hide_runs(text: &mut String, begin: &str, bytes_min: usize) {
    let mut from = 0;
    while let Some(found) = text[from..].find(begin) {
        let at = from + found;
        let after = at + begin.len();
        let run = text[after..]
            .find(|c: char| !c.is_ascii_alphanumeric() && !"-_.~%+/".contains(c))
            .map_or(text.len(), |len| after + len);
        let start = if bytes_min == 0 { after } else { at };
        if run - start < bytes_min.max(1) {
            from = after;
            continue;
        }
        text.replace_range(start..run, MASK);
        from = start + MASK.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_tokens_are_hidden() {
        let secrets = ["open-sesame".to_owned()];
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJvcCI6ImRvd25sb2FkIn0.c2lnbmF0dXJl";
        for (text, want) in [
            ("nothing to hide", "nothing to hide".to_owned()),
            (
                "say open-sesame twice: open-sesame",
                "say *** twice: ***".to_owned(),
            ),
            (
                &format!("GET /upload?token={jwt}&dst_dir=a"),
                "GET /upload?token=***&dst_dir=a".into(),
            ),
            ("?token=abc def token=", "?token=*** def token=".to_owned()),
            (&format!("bad token {jwt}!"), "bad token ***!".to_owned()),
            ("eyJ is how they begin", "eyJ is how they begin".to_owned()),
            ("täglich token=ü", "täglich token=ü".to_owned()),
        ] {
            let mut text = text.to_owned();
            text_of(&mut text, &secrets);
            assert_eq!(text, want);
        }
    }

    #[test]
    fn short_secrets_are_no_secrets() {
        let scrub = Scrub::new(["x".to_owned()]);
        assert!(scrub.0.read().is_ok_and(|secrets| secrets.is_empty()));
    }
}
