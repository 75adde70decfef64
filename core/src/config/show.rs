//! What is in effect, without secrets.

use serde_json::{Map, Value as Json, json};

use super::document::{Document, Entry, fill};
use super::keys::{Key, Status, WhenAbsent};
use super::raw::parse_value;
use super::redact;
use super::table::keys;

/// One line of the dump.
struct Line<'a> {
    key: &'a Key,
    names: Vec<String>,
    entry: Option<&'a Entry>,
}

/// Every key that has an effect and every key that is set, with its origin, in TOML.
///
/// The text is a configuration file again, except that secrets are masked and that tables inside
/// of lists stand behind the whole list; the JSON form tells those apart.
pub fn show_toml(document: &Document) -> String {
    let mut out = String::new();
    let mut section = None;
    for line in lines(document) {
        let (of, _) = line
            .key
            .path
            .rsplit_once('.')
            .unwrap_or(("", line.key.path));
        let here = Some((of, line.names.clone()));
        if here != section {
            let gap = if out.is_empty() { "" } else { "\n" };
            let name = match of.strip_suffix("[]") {
                Some(_) => format!("[[{}]]", plain_list(&fill(of, &line.names))),
                None => format!("[{}]", plain_list(&fill(of, &line.names))),
            };
            out.push_str(&format!("{gap}{name}\n"));
            section = here;
        }
        toml_line(&mut out, &line);
    }
    out
}

/// `storages[0].x` is `storages.x` in a TOML heading: the element is the last one opened.
fn plain_list(path: &str) -> String {
    let mut out = String::new();
    let mut skip = false;
    for c in path.chars() {
        match c {
            '[' => skip = true,
            ']' => skip = false,
            c if !skip => out.push(c),
            _ => {}
        }
    }
    out
}

fn toml_line(out: &mut String, line: &Line<'_>) {
    let name = line.key.name();
    match (line.entry, line.key.default) {
        (Some(entry), _) => {
            let shown = redact::value(line.key, &entry.raw).to_toml();
            out.push_str(&format!(
                "{name} = {shown}  # {}{}\n",
                entry.origin,
                remark(line.key)
            ));
        }
        (None, WhenAbsent::Toml(toml)) => out.push_str(&format!("{name} = {toml}  # default\n")),
        (None, WhenAbsent::Means(what)) => out.push_str(&format!("# {name}: {what}\n")),
        (None, WhenAbsent::Required) => {}
    }
}

fn remark(key: &Key) -> &'static str {
    match key.status {
        Status::Used => "",
        Status::Ignored(_) => ", no effect",
        Status::Later(_) => ", not active yet",
    }
}

/// The same as a list of objects.
pub fn show_json(document: &Document) -> Json {
    let shown = lines(document).into_iter().map(|line| {
        let (value, origin) = match (line.entry, line.key.default) {
            (Some(entry), _) => (
                redact::value(line.key, &entry.raw).to_json(),
                entry.origin.to_string(),
            ),
            (None, WhenAbsent::Toml(toml)) => (
                parse_value(toml).map_or(Json::Null, |raw| raw.to_json()),
                "default".into(),
            ),
            (None, _) => (Json::Null, "default".into()),
        };
        let mut object = Map::new();
        object.insert("key".into(), json!(fill(line.key.path, &line.names)));
        object.insert("value".into(), value);
        object.insert("origin".into(), json!(origin));
        object.insert("status".into(), json!(line.key.status.word()));
        Json::Object(object)
    });
    shown.collect()
}

/// Keys in the order of the table, and the instances of one section in the order of the file.
fn lines(document: &Document) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut at = 0;
    let all: Vec<&'static Key> = keys().collect();
    while let Some(first) = all.get(at) {
        let section = first
            .path
            .rsplit_once('.')
            .map_or("", |(section, _)| section);
        let of = |key: &&&Key| key.path.rsplit_once('.').map_or("", |(s, _)| s) == section;
        let group = &all[at..at + all[at..].iter().take_while(of).count()];
        at += group.len();
        for names in instances(document, section) {
            for key in group {
                let entry = document.entry(key.path, &names);
                if entry.is_some() || (key.status == Status::Used && shown(document, section)) {
                    lines.push(Line {
                        key,
                        names: names.clone(),
                        entry,
                    });
                }
            }
        }
    }
    lines
}

/// Sections that exist once are always there; the others as often as the file has them.
fn instances(document: &Document, section: &str) -> Vec<Vec<String>> {
    if !section.contains(['*', '[']) {
        return vec![Vec::new()];
    }
    let found = document
        .sections
        .iter()
        .filter(|found| found.pattern == section);
    found.map(|found| found.names.clone()).collect()
}

/// Optional drivers are shown when they are configured.
fn shown(document: &Document, section: &str) -> bool {
    let of_a_driver = section.starts_with("logging.") && section != "logging.console";
    !of_a_driver || document.has_section(section)
}
