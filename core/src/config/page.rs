//! The reference page, made from the table.

use super::keys::{Key, Status, WhenAbsent};
use super::table::{SECTIONS, keys};
use super::{BACKENDS, ENV_PREFIX};

const HEAD: &str = "\
<!-- Made from the key table: storage-proxy config default --format markdown > \
docs/configuration.md -->

# Configuration

The file is TOML. `storage-proxy config check` reads it without starting anything, \
`config show` prints what is in effect, `config default` prints every key with its default.

The file is the one of `-f` (`--config`, `--config-path`), else of `BACKEND_CONFIG_FILE`, else the \
first that exists of `./storage-proxy.toml`, `storage-proxy.toml` beside a `BUILD_ROOT` file in a \
directory above, `~/.config/backend.ai/storage-proxy.toml` and \
`/etc/backend.ai/storage-proxy.toml`. Without any, built-in defaults make a standalone server on \
loopback.

- Relative paths count from the directory of the file, unless a key says otherwise.
- Keys may be written with dashes or with underscores; when both are there, dashes win.
- A value that does not fit keeps the program from starting; the message names key, line and what \
is allowed. The one exception is `num-proc`, which is cut down to the number of CPUs.
- An unknown key keeps it from starting as well. Inside `options`, `extra-labels`, `metadata` and \
`pkg-ns` any key is fine.
- Status *used* has an effect. *Accepted, no effect* is there so that files of the original start \
unchanged. *Later* is checked, and its feature is not built yet.
- Secrets are never shown; environment and files that hold them should be readable by the service \
only.
";

/// The whole page in Markdown.
pub fn page() -> String {
    let mut out = String::from(HEAD);
    environment(&mut out);
    let mut section = "";
    for key in keys() {
        let (of, _) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if of != section {
            section = of;
            heading(&mut out, section);
        }
        row(&mut out, key);
    }
    backends(&mut out);
    out
}

fn environment(out: &mut String) {
    out.push_str("\n## Environment\n\n| variable | key |\n|---|---|\n");
    let mut named: Vec<(&str, String)> = keys()
        .filter_map(|key| Some((key.env?, format!("`{}`", key.path))))
        .collect();
    named.push((
        "BACKEND_LOG_FILE",
        "`logging.file.path` and `logging.file.filename`".into(),
    ));
    named.push((
        "BACKEND_LOG_FILE_SIZE",
        "`logging.file.rotation-size`, in MB".into(),
    ));
    named.push(("STORAGE_PROXY_DATA_DIR", "`server.data-dir`".into()));
    for (name, key) in named {
        out.push_str(&format!("| `{name}` | {key} |\n"));
    }
    out.push_str(&format!(
        "| `{ENV_PREFIX}`… | any key: `__` for each dot, `_` for each dash, as in \
         `{ENV_PREFIX}SERVER__LIMITS__RANGES_MAX=8` |\n"
    ));
}

fn heading(out: &mut String, section: &str) {
    let about = SECTIONS
        .iter()
        .find(|(name, _)| *name == section)
        .map_or("", |(_, about)| about);
    let name = match section.strip_suffix("[]") {
        Some(list) => format!("[[{}]]", list.replace("[]", "")),
        None => format!("[{}]", section.replace("[]", "")),
    };
    out.push_str(&format!(
        "\n## `{name}`\n\n{about}\n\n| key | value | default | status | meaning |\n\
         |---|---|---|---|---|\n"
    ));
}

fn row(out: &mut String, key: &Key) {
    let default = match key.default {
        WhenAbsent::Required => "required".to_owned(),
        WhenAbsent::Means(what) => what.to_owned(),
        WhenAbsent::Toml(toml) => format!("`{toml}`"),
    };
    let cells = [
        format!("`{}`", key.name()),
        key.kind.allowed(),
        default,
        key.status.word().to_owned(),
        meaning(key),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    out.push_str(&format!("| {} |\n", cells.join(" | ")));
}

/// Documentation, reason, aliases and environment of a key in one cell.
pub(super) fn meaning(key: &Key) -> String {
    let mut text = match key.status {
        Status::Used => key.doc.to_owned(),
        Status::Ignored(why) => format!("No effect: {why}."),
        Status::Later(what) => format!("For {what}."),
    };
    if !key.aliases.is_empty() {
        text.push_str(&format!(" Also spelled `{}`.", key.aliases.join("`, `")));
    }
    if key.secret {
        text.push_str(" Secret.");
    }
    text
}

fn backends(out: &mut String) {
    let names = BACKENDS.map(|name| format!("`{name}`")).join(", ");
    out.push_str(&format!(
        "\n## Backends\n\nKnown: {names}. Any other name is an error.\n"
    ));
}
