//! What `serve` prints when it is ready: where it is, and three commands to try it.

use std::env;
use std::path::{Path, PathBuf};

use crate::datadir::Runtime;
use crate::load::{Loaded, quoted};
use crate::settings::Settings;

/// The text, with commands that work as they are printed.
pub fn text(loaded: &Loaded, settings: &Settings, runtime: &Runtime) -> String {
    let program = program();
    let flags: String = loaded.flags.iter().map(|flag| format!(" {flag}")).collect();
    let source = example_file();
    let copy = quoted(&env::temp_dir().join("storage-proxy-hello.txt"));
    let from = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "built-in defaults".into(),
    };
    let Runtime {
        version,
        client,
        manager,
        internal,
        ..
    } = runtime;
    // A name that the configured volumes have, so that the commands work with any of them.
    let volume = settings
        .volumes
        .iter()
        .find(|volume| volume.backend == "vfs");
    let volume = volume.filter(|volume| volume.name != "local" && 1 < settings.volumes.len());
    let on = volume.map_or(String::new(), |volume| format!(" --volume {}", volume.name));
    format!(
        "\nstorage-proxy {version} is ready\n\n  \
         clients   {client}\n  \
         manager   {manager}\n  \
         internal  {internal}\n  \
         data      {}\n  \
         config    {from}\n\n\
         Try it from another terminal:\n\n  \
         {program} mkdir demo{on}{flags}\n  \
         {program} put {} demo:hello.txt{flags}\n  \
         {program} get demo:hello.txt {copy}{flags}\n\n",
        settings.data_dir.display(),
        quoted(&source),
    )
}

/// How this program was called, in a form that works from any directory.
fn program() -> String {
    let called = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if called.components().count() == 1 {
        // Found through PATH, and will be found again.
        return quoted(&called);
    }
    quoted(&env::current_exe().unwrap_or(called))
}

/// A small file that is there on every machine.
fn example_file() -> PathBuf {
    let usual = ["/etc/os-release", "/etc/hostname", "/proc/version"];
    let found = usual.iter().map(Path::new).find(|path| path.is_file());
    found.map_or_else(|| env::current_exe().unwrap_or_default(), Path::to_owned)
}
