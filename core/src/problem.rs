//! The one error vocabulary, and the only place where errors become bytes for the wire.
//!
//! Laws
//! - An error knows who caused it and what the caller should do; status, `type`, `title` and
//!   `error_code` follow from its class and are never chosen at the place where it happens.
//! - Envelopes keep key order, content type and compactness of the original.
//! - No text here quotes a token, a secret or a path outside a vfolder.
//!
//! Source: contract 2.2 (envelopes E1 to E6), 5.

mod table;

use std::fmt;

use serde_json::{Map, Value, json};

pub use table::Kind;

/// What every `type` begins with.
pub const TYPE_BASE: &str = "https://api.backend.ai/probs/";

/// Metric code of every failure that has no class of its own.
pub const GENERIC_CODE: &str = "backendai_generic_internal-error";

const PROBLEM: &str = "application/problem+json; charset=utf-8";
const PROBLEM_BARE: &str = "application/problem+json";
const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Who caused an error, and so who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The request cannot work.
    Client,
    /// The installation: configuration, space, permissions.
    Operator,
    /// A storage system, a vendor's API, a tool.
    Backend,
    /// A defect or a limit of this program.
    Us,
}

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Send something else.
    FixRequest,
    /// Send the same again, later.
    RetryLater,
    /// Nothing helps.
    GiveUp,
}

/// One error: a class, and what is known about this case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The class.
    pub kind: Kind,
    /// Free text for a person. No client parses it.
    pub msg: Option<String>,
    /// Anything else, for a person as well.
    pub data: Option<Value>,
}

impl Problem {
    /// A bare error of a class.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            msg: None,
            data: None,
        }
    }

    /// Adds the text for a person.
    #[must_use]
    pub fn msg(mut self, msg: impl Into<String>) -> Self {
        self.msg = Some(msg.into());
        self
    }

    /// Adds data for a person.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// The typed envelope, E1.
    pub fn answer(&self) -> Answer {
        let mut body = Map::new();
        body.insert("type".to_owned(), type_url(self.kind.type_suffix()));
        body.insert("title".to_owned(), self.kind.title().into());
        if let Some(code) = self.kind.error_code() {
            body.insert("error_code".to_owned(), code.into());
        }
        if let Some(msg) = &self.msg {
            body.insert("msg".to_owned(), msg.as_str().into());
        }
        if let Some(data) = &self.data {
            body.insert("data".to_owned(), data.clone());
        }
        let code = self.kind.error_code();
        Answer {
            code,
            ..Answer::json(self.kind.status(), PROBLEM, &Value::Object(body))
        }
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Problem {
    /// `class: text`, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if let Some(msg) = &self.msg {
            write!(f, ": {msg}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// An error as it leaves: everything but the headers that depend on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`; absent when there is no body.
    pub content_type: Option<&'static str>,
    /// The whole body.
    pub body: Vec<u8>,
    /// `error_code` for metrics, also where the wire shows none. `None`: counted as no error.
    pub code: Option<&'static str>,
}

impl Answer {
    fn json(status: u16, content_type: &'static str, body: &Value) -> Self {
        let (content_type, code) = (Some(content_type), Some(GENERIC_CODE));
        Self {
            status,
            content_type,
            body: body.to_string().into_bytes(),
            code,
        }
    }

    /// The three metric labels `domain`, `operation`, `error_detail`; empty without an error.
    pub fn labels(&self) -> [&'static str; 3] {
        let mut parts = self.code.unwrap_or("").splitn(3, '_');
        [(); 3].map(|()| parts.next().unwrap_or(""))
    }
}

/// Parameters that failed their checks, E2.
pub fn invalid_parameters(data: Value) -> Answer {
    let body = json!({
        "type": type_url("storage/invalid-api-params"),
        "title": "Invalid API parameters",
        "data": data,
    });
    Answer::json(400, PROBLEM, &body)
}

/// A body where none is taken, E3.
pub fn malformed_request() -> Answer {
    let title = "Malformed request (request body should be empty)";
    small_problem(400, "storage/malformed-request", title)
}

/// An operation that the volume's backend does not have, E3.
pub fn unsupported_operation() -> Answer {
    let title = "Unsupported operation by the storage backend";
    small_problem(400, "storage/unsupported-operation", title)
}

/// No manager token (`missing`), or a wrong one, E3.
pub fn forbidden(missing: bool) -> Answer {
    let title = match missing {
        true => "Forbidden (missing auth token)",
        false => "Forbidden (invalid auth token)",
    };
    small_problem(403, "storage/forbidden", title)
}

/// A download of something that is not there, E4: no charset, `title` first.
pub fn download_not_found() -> Answer {
    let body = json!({"title": "File not found", "type": type_url("storage/file-not-found")});
    Answer::json(404, PROBLEM_BARE, &body)
}

/// Any JSON, E5.
pub fn plain(status: u16, body: &Value) -> Answer {
    let code = (status >= 400).then_some(GENERIC_CODE);
    Answer {
        code,
        ..Answer::json(status, JSON, body)
    }
}

/// Plain text, E6.
pub fn text(status: u16, text: &str) -> Answer {
    let code = (status >= 400).then_some(GENERIC_CODE);
    Answer {
        status,
        content_type: Some(TEXT),
        body: text.as_bytes().to_vec(),
        code,
    }
}

/// Whether an error number of a file system says that the storage behind it went away, and may
/// come back: a server that forgot its handles (`ESTALE`), a connection or a FUSE process that
/// ended, a client that its cluster shut out. The same again, later, may succeed.
pub const fn is_away(errno: i32) -> bool {
    // ENETDOWN, ENETUNREACH; ENOTCONN, ESHUTDOWN; ETIMEDOUT to EHOSTUNREACH; ESTALE.
    matches!(errno, 100 | 101 | 107 | 108 | 110..=113 | 116)
}

/// The answer to a defect of ours, E6. The connection must be closed after it.
pub fn internal_error() -> Answer {
    text(
        500,
        "500 Internal Server Error\n\nServer got itself in trouble",
    )
}

/// An error of the file system, E5: always 400; `paths` are relative to the vfolder.
pub fn os_error(msg: &str, errno: Option<i32>, paths: &[String]) -> Answer {
    plain(400, &json!({"msg": msg, "errno": errno, "paths": paths}))
}

fn small_problem(status: u16, suffix: &str, title: &str) -> Answer {
    Answer::json(
        status,
        PROBLEM,
        &json!({"type": type_url(suffix), "title": title}),
    )
}

fn type_url(suffix: &str) -> Value {
    Value::String(format!("{TYPE_BASE}{suffix}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `§` in `body` stands for what every `type` begins with.
    #[track_caller]
    fn check(answer: &Answer, status: u16, content_type: &str, body: &str) {
        assert_eq!(answer.status, status);
        assert_eq!(answer.content_type, Some(content_type));
        let body = body.replace('§', TYPE_BASE);
        assert_eq!(std::str::from_utf8(&answer.body).unwrap(), body);
    }

    #[test]
    fn envelopes_have_the_keys_in_order() {
        let bare = Problem::new(Kind::VFolderNotFound).answer();
        let want = concat!(
            r#"{"type":"§storage/vfolder/not-found","#,
            r#""title":"VFolder Not Found","error_code":"vfolder_read_not-found"}"#,
        );
        check(&bare, 404, PROBLEM, want);
        assert_eq!(bare.labels(), ["vfolder", "read", "not-found"]);
        let full = Problem::new(Kind::InvalidVolume)
            .data(json!({"한": 1}))
            .msg("v1")
            .answer();
        let want = concat!(
            r#"{"type":"§storage/volume/invalid","#,
            r#""title":"Invalid Volume","error_code":"storage_access_invalid-parameters","#,
            r#""msg":"v1","data":{"한":1}}"#,
        );
        check(&full, 400, PROBLEM, want);
    }

    #[test]
    fn fixed_answers_are_the_originals() {
        let want = concat!(
            r#"{"type":"§storage/invalid-api-params","#,
            r#""title":"Invalid API parameters","data":"value is not a dict"}"#,
        );
        check(
            &invalid_parameters(json!("value is not a dict")),
            400,
            PROBLEM,
            want,
        );
        let want = concat!(
            r#"{"type":"§storage/malformed-request","#,
            r#""title":"Malformed request (request body should be empty)"}"#,
        );
        check(&malformed_request(), 400, PROBLEM, want);
        let want = concat!(
            r#"{"type":"§storage/unsupported-operation","#,
            r#""title":"Unsupported operation by the storage backend"}"#,
        );
        check(&unsupported_operation(), 400, PROBLEM, want);
        let want = r#"{"type":"§storage/forbidden","title":"Forbidden (missing auth token)"}"#;
        check(&forbidden(true), 403, PROBLEM, want);
        let want = r#"{"type":"§storage/forbidden","title":"Forbidden (invalid auth token)"}"#;
        check(&forbidden(false), 403, PROBLEM, want);
        let want = r#"{"title":"File not found","type":"§storage/file-not-found"}"#;
        check(&download_not_found(), 404, PROBLEM_BARE, want);
        assert_eq!(download_not_found().body.len(), 87);
        let want = "500 Internal Server Error\n\nServer got itself in trouble";
        check(&internal_error(), 500, TEXT, want);
        assert_eq!(internal_error().body.len(), 55);
        check(&text(404, "404: Not Found"), 404, TEXT, "404: Not Found");
        let want = r#"{"msg":"File exists","errno":17,"paths":["a"]}"#;
        check(
            &os_error("File exists", Some(17), &["a".to_owned()]),
            400,
            JSON,
            want,
        );
        let want = r#"{"msg":"x","errno":null,"paths":[]}"#;
        check(&os_error("x", None, &[]), 400, JSON, want);
    }

    #[test]
    fn every_class_has_words_that_the_manager_knows() {
        const DOMAINS: &str = "storage-proxy storage vfolder quota-scope object-storage \
            vfs-storage artifact artifact-registry api auth bgtask backendai message-queue";
        const OPERATIONS: &str = "generic create access read update start soft-delete purge \
            list-query auth hook request parsing execute schedule setup grant check-limit";
        const DETAILS: &str = "bad-request not-found gone conflict already-exists \
            invalid-parameters data-expired forbidden unauthorized incomplete-user-profile \
            not-ready invalid-data-format internal-error unavailable unreachable task-timeout \
            canceled not-implemented deprecated mismatch timeout content-type-mismatch";
        for kind in Kind::ALL {
            let code = kind.error_code().unwrap();
            let parts: Vec<&str> = code.split('_').collect();
            assert_eq!(parts.len(), 3, "{code}");
            for (part, words) in parts.iter().zip([DOMAINS, OPERATIONS, DETAILS]) {
                assert!(
                    words.split_whitespace().any(|word| word == *part),
                    "{code}: {part}"
                );
            }
            assert!((400..600).contains(&kind.status()), "{}", kind.name());
            assert!(!kind.type_suffix().starts_with('/'), "{}", kind.name());
            assert!(!kind.title().is_empty());
            let fixable = kind.next() == Next::FixRequest;
            assert!(
                !fixable || kind.status() < 500,
                "{} cannot be fixed",
                kind.name()
            );
        }
    }
}
