//! Conformance rows: one request, one expected answer, the effects on disk; run as a table.
//!
//! Every row has a fresh [`Folder::full`], so rows do not depend on each other or on order.
//! All rows of a table run before the failures are shown, together.
//!
//! Words in a request's target and body, and in expected JSON:
//! `$here` stands for `"volume":"volume1","vfid":"<the row's folder>"`, `$vfid` and `$qsid` for
//! its ids, `$path` for its directory, `$new` and `$newscope` for a folder that does not exist.
//! A string `<uuid>`, `<int>`, `<text>`, `<time>`, `<bool>`, `<any>` in expected JSON stands
//! for any value of that kind, and the member `"...": 0` says that more members may follow.

use serde_json::Value;

use crate::folder::{Folder, SECRET, picture};
use crate::http::{Framing, Response};
use crate::problem;
use crate::server::Server;

/// What must come back.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// This status and no body.
    Bare(u16),
    /// This status and this JSON, see the module's words.
    Json(u16, &'static str),
    /// E1 of this class.
    Problem(&'static str),
    /// E2 with exactly these fields.
    Fields(&'static [&'static str]),
    /// E2 whose `data` is this text.
    NotDict,
    /// E3: status, type suffix, title.
    Fixed(u16, &'static str, &'static str),
    /// E5 with this errno.
    Os(i64),
    /// E5 with `errno: null`.
    OsOther,
    /// E6: status and text.
    Text(u16, &'static str),
    /// This status with any JSON object: where upstream crashes and the wording is ours.
    Refused(u16),
    /// A chunked octet stream with these bytes.
    Stream(&'static [u8]),
    /// The answer of mkdir: status, items made, items that failed.
    Made(u16, &'static [&'static str], &'static [&'static str]),
    /// One of several.
    Any(&'static [Want]),
}

/// What must be on the disk afterwards, relative to the row's folder.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// No entry of that name, not even a link.
    Missing(&'static str),
    /// A directory.
    Dir(&'static str),
    /// A regular file with this content.
    File(&'static str, &'static [u8]),
    /// A link with this target.
    Link(&'static str, &'static str),
    /// The whole folder is as it was before the request.
    Unchanged,
}

/// One row of a conformance table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Section of the contract (file and number).
    pub section: &'static str,
    /// Method and path.
    pub call: &'static str,
    /// The JSON body; no body at all when empty.
    pub body: &'static str,
    /// The expected answer.
    pub want: Want,
    /// The expected effects.
    pub leaves: &'static [Effect],
}

/// A row without effects.
#[must_use]
pub const fn row(section: &'static str, call: &'static str, body: &'static str, want: Want) -> Row {
    Row {
        section,
        call,
        body,
        want,
        leaves: &[],
    }
}

impl Row {
    /// Adds the effects.
    #[must_use]
    pub const fn leaves(mut self, effects: &'static [Effect]) -> Self {
        self.leaves = effects;
        self
    }
}

/// Collects failures, so that one run shows all of them.
#[derive(Debug, Default)]
pub struct Report {
    rows: usize,
    failures: Vec<String>,
}

impl Report {
    /// Counts one row and keeps its failure.
    pub fn note(&mut self, name: &str, result: Result<(), String>) {
        self.rows += 1;
        if let Err(why) = result {
            self.failures
                .push(format!("- {name}\n    {}", why.replace('\n', "\n    ")));
        }
    }

    /// Ends the table.
    ///
    /// # Panics
    /// When a row failed, with all of them; or when there was none.
    #[track_caller]
    #[allow(clippy::print_stdout)]
    pub fn end(self, topic: &str) {
        let Self { rows, failures } = self;
        println!("{topic}: {rows} rows, {} failed", failures.len());
        assert!(rows > 0, "{topic}: no rows");
        assert!(
            failures.is_empty(),
            "{topic}: {} of {rows} rows failed\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
}

/// Runs a table against the manager-facing port.
///
/// # Panics
/// When rows fail.
#[track_caller]
pub fn check(server: &Server, topic: &str, rows: &[Row]) {
    let mut report = Report::default();
    for row in rows {
        let name = format!("[{}] {} {}", row.section, row.call, row.body);
        report.note(&name, run(server, row));
    }
    report.end(topic);
}

fn run(server: &Server, row: &Row) -> Result<(), String> {
    let folder = Folder::full(server);
    let other = Folder::unmade(server);
    let fill = |text: &str| words(text, &folder, &other);
    let (method, path) = row
        .call
        .split_once(' ')
        .ok_or("call is not `METHOD path`")?;
    let outside = picture(&server.outside());
    let before = picture(&folder.path);
    let mut request = server.manager_request(method, &fill(path));
    if !row.body.is_empty() {
        request = request
            .header("Content-Type", "application/json")
            .body(fill(row.body).as_bytes());
    }
    let response = request.send(server.manager());
    let said = |why: String| format!("{why}\n{response}");
    answers(&response, row.want, &fill).map_err(said)?;
    for effect in row.leaves {
        left(&folder, *effect, &before).map_err(said)?;
    }
    contained(server, &response, &outside).map_err(said)
}

/// Nothing from outside was sent or changed, and no error shows where the server keeps things.
///
/// # Errors
/// What was seen.
pub fn contained(server: &Server, response: &Response, before: &str) -> Result<(), String> {
    let text = response.text();
    if text.contains(SECRET) {
        return Err("content from outside was sent".to_owned());
    }
    if 400 <= response.status && text.contains(&*server.dir().to_string_lossy()) {
        return Err("an error shows an absolute server path".to_owned());
    }
    if picture(&server.outside()) != before {
        return Err("something outside was changed".to_owned());
    }
    Ok(())
}

/// Compares an answer with what is wanted.
///
/// # Errors
/// What differs.
pub fn answers(
    response: &Response,
    want: Want,
    fill: &dyn Fn(&str) -> String,
) -> Result<(), String> {
    match want {
        Want::Bare(status) => bare(response, status),
        Want::Json(status, text) => {
            problem::head(response, status, "application/json; charset=utf-8")?;
            json(response, &fill(text))
        }
        Want::Problem(class) => problem::typed(response, class),
        Want::Fields(fields) => problem::fields(response, fields),
        Want::NotDict => {
            let data = problem::invalid_parameters(response)?;
            problem::same("data", &data, &Value::from("value is not a dict"))
        }
        Want::Fixed(status, suffix, title) => problem::fixed(response, status, suffix, title),
        Want::Os(errno) => problem::os_error(response, Some(errno)),
        Want::OsOther => problem::os_error(response, None),
        Want::Text(status, text) => problem::text(response, status, text),
        Want::Refused(status) => problem::refused(response, status),
        Want::Stream(bytes) => stream(response, bytes),
        Want::Made(status, made, failed) => made_and_failed(response, status, made, failed),
        Want::Any(wants) => {
            let results: Vec<_> = wants.iter().map(|w| answers(response, *w, fill)).collect();
            match results.iter().any(Result::is_ok) {
                true => Ok(()),
                false => Err(results
                    .into_iter()
                    .filter_map(Result::err)
                    .collect::<Vec<_>>()
                    .join("; ")),
            }
        }
    }
}

fn made_and_failed(
    response: &Response,
    status: u16,
    made: &[&str],
    failed: &[&str],
) -> Result<(), String> {
    let list = |names: &[&str], msg: Value| -> Value {
        names
            .iter()
            .map(|n| serde_json::json!({"msg": msg, "item": n}))
            .collect()
    };
    let want = serde_json::json!({"results": {
        "success": list(made, Value::Null), "failed": list(failed, Value::from("<text>")),
    }});
    problem::head(response, status, "application/json; charset=utf-8")?;
    json(response, &want.to_string())
}

fn bare(response: &Response, status: u16) -> Result<(), String> {
    if response.status != status {
        return Err(format!("status {}, not {status}", response.status));
    }
    if !response.body.is_empty() {
        return Err("a body where none is expected".to_owned());
    }
    match response.header("Content-Type") {
        Some(kind) if status == 204 => Err(format!("204 with Content-Type {kind}")),
        _ => Ok(()),
    }
}

fn stream(response: &Response, bytes: &[u8]) -> Result<(), String> {
    problem::head(response, 200, "application/octet-stream")?;
    if response.framing != Framing::Chunked {
        return Err(format!("framing {:?}, not chunked", response.framing));
    }
    if response.body == bytes {
        Ok(())
    } else {
        Err("other bytes".to_owned())
    }
}

fn json(response: &Response, want: &str) -> Result<(), String> {
    let want: Value = serde_json::from_str(want).map_err(|e| format!("bad row: {e} in {want}"))?;
    let got: Value =
        serde_json::from_slice(&response.body).map_err(|err| format!("body: {err}"))?;
    matches(&got, &want, "$")
}

/// Compares JSON with the words of the module.
///
/// # Errors
/// Where it differs.
pub fn matches(got: &Value, want: &Value, at: &str) -> Result<(), String> {
    let differs = || Err(format!("{at} is {got}, not {want}"));
    match (got, want) {
        (got, Value::String(word)) if word.starts_with('<') && word.ends_with('>') => {
            if is_kind(got, word) {
                Ok(())
            } else {
                differs()
            }
        }
        (Value::Object(got), Value::Object(want)) => {
            for (key, value) in want.iter().filter(|(k, _)| *k != "...") {
                let found = got
                    .get(key)
                    .ok_or_else(|| format!("{at}.{key} is missing"))?;
                matches(found, value, &format!("{at}.{key}"))?;
            }
            let extra = got.keys().find(|k| !want.contains_key(*k));
            match extra {
                Some(key) if !want.contains_key("...") => Err(format!("{at} has also {key}")),
                _ => Ok(()),
            }
        }
        (Value::Array(got), Value::Array(want)) if got.len() == want.len() => got
            .iter()
            .zip(want)
            .enumerate()
            .try_for_each(|(i, (g, w))| matches(g, w, &format!("{at}[{i}]"))),
        _ if got == want => Ok(()),
        _ => differs(),
    }
}

fn is_kind(got: &Value, word: &str) -> bool {
    let text = got.as_str().unwrap_or("");
    match word {
        "<any>" => true,
        "<int>" => got.is_i64() || got.is_u64(),
        "<number>" => got.is_number(),
        "<bool>" => got.is_boolean(),
        "<text>" => got.is_string(),
        "<uuid>" => {
            let dashes = [8, 13, 18, 23];
            text.len() == 36
                && text
                    .bytes()
                    .enumerate()
                    .all(|(i, b)| match dashes.contains(&i) {
                        true => b == b'-',
                        false => b.is_ascii_hexdigit() && !b.is_ascii_uppercase(),
                    })
        }
        "<time>" => text.len() >= 20 && text.as_bytes()[10] == b'T',
        _ => false,
    }
}

fn left(folder: &Folder, effect: Effect, before: &str) -> Result<(), String> {
    let meta = |name: &str| std::fs::symlink_metadata(folder.at(name));
    let ok = match effect {
        Effect::Missing(name) => meta(name).is_err(),
        Effect::Dir(name) => meta(name).is_ok_and(|m| m.is_dir()),
        Effect::File(name, bytes) => {
            meta(name).is_ok_and(|m| m.is_file())
                && std::fs::read(folder.at(name)).is_ok_and(|b| b == bytes)
        }
        Effect::Link(name, target) => {
            std::fs::read_link(folder.at(name)).is_ok_and(|t| t.as_os_str() == target)
        }
        Effect::Unchanged => picture(&folder.path) == before,
    };
    if ok {
        Ok(())
    } else {
        Err(format!(
            "on disk: not {effect:?}; now\n{}",
            picture(&folder.path)
        ))
    }
}

/// Replaces the words of the module by a folder's values.
#[must_use]
pub fn words(text: &str, folder: &Folder, other: &Folder) -> String {
    let here = format!(
        "\"volume\":\"{}\",\"vfid\":\"{}\"",
        crate::server::VOLUME,
        folder.vfid
    );
    text.replace("$here", &here)
        .replace("$vfid", &folder.vfid)
        .replace("$qsid", &folder.qsid)
        .replace("$path", &folder.path.display().to_string())
        .replace("$newscope", &other.qsid)
        .replace("$new", &other.vfid)
}
