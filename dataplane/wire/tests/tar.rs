//! Tar archives. Goal: what was announced is what is sent, and everybody's tools open it.
//! Method: archives made in memory, listed by two strangers (Python's `tarfile`, GNU tar); a
//! member of 9 GiB as a sparse file; names of every length.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use proxy_wire::tar::{BLOCK_BYTES, END, Entry, Kind};
use proxy_wire::zip::ZipError;

const GIB: u64 = 1 << 30;

fn file(name: &[u8], size: u64) -> Entry<'_> {
    Entry {
        name,
        mode: 0o104_755,
        mtime_s: 1_700_000_000,
        mtime_ns: 0,
        size,
        kind: Kind::File,
    }
}

fn dir(name: &[u8]) -> Entry<'_> {
    Entry {
        kind: Kind::Dir,
        // A directory's own size must not count.
        ..file(name, 4096)
    }
}

/// Makes an archive and checks every announced length.
fn archive(members: &[(Entry<'_>, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, data) in members {
        let start = out.len();
        entry.header(&mut out);
        assert_eq!(entry.data_len(), data.len() as u64);
        out.extend_from_slice(data);
        entry.padding(&mut out);
        let made = (out.len() - start) as u64;
        assert_eq!(entry.member_len(), Ok(made), "{entry:?}");
        assert!(made.is_multiple_of(BLOCK_BYTES));
    }
    out.extend_from_slice(&END);
    out
}

/// Prints one line per member: name, type, size, mode, owner, time.
const PYTHON_LIST: &str = "
import sys, tarfile
sys.stdout.reconfigure(encoding='utf-8', errors='surrogateescape')
for m in tarfile.open(sys.argv[1]):
    kind = 'd' if m.isdir() else 'f' if m.isfile() else '?'
    print(m.name, kind, m.size, oct(m.mode), m.uid, m.gid, m.mtime)
";

/// The lines of a tool's listing, or nothing with a note if it is not installed.
fn listed(tool: &str, args: &[&str], archive: &Path) -> Option<Vec<Vec<u8>>> {
    let mut command = Command::new(tool);
    command.args(args).arg(archive).env("LC_ALL", "C.UTF-8");
    let done = match command.output() {
        Ok(done) => done,
        Err(error) => {
            eprintln!("skipped: {tool}: {error}");
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{tool}: {}\n{errors}", done.status);
    assert!(errors.is_empty(), "{tool}: {errors}");
    let lines = done.stdout.split(|byte| *byte == b'\n');
    Some(
        lines
            .filter(|l| !l.is_empty())
            .map(<[u8]>::to_vec)
            .collect(),
    )
}

fn saved(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn strangers_see_names_sizes_modes_and_times() {
    let old = Entry {
        mtime_s: -2,
        mtime_ns: 500_000_000,
        ..file(b"old", 0)
    };
    let exact = Entry {
        mtime_ns: 123_456_700,
        ..file(b"exact", 1)
    };
    let far = Entry {
        mtime_s: 1 << 40,
        ..file(b"far", 0)
    };
    let korean = "깊은/이름.txt".as_bytes();
    let bytes = archive(&[
        (file(b"a.txt", 5), b"hello"),
        (dir(b"empty dir"), b""),
        (file(korean, 512), &[7; 512]),
        (old, b""),
        (exact, b"x"),
        (far, b""),
        (dir(b"."), b""),
    ]);
    let saved = saved(&bytes);
    let Some(lines) = listed("python3", &["-c", PYTHON_LIST], saved.path()) else {
        return;
    };
    let lines: Vec<_> = lines.iter().map(|l| String::from_utf8_lossy(l)).collect();
    let want = [
        "a.txt f 5 0o755 0 0 1700000000",
        "empty dir d 0 0o755 0 0 1700000000",
        "깊은/이름.txt f 512 0o755 0 0 1700000000",
        "old f 0 0o755 0 0 -1.5",
        "exact f 1 0o755 0 0 1700000000.1234567",
        "far f 0 0o755 0 0 1099511627776.0",
        ". d 0 0o755 0 0 1700000000",
    ];
    assert_eq!(lines, want);
}

#[test]
fn names_of_every_length_and_shape_come_back() {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for len in (1..300).chain([1000, 4000]) {
        names.push(vec![b'n'; len]);
        // Directories of several lengths, so that each way to split is met.
        for step in [2, 51, 101, 156, 200] {
            let mut name = vec![b'd'; len];
            for at in (step..len.saturating_sub(1)).step_by(step) {
                name[at] = b'/';
            }
            name[0] = b'0' + (step % 10) as u8;
            names.push(name);
        }
    }
    names.push(b"bad\xff\xfe".to_vec());
    names.push([&b"long"[..], &[0xff; 200]].concat());
    let files = names.iter().map(|name| (file(name, 0), &b""[..]));
    let dirs = names.iter().map(|name| (dir(name), &b""[..]));
    let bytes = archive(&files.chain(dirs).collect::<Vec<_>>());
    let saved = saved(&bytes);
    // GNU tar takes the bytes as they are and does not know the word for it.
    let args = [
        "--warning=no-unknown-keyword",
        "--quoting-style=literal",
        "-tf",
    ];
    let Some(lines) = listed("tar", &args, saved.path()) else {
        return;
    };
    let slashed = names.iter().map(|name| [name, &b"/"[..]].concat());
    let want: Vec<_> = names.iter().cloned().chain(slashed).collect();
    assert_eq!(lines.len(), want.len());
    for (got, want) in lines.iter().zip(&want) {
        let (got, want) = (String::from_utf8_lossy(got), String::from_utf8_lossy(want));
        assert_eq!(got, want);
    }
}

#[test]
fn a_member_over_eight_gib_and_what_follows_are_found() {
    let size = 9 * GIB + 12_345;
    let big = file(b"big", size);
    let after = file(b"after", 5);
    let mut saved = tempfile::NamedTempFile::new().unwrap();
    let target: &mut File = saved.as_file_mut();
    let mut bytes = Vec::new();
    big.header(&mut bytes);
    target.write_all(&bytes).unwrap();
    // Past the data, which stays a hole.
    target.seek(SeekFrom::Current(size as i64)).unwrap();
    bytes.clear();
    big.padding(&mut bytes);
    after.header(&mut bytes);
    bytes.extend_from_slice(b"after");
    after.padding(&mut bytes);
    bytes.extend_from_slice(&END);
    target.write_all(&bytes).unwrap();
    let len = big.member_len().unwrap() + after.member_len().unwrap() + END.len() as u64;
    assert_eq!(target.metadata().unwrap().len(), len);
    let names = |lines: Vec<Vec<u8>>| lines.iter().map(|l| l.len()).collect::<Vec<_>>();
    if let Some(lines) = listed("tar", &["-tf"], saved.path()) {
        assert_eq!(names(lines), [3, 5]);
    }
    if let Some(lines) = listed("python3", &["-c", PYTHON_LIST], saved.path()) {
        let first = String::from_utf8_lossy(&lines[0]);
        assert!(first.starts_with(&format!("big f {size} ")), "{first}");
        assert_eq!(lines.len(), 2);
    }
}

#[test]
fn what_can_not_be_a_member_is_refused() {
    let long = vec![b'n'; 0x1_0000];
    for (entry, want) in [
        (file(b"", 0), ZipError::NameUnsafe),
        (file(b"/etc/passwd", 0), ZipError::NameUnsafe),
        (file(b"a/../b", 0), ZipError::NameUnsafe),
        (file(&long, 0), ZipError::NameTooLong),
        (dir(&long[1..]), ZipError::NameTooLong),
        (file(b"a", u64::MAX), ZipError::TooLarge),
    ] {
        assert_eq!(entry.member_len(), Err(want), "{:?}", entry.name.len());
    }
    assert!(file(&long[1..], 0).member_len().is_ok());
}
