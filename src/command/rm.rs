//! `rm`: files, directories, folders.

use hyper::Method;
use serde_json::{Value, json};

use crate::access::Access;
use crate::cli::{Place, RmArgs};
use crate::client::block_on;
use crate::client::folders::{self, Folder, Target};
use crate::client::http::CallError;
use crate::failure::Failure;
use crate::output;

/// Removes.
pub fn run(place: &Place, args: &RmArgs) -> Result<(), Failure> {
    let target = Target::parse(&args.target)?;
    let path = target.path.as_deref().filter(|path| !path.is_empty());
    if path.is_none() && !args.recursive {
        let text = format!("{} is a whole folder; say -r to remove it", target.folder);
        return Err(Failure::usage(text));
    }
    let access = Access::find(place)?;
    let folder = folders::find(&access, &target.folder, args.volume.as_deref())?;
    let Folder { volume, vfid } = &folder;
    let (route, body) = match path {
        Some(path) => (
            "/folder/file/delete",
            json!({
                "volume": volume,
                "vfid": vfid,
                "relpaths": [path],
                "recursive": args.recursive,
            }),
        ),
        None => ("/folder/delete", json!({"volume": volume, "vfid": vfid})),
    };
    let answer = block_on(async {
        if let Some(path) = path {
            look_first(&access, &folder, path, args).await?;
        }
        Ok(access.manager.call(Method::POST, route, &body).await?)
    })?;
    if path.is_none() {
        // The server goes on in the background; the name is free at once.
        folders::forget(&access.data, &folder)?;
    }
    if args.json {
        output::json(&json!({
            "removed": args.target,
            "volume": volume,
            "vfid": vfid,
            "task": answer.get("bgtask_id"),
        }));
    } else {
        output::line(&format!("removed {}", args.target));
    }
    Ok(())
}

/// Error number of a missing file.
const ENOENT: i64 = 2;

/// The server takes a missing file for a removed one, and passes over directories with content:
/// the Manager wants it so. People want to know.
async fn look_first(
    access: &Access,
    folder: &Folder,
    path: &str,
    args: &RmArgs,
) -> Result<(), Failure> {
    match list(access, folder, path).await {
        Ok(items) if !items.is_empty() && !args.recursive => {
            let text = format!("{} is a directory and not empty; say -r", args.target);
            Err(Failure::new(text))
        }
        Err(error) if error.errno == Some(ENOENT) => {
            // A link that leads nowhere is there all the same: its directory lists it.
            let path = path.trim_end_matches('/');
            let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
            let named = |item: &Value| item.get("name").and_then(Value::as_str) == Some(name);
            match list(access, folder, parent).await {
                Ok(items) if items.iter().any(named) => Ok(()),
                _ => Err(Failure::new(format!("{} is not there", args.target))),
            }
        }
        // A file, or something that the removal itself will complain about.
        _ => Ok(()),
    }
}

async fn list(access: &Access, folder: &Folder, path: &str) -> Result<Vec<Value>, CallError> {
    let body = json!({"volume": folder.volume, "vfid": folder.vfid, "relpath": path});
    let mut answer = access
        .manager
        .call(Method::POST, "/folder/file/list", &body)
        .await?;
    let items = answer.get_mut("items").and_then(Value::as_array_mut);
    Ok(items.map(std::mem::take).unwrap_or_default())
}
