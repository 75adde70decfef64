//! The mount table: lines in, lines out, and the file replaced as a whole.
//!
//! Laws
//! - Lines of others stay byte for byte, comments included.
//! - A device that is listed already is not added again; removal goes by mount point.
//! - The file is whole at every moment: written beside itself, synced, renamed.
//!
//! Source: fstab(5).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, Gid, Mode, Uid, fchmod, fchown, flock};

/// One mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) device: &'a str,
    pub(crate) target: &'a str,
    pub(crate) fs_type: &'a str,
    pub(crate) options: &'a str,
}

/// The table with `line` at its end; `None` when its device is there already.
fn with(table: &str, line: Line<'_>) -> Option<String> {
    if fields(table).any(|(device, _)| device == line.device) {
        return None;
    }
    let mut table = table.to_owned();
    if !table.is_empty() && !table.ends_with('\n') {
        table.push('\n');
    }
    let options = if line.options.is_empty() {
        "defaults"
    } else {
        line.options
    };
    let (device, target, fs_type) = (escape(line.device), escape(line.target), line.fs_type);
    table.push_str(&format!("{device} {target} {fs_type} {options} 0 0\n"));
    Some(table)
}

/// The table without lines of that mount point; `None` when it has none.
fn without(table: &str, target: &str) -> Option<String> {
    let is_other = |line: &&str| fields(line).all(|(_, mounted)| mounted != target);
    let kept: String = table.split_inclusive('\n').filter(is_other).collect();
    (kept.len() != table.len()).then_some(kept)
}

/// Device and mount point of every line that has them.
fn fields(table: &str) -> impl Iterator<Item = (String, String)> + '_ {
    table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let device = words.next().filter(|word| !word.starts_with('#'))?;
        Some((unescape(device), unescape(words.next()?)))
    })
}

const ESCAPES: [(char, &str); 4] = [
    ('\\', "\\134"),
    (' ', "\\040"),
    ('\t', "\\011"),
    ('#', "\\043"),
];

fn escape(text: &str) -> String {
    let one = |c: char| {
        let code = ESCAPES.iter().find(|(plain, _)| *plain == c);
        code.map_or_else(|| c.to_string(), |(_, code)| (*code).to_owned())
    };
    text.chars().map(one).collect()
}

fn unescape(text: &str) -> String {
    let mut text = text.to_owned();
    // The backslash last: its code must not make new codes.
    for (plain, code) in ESCAPES.iter().rev() {
        text = text.replace(code, &plain.to_string());
    }
    text
}

/// Adds a mount to the file. `false`: its device is there already.
pub(crate) fn add(file: &Path, line: Line<'_>) -> io::Result<bool> {
    edit(file, |table| with(table, line))
}

/// Takes a mount point out of the file. `false`: it is not there.
pub(crate) fn remove(file: &Path, target: &str) -> io::Result<bool> {
    edit(file, |table| without(table, target))
}

fn edit(file: &Path, change: impl FnOnce(&str) -> Option<String>) -> io::Result<bool> {
    let opened = File::open(file)?;
    // Keeps two servers of this machine apart.
    flock(&opened, FlockOperation::LockExclusive)?;
    let table = fs::read_to_string(file)?;
    let Some(table) = change(&table) else {
        return Ok(false);
    };
    let found = opened.metadata()?;
    let mut draft = file.as_os_str().to_owned();
    draft.push(".storage-proxy.new");
    let draft = Path::new(&draft);
    let written = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut new = options.open(draft)?;
        new.write_all(table.as_bytes())?;
        let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        fchown(&new, Some(uid), Some(gid))?;
        fchmod(&new, Mode::from_raw_mode(found.mode() & 0o7777))?;
        new.sync_all()?;
        fs::rename(draft, file)?;
        match file.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    written()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# /etc/fstab\nUUID=1 / ext4 errors=remount-ro 0 1\n\
                         nas:/a\\040b /mnt/a\\040b nfs ro 0 0";

    fn line<'a>(device: &'a str, target: &'a str, options: &'a str) -> Line<'a> {
        Line {
            device,
            target,
            fs_type: "nfs",
            options,
        }
    }

    #[test]
    fn a_line_is_added_once() {
        let added = with(TABLE, line("nas:/c d", "/mnt/c", "")).unwrap();
        assert_eq!(
            added,
            format!("{TABLE}\nnas:/c\\040d /mnt/c nfs defaults 0 0\n")
        );
        assert!(with(&added, line("nas:/c d", "/elsewhere", "ro")).is_none());
        assert!(with(TABLE, line("nas:/a b", "/x", "ro")).is_none());
    }

    #[test]
    fn lines_of_others_stay() {
        assert_eq!(without(TABLE, "/mnt/c"), None);
        assert_eq!(without(TABLE, "/mnt"), None);
        let left = without(TABLE, "/mnt/a b").unwrap();
        assert_eq!(left, &TABLE[..TABLE.rfind("nas").unwrap()]);
    }

    #[test]
    fn the_file_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fstab");
        fs::write(&file, TABLE).unwrap();
        let mode = |file: &Path| fs::metadata(file).unwrap().mode() & 0o7777;
        let before = mode(&file);
        assert!(add(&file, line("nas:/c", "/mnt/c", "ro")).unwrap());
        assert!(!add(&file, line("nas:/c", "/mnt/c", "ro")).unwrap());
        assert!(remove(&file, "/mnt/c").unwrap());
        assert!(!remove(&file, "/mnt/c").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{TABLE}\n"));
        assert_eq!(mode(&file), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
