//! `ls`: folders, or what is in one.

use hyper::Method;
use serde_json::{Value, json};

use crate::access::Access;
use crate::cli::{LsArgs, Place};
use crate::client::block_on;
use crate::client::folders::{self, Folder, Target};
use crate::failure::Failure;
use crate::output;

/// Lists.
pub fn run(place: &Place, args: &LsArgs) -> Result<(), Failure> {
    let access = Access::find(place)?;
    let Some(text) = &args.target else {
        return folders(&access, args.json);
    };
    let target = Target::parse(text)?;
    let folder = folders::find(&access, &target.folder, args.volume.as_deref())?;
    let path = target
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(".");
    let body = json!({"volume": folder.volume, "vfid": folder.vfid, "relpath": path});
    let answer = block_on(async {
        Ok(access
            .manager
            .call(Method::POST, "/folder/file/list", &body)
            .await?)
    })?;
    let mut items = match answer.get("items").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => return Err(Failure::new("the server's answer has no items")),
    };
    // The server lists in the order of the file system, which is no order.
    items.sort_by(|a, b| name(a).cmp(name(b)));
    if args.json {
        output::json(&json!({"folder": target.folder, "path": path, "items": items}));
    } else {
        output::text(&items.iter().map(line).collect::<String>());
    }
    Ok(())
}

fn folders(access: &Access, json: bool) -> Result<(), Failure> {
    let known = folders::all(&access.data)?;
    if json {
        let list = known.iter().map(|(name, Folder { volume, vfid })| {
            json!({"folder": name, "volume": volume, "vfid": vfid})
        });
        output::json(&json!({"folders": list.collect::<Vec<_>>()}));
        return Ok(());
    }
    let line = |(name, Folder { volume, vfid }): (&String, &Folder)| {
        format!("{name:<24} {volume:<12} {vfid}\n")
    };
    output::text(&known.iter().map(line).collect::<String>());
    Ok(())
}

fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Size, time and name; directories end in a slash, links show where they lead.
fn line(item: &Value) -> String {
    let stat = item.get("stat").unwrap_or(&Value::Null);
    let text = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let size = stat.get("size").and_then(Value::as_u64).unwrap_or(0);
    let modified: String = text(stat, "modified").chars().take(19).collect();
    let tail = match text(item, "type").as_str() {
        "DIRECTORY" => "/".to_owned(),
        "SYMLINK" => format!(" -> {}", printable(&text(item, "symlink_target"))),
        _ => String::new(),
    };
    format!(
        "{size:>14} {} {}{tail}\n",
        modified.replace('T', " "),
        printable(name(item))
    )
}

/// A name in a folder may hold anything; a terminal must not obey it.
fn printable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_take_one_line_each() {
        let stat = json!({"mode": 33188, "size": 5, "modified": "2026-11-22T07:30:01.5+00:00"});
        for (item, want) in [
            (
                json!({"name": "a.txt", "type": "FILE", "stat": stat}),
                "             5 2026-11-22 07:30:01 a.txt\n",
            ),
            (
                json!({"name": "d", "type": "DIRECTORY", "stat": stat}),
                "             5 2026-11-22 07:30:01 d/\n",
            ),
            (
                json!({"name": "l", "type": "SYMLINK", "stat": stat, "symlink_target": "a\u{1b}"}),
                "             5 2026-11-22 07:30:01 l -> a?\n",
            ),
        ] {
            assert_eq!(line(&item), want);
        }
    }
}
