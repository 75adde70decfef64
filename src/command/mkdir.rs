//! `mkdir`: a folder, or a directory in one.

use hyper::Method;
use serde_json::{Value, json};

use crate::access::Access;
use crate::cli::{MkdirArgs, Place};
use crate::client::block_on;
use crate::client::folders::{self, Folder, Target};
use crate::failure::Failure;
use crate::output;

/// Makes it, or finds that it is there.
pub fn run(place: &Place, args: &MkdirArgs) -> Result<(), Failure> {
    let target = Target::parse(&args.target)?;
    let access = Access::find(place)?;
    let done = match target.path.as_deref().filter(|path| !path.is_empty()) {
        None => block_on(folder(&access, &target.folder, args))?,
        Some(path) => block_on(directory(&access, &target.folder, path, args))?,
    };
    if args.json {
        output::json(&done);
    } else {
        let word = if done["created"] == true {
            "created"
        } else {
            "exists already:"
        };
        output::line(&format!("{word} {}", args.target));
    }
    Ok(())
}

async fn folder(access: &Access, name: &str, args: &MkdirArgs) -> Result<Value, Failure> {
    let known = folders::all(&access.data)?.remove(name);
    let (folder, created) = match known {
        Some(folder) => (folder, false),
        None => {
            let volume = folders::choose_volume(access, args.volume.as_deref())?;
            let vfid = folders::plan(&access.data, name)?;
            let body = json!({"volume": volume, "vfid": vfid});
            access
                .manager
                .call(Method::POST, "/folder/create", &body)
                .await?;
            let folder = Folder { volume, vfid };
            folders::remember(&access.data, name, folder.clone())?;
            (folder, true)
        }
    };
    let Folder { volume, vfid } = folder;
    Ok(json!({"folder": name, "volume": volume, "vfid": vfid, "created": created}))
}

async fn directory(
    access: &Access,
    name: &str,
    path: &str,
    args: &MkdirArgs,
) -> Result<Value, Failure> {
    let Folder { volume, vfid } = folders::find(access, name, args.volume.as_deref())?;
    let body = json!({
        "volume": volume,
        "vfid": vfid,
        "relpath": path,
        "parents": true,
        "exist_ok": true,
    });
    access
        .manager
        .call(Method::POST, "/folder/file/mkdir", &body)
        .await?;
    Ok(json!({"folder": name, "volume": volume, "vfid": vfid, "path": path, "created": true}))
}
