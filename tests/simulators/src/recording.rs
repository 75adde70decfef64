//! What a vendor's own client asked of a simulator, and the shape of what it took for an answer.
//!
//! Clients that cannot be had everywhere prove a simulator once; what they asked is kept, and asked
//! again by every test run. One line per request:
//!
//! ```text
//! {"ask": "GET /path?query", "headers": {...}, "body": ..., "status": 200, "shape": ...}
//! ```
//!
//! A shape has the keys of an answer, and instead of its values what kind they are.

use std::fmt::Write;
use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::server::pairs;
use crate::{Recorded, Request};

/// Stands for the simulator's directory.
const DIR: &str = "{dir}";
/// Headers that say who asks, or in which form.
const HEADERS: [&str; 3] = ["authorization", "cookie", "content-type"];

/// A recording of these requests; `dir` is the directory that the simulator stood on.
pub fn text(recorded: &[Recorded], dir: &Path) -> String {
    let whole = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let whole = whole.display().to_string();
    let mut text = String::new();
    for one in recorded {
        let Recorded {
            request,
            status,
            body,
        } = one;
        let line = json!({
            "ask": format!("{} {}", request.method, target(request)),
            "headers": headers(request),
            "body": String::from_utf8_lossy(&request.body),
            "status": status,
            "shape": shape(body),
        });
        let line = line.to_string().replace(&whole, DIR);
        let _ = writeln!(text, "{line}");
    }
    text
}

fn target(request: &Request) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let query = request.query.iter();
    let query = query.map(|(key, value)| format!("{}={}", encode(key), encode(value)));
    let query = query.collect::<Vec<_>>().join("&");
    let path = request.path.split('/').map(encode);
    let path = path.collect::<Vec<_>>().join("/");
    match query.is_empty() {
        true => path,
        false => format!("{path}?{query}"),
    }
}

fn headers(request: &Request) -> Map<String, Value> {
    let told = HEADERS.iter().filter_map(|name| {
        let value = request.header(name)?;
        Some(((*name).to_owned(), json!(value)))
    });
    told.collect()
}

/// What kind of value this is: the keys of objects, the first of lists, words for all else.
pub fn shape(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(all) => Value::Array(all.iter().take(1).map(shape).collect()),
        Value::Object(all) => {
            let all = all.iter();
            Value::Object(all.map(|(key, one)| (key.clone(), shape(one))).collect())
        }
    }
}

/// Where an answer has lost something of a shape; `None` where it has everything.
pub fn lost(answer: &Value, want: &Value, at: &str) -> Option<String> {
    match (answer, want) {
        (Value::Object(_), Value::Object(keys)) => keys
            .iter()
            .find_map(|(key, want)| lost(&answer[key], want, &format!("{at}/{key}"))),
        (Value::Array(all), Value::Array(wanted)) => match (all.first(), wanted.first()) {
            (Some(one), Some(want)) => lost(one, want, &format!("{at}/0")),
            (None, Some(_)) => Some(format!("{at} is empty")),
            _ => None,
        },
        // What may be missing may be there.
        (_, Value::Null) => None,
        _ if shape(answer) == *want => None,
        _ => Some(format!("{at} was {want}, is {answer}")),
    }
}

/// One line of a recording.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub status: u16,
    /// What the answer looked like.
    pub shape: Value,
}

/// Reads a recording, for a simulator that stands on `dir`.
///
/// # Panics
/// When it is none.
pub fn steps(text: &str, dir: &Path) -> Vec<Step> {
    let whole = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let (encoded, whole) = (
        utf8_percent_encode(DIR, NON_ALPHANUMERIC).to_string(),
        whole.display().to_string(),
    );
    let step = |line: &str| {
        let line = line.replace(DIR, &whole).replace(&encoded, &whole);
        let line: Value = serde_json::from_str(&line).expect("a line of JSON");
        let asked = line["ask"].as_str().expect("what was asked");
        let (method, target) = asked.split_once(' ').expect("a method and a path");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = line["headers"].as_object().cloned().unwrap_or_default();
        let headers = headers.iter().map(|(name, value)| {
            let value = value.as_str().unwrap_or_default();
            (name.clone(), value.to_owned())
        });
        Step {
            request: Request {
                method: method.to_owned(),
                path: percent_decode_str(path).decode_utf8_lossy().into_owned(),
                query: pairs(query),
                headers: headers.collect(),
                body: line["body"]
                    .as_str()
                    .unwrap_or_default()
                    .as_bytes()
                    .to_vec(),
                params: Vec::new(),
            },
            status: u16::try_from(line["status"].as_u64().unwrap_or(0)).unwrap_or(0),
            shape: line["shape"].clone(),
        }
    };
    text.lines().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let whole = std::fs::canonicalize(dir.path()).unwrap();
        let request = Request {
            method: "POST".to_owned(),
            path: "/a b/c".to_owned(),
            query: vec![("q".to_owned(), "1 & 2".to_owned())],
            headers: vec![("cookie".to_owned(), "s=1".to_owned())],
            body: format!("{{\"path\": \"{}/x\"}}", whole.display()).into_bytes(),
            params: Vec::new(),
        };
        let body = json!({"list": [{"n": 1, "t": "x"}], "none": null});
        let recorded = Recorded {
            request: request.clone(),
            status: 202,
            body: body.clone(),
        };
        let text = text(&[recorded], dir.path());
        assert!(!text.contains(&whole.display().to_string()), "{text}");
        let steps = steps(&text, dir.path());
        let step = &steps[0];
        assert_eq!((step.status, &step.request.path), (202, &request.path));
        assert_eq!(
            (&step.request.query, &step.request.body),
            (&request.query, &request.body)
        );
        assert_eq!(step.request.cookie("s"), Some("1"));
        assert_eq!(lost(&body, &step.shape, ""), None);
        for (other, what) in [
            (json!({"list": [], "none": 1}), "/list is empty"),
            (
                json!({"list": [{"n": "1", "t": "x"}]}),
                "/list/0/n was \"number\", is \"1\"",
            ),
            (
                json!({"list": [{"n": 1}]}),
                "/list/0/t was \"text\", is null",
            ),
        ] {
            assert_eq!(lost(&other, &step.shape, "").as_deref(), Some(what));
        }
    }
}
