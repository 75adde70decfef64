//! `config generate-sample`: a commented configuration file, as the original's command makes it.

use std::path::Path;

use proxy_core::config;

use crate::cli::SampleArgs;
use crate::failure::Failure;
use crate::output;

/// Writes the file. One that is there stays, which is told and is no failure: scripts of the
/// original run this again and again.
///
/// # Errors
/// It cannot be written.
pub fn run(args: &SampleArgs) -> Result<(), Failure> {
    let target: &Path = &args.output;
    let is_there = target.exists();
    let written = !is_there || args.overwrite;
    if written {
        let parent = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            std::fs::create_dir_all(parent)
                .map_err(|error| Failure::at("create directory", parent, &error))?;
        }
        // The sample holds no secret: there is nothing to mask, or not to.
        std::fs::write(target, config::sample())
            .map_err(|error| Failure::at("write", target, &error))?;
    }
    if args.json {
        output::json(&serde_json::json!({"file": target, "written": written}));
    } else if written {
        output::line(&format!("sample configuration: {}", target.display()));
    } else {
        output::error(&format!(
            "{} is there already; say --overwrite",
            target.display()
        ));
    }
    Ok(())
}
