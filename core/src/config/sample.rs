//! A configuration file with every key, its default and its meaning, made from the table.

use super::keys::{Key, WhenAbsent};
use super::page::meaning;
use super::table::{SECTIONS, keys};

const HEAD: &str = "\
# Every key with its default. Everything is commented out, so this file starts a
# standalone server on loopback; take what you need.
#
# Made from the key table: storage-proxy config default > configs/sample.toml
";

/// The whole file in TOML.
pub fn sample() -> String {
    let mut out = String::from(HEAD);
    let mut section = "";
    for key in keys() {
        let (of, _) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if of != section {
            section = of;
            heading(&mut out, section);
        }
        member(&mut out, key);
    }
    out
}

fn heading(out: &mut String, section: &str) {
    let about = SECTIONS
        .iter()
        .find(|(name, _)| *name == section)
        .map_or("", |(_, about)| about);
    let name = section.replace('*', "NAME");
    let name = match name.strip_suffix("[]") {
        Some(list) => format!("[[{}]]", list.replace("[]", "")),
        None => format!("[{}]", name.replace("[]", "")),
    };
    out.push('\n');
    comment(out, &format!("{name}  {about}"));
    // A heading of its own is harmless where the section may be empty.
    if harmless(section) {
        out.push_str(&format!("{name}\n"));
    } else {
        out.push_str(&format!("# {name}\n"));
    }
}

/// Whether an empty section changes nothing.
fn harmless(section: &str) -> bool {
    !section.contains(['*', '['])
        && !section.starts_with("redis")
        && !matches!(section, "etcd" | "logging.file")
        && !keys().any(|key| key.default == WhenAbsent::Required && key.path.starts_with(section))
}

fn member(out: &mut String, key: &Key) {
    out.push('\n');
    comment(
        out,
        &format!("{} Value: {}.", meaning(key), key.kind.allowed()),
    );
    match key.default {
        WhenAbsent::Required => comment(out, &format!("{} = …  (required)", key.name())),
        WhenAbsent::Means(what) => comment(out, &format!("{} = …  ({what})", key.name())),
        WhenAbsent::Toml(toml) => out.push_str(&format!("# {} = {toml}\n", key.name())),
    }
}

/// A comment, wrapped at 100 columns.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if 100 < line.chars().count() + 1 + word.chars().count() {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
