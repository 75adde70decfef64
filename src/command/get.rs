//! `get`: a file out of a folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::access::Access;
use crate::cli::{GetArgs, Place, When};
use crate::client::download::{Download, download};
use crate::client::folders::{self, Target};
use crate::client::{block_on, progress};
use crate::failure::Failure;
use crate::output;

/// Downloads, and says how it went.
pub fn run(place: &Place, args: &GetArgs) -> Result<(), Failure> {
    let source = Target::parse(&args.source)?;
    let path = match (source.path.as_deref(), args.zip) {
        (None | Some(""), true) => ".",
        _ => source.path()?,
    };
    let target = target_file(&source.folder, path, args)?;
    if args.show.json && target.is_none() {
        return Err(Failure::usage(
            "--json and the file itself cannot both go to standard output",
        ));
    }
    let access = Access::find(place)?;
    let folder = folders::find(&access, &source.folder, args.volume.as_deref())?;
    let what = Download {
        folder,
        path: path.to_owned(),
        target,
        zip: args.zip,
        restart: args.restart,
    };
    let when = if what.target.is_none() {
        When::Never
    } else {
        args.show.progress
    };
    let bar = progress::bar(when, &what.path, None);
    let start = Instant::now();
    let done = block_on(download(&access, &what, &bar));
    bar.finish_and_clear();
    let done = done.map_err(|failure| Failure {
        text: format!("{}: {}", args.source, failure.text),
        ..failure
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let Some(target) = &what.target else {
        return Ok(());
    };
    if args.show.json {
        output::json(&json!({
            "source": args.source,
            "target": target,
            "volume": what.folder.volume,
            "vfid": what.folder.vfid,
            "bytes": done.bytes,
            "resumed_from": done.resumed_from,
            "seconds": seconds,
        }));
    } else {
        let (to, resumed) = (target.display(), resumed(done.resumed_from));
        output::line(&format!(
            "{to}: {} bytes in {seconds:.1} s{resumed}",
            done.bytes
        ));
    }
    Ok(())
}

/// Says that a transfer went on where an earlier one was.
pub fn resumed(from: u64) -> String {
    if from == 0 {
        String::new()
    } else {
        format!(", went on from byte {from}")
    }
}

/// The file to write, absolute; `None` for standard output.
fn target_file(folder: &str, path: &str, args: &GetArgs) -> Result<Option<PathBuf>, Failure> {
    if args.target.as_deref() == Some(Path::new("-")) {
        return Ok(None);
    }
    let own = own_name(folder, path, args.zip)?;
    let target = match &args.target {
        None => own.into(),
        Some(target) if target.is_dir() => target.join(own),
        Some(target) => target.clone(),
    };
    let absolute = std::path::absolute(&target);
    absolute
        .map(Some)
        .map_err(|error| Failure::at("write", &target, &error))
}

/// The last component of the path, or the folder itself.
fn own_name(folder: &str, path: &str, zip: bool) -> Result<String, Failure> {
    let last = path
        .rsplit('/')
        .find(|part| !part.is_empty() && *part != ".");
    match last {
        Some("..") => Err(Failure::usage("the path cannot end in ..")),
        Some(name) if zip => Ok(format!("{name}.zip")),
        Some(name) => Ok(name.to_owned()),
        // Identifiers have slashes and colons, which are no part of a file name.
        None if zip => Ok(format!("{}.zip", folder.replace(['/', ':'], "_"))),
        None => Err(Failure::usage(format!("say what to get: {folder}:PATH"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_own_name() {
        for (path, zip, want) in [
            ("a", false, Some("a")),
            ("a/b.bin", false, Some("b.bin")),
            ("a/b", true, Some("b.zip")),
            (".", true, Some("demo.zip")),
            ("", false, None),
            ("a/..", false, None),
        ] {
            assert_eq!(own_name("demo", path, zip).ok().as_deref(), want, "{path}");
        }
        assert_eq!(
            own_name("user:1/2", ".", true).as_deref(),
            Ok("user_1_2.zip")
        );
    }
}
