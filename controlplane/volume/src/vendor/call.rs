//! One call to a vendor's interface and its answer, as values.
//!
//! Laws
//! - A call knows whether it may be sent twice. GET, PUT and DELETE may; POST and PATCH only if
//!   the backend says so, because the vendor tells a repetition or it changes nothing.
//! - Secrets are in headers and bodies, which are never printed; the path is.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::Value;

use super::options::Secret;

/// What is sent as the content.
#[derive(Clone, Default)]
pub(crate) enum Content {
    /// Nothing.
    #[default]
    Empty,
    /// JSON.
    Json(Value),
    /// Pairs of a form.
    Form(Vec<(&'static str, String)>),
}

/// One call. See the module.
#[derive(Clone)]
pub(crate) struct Call {
    /// What it is for, a verb phrase: it is the begin of the error's text.
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    /// Below the base URL, with a slash at its begin; perhaps with a query of its own.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
    pub(crate) repeatable: bool,
    /// The answer may be a word instead of JSON.
    pub(crate) takes_text: bool,
}

impl Call {
    fn new(method: Method, operation: &'static str, path: impl Into<String>) -> Self {
        let repeatable = matches!(
            method,
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE
        );
        Self {
            operation,
            method,
            path: path.into(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            content: Content::Empty,
            repeatable,
            takes_text: false,
        }
    }

    /// Reads.
    pub(crate) fn get(operation: &'static str, path: impl Into<String>) -> Self {
        Self::new(Method::GET, operation, path)
    }

    /// Makes.
    pub(crate) fn post(operation: &'static str, path: impl Into<String>) -> Self {
        Self::new(Method::POST, operation, path)
    }

    /// Replaces.
    pub(crate) fn put(operation: &'static str, path: impl Into<String>) -> Self {
        Self::new(Method::PUT, operation, path)
    }

    /// Changes.
    pub(crate) fn patch(operation: &'static str, path: impl Into<String>) -> Self {
        Self::new(Method::PATCH, operation, path)
    }

    /// Removes.
    pub(crate) fn delete(operation: &'static str, path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, operation, path)
    }

    /// Adds a pair to the query.
    #[must_use]
    pub(crate) fn query(mut self, key: &str, value: impl Into<String>) -> Self {
        self.query.push((key.to_owned(), value.into()));
        self
    }

    /// Sends JSON.
    #[must_use]
    pub(crate) fn json(mut self, value: Value) -> Self {
        self.content = Content::Json(value);
        self
    }

    /// Sends a form.
    #[must_use]
    pub(crate) fn form(mut self, pairs: Vec<(&'static str, String)>) -> Self {
        self.content = Content::Form(pairs);
        self
    }

    /// Adds a header whose value is a secret. One that no header can have is left out.
    #[must_use]
    pub(crate) fn secret_header(mut self, name: &'static str, value: &Secret) -> Self {
        if let Some(value) = secret_value(value.expose()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// A good answer may be a text that is no JSON.
    #[must_use]
    pub(crate) fn text_answer(mut self) -> Self {
        self.takes_text = true;
        self
    }

    /// Sending it twice does no harm.
    #[must_use]
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }
}

/// A header value that is not printed; `None` for text that no header can have.
pub(crate) fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// One segment of a path, whatever the text holds.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// `Null` for an empty body, a text for one that is no JSON (of an error, or where
    /// [`Call::takes_text`]; else a good answer is JSON or empty).
    pub(crate) body: Value,
}

impl Answer {
    /// The text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A text in the body, by JSON pointer.
    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.body.pointer(pointer)?.as_str()
    }
}

/// Where the rest of a list is.
pub(crate) enum Next {
    /// At a link that the answer has: a path, or a whole URL, of which only the path is used.
    Link(String),
    /// At the same place, with this in the query beside what was there.
    Query(&'static str, String),
    /// At the same place, with nothing else in the query.
    QueryAlone(&'static str, String),
}

impl Next {
    /// The call that gets it.
    pub(crate) fn after(self, call: &Call, base_path: &str) -> Call {
        let mut next = call.clone();
        match self {
            Self::Link(link) => {
                let path = match link.split_once("://") {
                    Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
                    None => &link,
                };
                let base = base_path.trim_end_matches('/');
                // Some begin without a slash.
                let path = format!("/{}", path.trim_start_matches('/'));
                next.path = path.strip_prefix(base).unwrap_or(&path).to_owned();
                next.query.clear();
            }
            Self::Query(key, value) => {
                next.query.retain(|(other, _)| other != key);
                next.query.push((key.to_owned(), value));
            }
            Self::QueryAlone(key, value) => next.query = vec![(key.to_owned(), value)],
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_list_is_found() {
        let call = || {
            Call::get("list", "/things")
                .query("a", "1")
                .query("token", "x")
        };
        let pairs = |next: &Call| {
            let pairs = next.query.iter().map(|(k, v)| format!("{k}={v}"));
            pairs.collect::<Vec<_>>().join("&")
        };
        for (next, path, query) in [
            (
                Next::Link("/base/things?start=2".to_owned()),
                "/things?start=2",
                "",
            ),
            (
                Next::Link("base/things?start=3".to_owned()),
                "/things?start=3",
                "",
            ),
            (
                Next::Link("https://evil/base/things?p=2".to_owned()),
                "/things?p=2",
                "",
            ),
            (
                Next::Query("token", "y".to_owned()),
                "/things",
                "a=1&token=y",
            ),
            (
                Next::QueryAlone("resume", "r".to_owned()),
                "/things",
                "resume=r",
            ),
        ] {
            let next = next.after(&call(), "/base/");
            assert_eq!((next.path.as_str(), pairs(&next).as_str()), (path, query));
        }
        assert_eq!(segment("a/b ü"), "a%2Fb%20%C3%BC");
    }
}
