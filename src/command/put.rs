//! `put`: a file into a folder.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::access::Access;
use crate::cli::{Place, PutArgs};
use crate::client::folders::{self, Target};
use crate::client::upload::{Upload, upload};
use crate::client::{block_on, progress};
use crate::failure::Failure;
use crate::output;

/// Uploads, and says how it went.
pub fn run(place: &Place, args: &PutArgs) -> Result<(), Failure> {
    let target = Target::parse(&args.target)?;
    let path = target_path(target.path()?, &args.source)?;
    let source = std::fs::canonicalize(&args.source)
        .map_err(|error| Failure::at("read", &args.source, &error))?;
    let access = Access::find(place)?;
    let folder = folders::find(&access, &target.folder, args.volume.as_deref())?;
    let what = Upload {
        source,
        folder,
        path,
        restart: args.restart,
    };
    let bar = progress::bar(args.show.progress, &what.path, None);
    let start = Instant::now();
    let done = block_on(upload(&access, &what, &bar));
    bar.finish_and_clear();
    let done = done?;
    let seconds = start.elapsed().as_secs_f64();
    let to = format!("{}:{}", target.folder, what.path);
    if args.show.json {
        output::json(&json!({
            "source": what.source,
            "target": to,
            "volume": what.folder.volume,
            "vfid": what.folder.vfid,
            "bytes": done.bytes,
            "resumed_from": done.resumed_from,
            "seconds": seconds,
        }));
    } else {
        let resumed = super::get::resumed(done.resumed_from);
        output::line(&format!(
            "{to}: {} bytes in {seconds:.1} s{resumed}",
            done.bytes
        ));
    }
    Ok(())
}

/// An empty path, or one that names a directory, keeps the name of the file.
fn target_path(path: &str, source: &Path) -> Result<String, Failure> {
    if !path.is_empty() && !path.ends_with('/') {
        return Ok(path.to_owned());
    }
    let name = source.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::usage("say under which name: NAME:PATH"))?;
    Ok(format!("{path}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_the_name_of_the_file() {
        for (path, want) in [("a", "a"), ("", "f.bin"), ("a/", "a/f.bin"), ("a/b", "a/b")] {
            assert_eq!(
                target_path(path, Path::new("/x/f.bin")).as_deref(),
                Ok(want)
            );
        }
        assert!(target_path("", Path::new("/")).is_err());
    }
}
