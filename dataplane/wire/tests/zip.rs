//! Zip archives. Goal: what was announced is what is sent, and everybody's tools open it.
//! Method: archives made in memory and read by three strangers (the `zip` crate, Python's
//! `zipfile`, Info-ZIP's `unzip`); past 4 GiB as sparse files; past that by arithmetic.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use proxy_core::units::Offset;
use proxy_wire::zip::{Checksum, Entry, Kind, Layout, ZipError};

const GIB: u64 = 1 << 30;
/// 2023-11-14T22:13:20Z
const MTIME_S: i64 = 1_700_000_000;

fn file(name: &[u8], size: u64) -> Entry<'_> {
    Entry {
        name,
        mode: 0o100_644,
        mtime_s: MTIME_S,
        size,
        kind: Kind::File,
    }
}

fn dir(name: &[u8]) -> Entry<'_> {
    // A directory's own size must not count.
    Entry {
        name,
        mode: 0o040_755,
        mtime_s: MTIME_S,
        size: 4096,
        kind: Kind::Dir,
    }
}

fn checksum(data: &[u8]) -> u32 {
    let mut sum = Checksum::new();
    sum.update(data);
    sum.finalize()
}

/// Makes an archive of (member, data) and checks its announced length and offsets.
fn archive(members: &[(Entry<'_>, &[u8])]) -> Vec<u8> {
    let mut layout = Layout::new();
    let mut out = Vec::new();
    for (entry, data) in members {
        assert_eq!(layout.add(entry), Ok(Offset::new(out.len() as u64)));
        entry.local_header(&mut out);
        assert_eq!(entry.has_data(), !data.is_empty());
        out.extend_from_slice(data);
        entry.descriptor(checksum(data), &mut out);
    }
    assert_eq!(layout.central_start().get(), out.len() as u64);
    assert_eq!(layout.entries_count(), members.len() as u64);
    let mut central = layout.central();
    for (entry, data) in members {
        central.entry(entry, checksum(data), &mut out);
    }
    central.end(&mut out);
    assert_eq!(layout.total_len().get(), out.len() as u64);
    out
}

/// Runs a tool that must succeed: its output, or `None` with a note if it is not installed.
fn run(tool: &str, args: &[&str]) -> Option<String> {
    let done = match Command::new(tool).args(args).output() {
        Ok(done) => done,
        Err(error) => {
            eprintln!("skipped: {tool}: {error}");
            return None;
        }
    };
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{tool} {args:?}: {}\n{output}\n{errors}",
        done.status
    );
    Some(output)
}

/// Prints one line per member: name, size, mode in octal, DOS time, then `ok` if all sums fit.
const PYTHON_LIST: &str = "
import sys, zipfile
sys.stdout.reconfigure(encoding='utf-8')
z = zipfile.ZipFile(sys.argv[1])
assert z.testzip() is None, z.testzip()
for i in z.infolist():
    print(i.filename, i.file_size, oct(i.external_attr >> 16), i.date_time, i.is_dir())
print('ok')
";

fn python(program: &str, archive: &Path) -> Option<String> {
    run("python3", &["-c", program, archive.to_str().unwrap()])
}

fn saved(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Reads every member with the `zip` crate, which checks the sums.
fn read_all(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..archive.len())
        .map(|at| {
            let mut member = archive.by_index(at).unwrap();
            let mut data = Vec::new();
            member.read_to_end(&mut data).unwrap();
            let name = member.name().unwrap().into_owned();
            (name, data)
        })
        .collect()
}

#[test]
fn three_strangers_open_an_archive() {
    let long_name = vec![b'n'; 300];
    let script = Entry {
        mode: 0o104_755,
        ..file(b"bin/run.sh", 3)
    };
    let bytes = archive(&[
        (file(b"a.txt", 5), b"hello"),
        (dir(b"empty dir"), b""),
        (file(b"empty.bin", 0), b""),
        (file("깊은/이름.txt".as_bytes(), 4), b"\0\xff\r\n"),
        (file(b"bad\xff.txt", 1), b"x"),
        (file(b"a.txt", 5), b"again"),
        (script, b"#!\n"),
        (file(&long_name, 1), b"l"),
    ]);

    let members = read_all(&bytes);
    assert_eq!(members["a.txt"], b"again");
    assert_eq!(members["empty dir/"], b"");
    assert_eq!(members["깊은/이름.txt"], b"\0\xff\r\n");
    assert_eq!(members["bad\u{fffd}.txt"], b"x");
    assert_eq!(members.len(), 7);

    let saved = saved(&bytes);
    if let Some(listed) = python(PYTHON_LIST, saved.path()) {
        let time = "(2023, 11, 14, 22, 13, 20)";
        let want = [
            format!("a.txt 5 0o100644 {time} False"),
            format!("empty dir/ 0 0o40755 {time} True"),
            format!("empty.bin 0 0o100644 {time} False"),
            format!("깊은/이름.txt 4 0o100644 {time} False"),
            format!("bad\u{fffd}.txt 1 0o100644 {time} False"),
            format!("a.txt 5 0o100644 {time} False"),
            format!("bin/run.sh 3 0o100755 {time} False"),
            format!("{} 1 0o100644 {time} False", "n".repeat(300)),
            "ok".to_owned(),
        ];
        assert_eq!(listed.lines().collect::<Vec<_>>(), want);
    }
    if let Some(tested) = run("unzip", &["-tq", saved.path().to_str().unwrap()]) {
        assert!(tested.contains("No errors detected"), "{tested}");
    }
}

#[test]
fn the_root_of_an_empty_directory_is_one_member() {
    let bytes = archive(&[(dir(b"."), b"")]);
    assert_eq!(read_all(&bytes).into_keys().collect::<Vec<_>>(), ["./"]);
}

#[test]
fn an_archive_without_members_is_22_bytes() {
    let bytes = archive(&[]);
    assert_eq!(bytes.len(), 22);
    assert!(read_all(&bytes).is_empty());
    if let Some(listed) = python(PYTHON_LIST, saved(&bytes).path()) {
        assert_eq!(listed.trim(), "ok");
    }
}

#[test]
fn empty_members_need_no_descriptor() {
    let flags = |entry: Entry<'_>| {
        let mut out = Vec::new();
        entry.local_header(&mut out);
        let header_len = out.len();
        entry.descriptor(7, &mut out);
        (u16::from_le_bytes([out[6], out[7]]), out.len() - header_len)
    };
    assert_eq!(flags(file(b"a", 0)), (0, 0));
    assert_eq!(flags(dir(b"a")), (0, 0));
    assert_eq!(flags(file(b"a", 1)), (0x0008, 16));
    assert_eq!(flags(file("ä".as_bytes(), 1)), (0x0808, 16));
    assert_eq!(flags(file(b"\xff", 0)), (0x0800, 0));
    assert_eq!(flags(file(b"a", 0xffff_fffe)), (0x0008, 16));
    assert_eq!(flags(file(b"a", 0xffff_ffff)), (0x0008, 24));
}

#[track_caller]
fn check_dos_time(mtime_s: i64, date: u16, time: u16) {
    let entry = Entry {
        mtime_s,
        ..file(b"a", 0)
    };
    let mut out = Vec::new();
    entry.local_header(&mut out);
    let field = |at: usize| u16::from_le_bytes([out[at], out[at + 1]]);
    assert_eq!((field(12), field(10)), (date, time), "{mtime_s}");
}

#[test]
fn times_are_clamped_to_what_a_header_can_say() {
    let first = 1 << 5 | 1;
    let last = 127 << 9 | 12 << 5 | 31;
    check_dos_time(315_532_800, first, 0);
    check_dos_time(315_532_799, first, 0);
    check_dos_time(0, first, 0);
    check_dos_time(i64::MIN, first, 0);
    check_dos_time(4_354_819_198, last, 23 << 11 | 59 << 5 | 29);
    check_dos_time(i64::MAX, last, 23 << 11 | 59 << 5 | 29);
    check_dos_time(MTIME_S + 1, 43 << 9 | 11 << 5 | 14, 22 << 11 | 13 << 5 | 10);
    let far = Entry {
        mtime_s: i64::MAX,
        ..file(b"a", 1)
    };
    assert_eq!(read_all(&archive(&[(far, b"x")]))["a"], b"x");
}

#[track_caller]
fn check_refused(name: &[u8], want: ZipError) {
    let mut layout = Layout::new();
    assert_eq!(
        layout.add(&file(name, 0)),
        Err(want),
        "{:?}",
        String::from_utf8_lossy(name)
    );
    assert_eq!(layout, Layout::new(), "a refused member is not counted");
}

#[test]
fn names_that_lead_out_or_do_not_fit_are_refused() {
    for name in ["", "/", "/a", "..", "../a", "a/..", "a/../b"] {
        check_refused(name.as_bytes(), ZipError::NameUnsafe);
    }
    check_refused(&[b'n'; 65_536], ZipError::NameTooLong);
    // Three bytes for each that cannot be read.
    check_refused(&[0xff; 21_846], ZipError::NameTooLong);
    let mut layout = Layout::new();
    assert!(layout.add(&file(&[b'n'; 65_535], 0)).is_ok());
    assert_eq!(
        layout.add(&dir(&[b'n'; 65_535])),
        Err(ZipError::NameTooLong)
    );
    for name in ["a..", "..a", "...", "a//b", "a\\..\\b"] {
        assert!(layout.add(&file(name.as_bytes(), 0)).is_ok(), "{name}");
    }
}

#[test]
fn more_members_than_the_old_format_counts() {
    let names: Vec<String> = (0..70_000).map(|number| format!("d/{number}")).collect();
    for (count, zip64) in [
        (65_534, false),
        (65_535, true),
        (65_536, true),
        (70_000, true),
    ] {
        let members: Vec<_> = names[..count]
            .iter()
            .map(|name| (file(name.as_bytes(), 1), &b"x"[..]))
            .collect();
        let bytes = archive(&members);
        let locator = &bytes[bytes.len() - 42..bytes.len() - 38];
        assert_eq!(locator == b"PK\x06\x07", zip64, "{count}");
        let opened = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
        assert_eq!(opened.len(), count);
        if count == 70_000 {
            let saved = saved(&bytes);
            let program = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
                           assert z.testzip() is None; print(len(z.namelist()))";
            if let Some(counted) = python(program, saved.path()) {
                assert_eq!(counted.trim(), "70000");
            }
            run("unzip", &["-tqq", saved.path().to_str().unwrap()]);
        }
    }
}

/// The checksum of so many zero bytes, without reading them.
fn checksum_of_zeros(len: u64) -> u32 {
    let mut block = Checksum::new();
    block.update(&[0]);
    let mut sum = Checksum::new();
    let mut left = len;
    // `block` doubles: the binary digits of `len` say which powers of two make it up.
    while left != 0 {
        if left & 1 == 1 {
            sum.combine(&block);
        }
        let copy = block.clone();
        block.combine(&copy);
        left >>= 1;
    }
    sum.finalize()
}

/// Writes an archive whose members are zeros, as holes.
fn write_sparse(members: &[Entry<'_>], out: &mut File) -> std::io::Result<()> {
    let mut layout = Layout::new();
    let mut frame = Vec::new();
    for entry in members {
        let offset = layout.add(entry).unwrap();
        assert_eq!(out.stream_position()?, offset.get());
        frame.clear();
        entry.local_header(&mut frame);
        out.write_all(&frame)?;
        out.seek(SeekFrom::Current(entry.data_len() as i64))?;
        frame.clear();
        entry.descriptor(checksum_of_zeros(entry.data_len()), &mut frame);
        out.write_all(&frame)?;
    }
    frame.clear();
    let mut central = layout.central();
    for entry in members {
        central.entry(entry, checksum_of_zeros(entry.data_len()), &mut frame);
    }
    central.end(&mut frame);
    out.write_all(&frame)?;
    assert_eq!(out.stream_position()?, layout.total_len().get());
    Ok(())
}

#[test]
fn members_and_offsets_beyond_4_gib() {
    assert_eq!(checksum_of_zeros(1000), checksum(&[0; 1000]));
    let members = [
        file(b"small", 10),
        file(b"just below", 0xffff_fffe),
        file(b"at the border", 0xffff_ffff),
        file(b"large", 5 * GIB),
        file(b"after", 10),
        dir(b"last"),
    ];
    let mut saved = tempfile::NamedTempFile::new().unwrap();
    if let Err(error) = write_sparse(&members, saved.as_file_mut()) {
        eprintln!("skipped: no sparse files of 13 GiB here: {error}");
        return;
    }
    let mut opened = zip::ZipArchive::new(File::open(saved.path()).unwrap()).unwrap();
    for (at, want) in members.iter().take(5).enumerate() {
        assert_eq!(opened.by_index(at).unwrap().size(), want.size);
    }
    for name in ["small", "after"] {
        let mut data = Vec::new();
        opened
            .by_name(name)
            .unwrap()
            .read_to_end(&mut data)
            .unwrap();
        assert_eq!(data, [0; 10]);
    }
    let program = "
import sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
print([(i.filename, i.file_size) for i in z.infolist()])
assert z.read('after') == bytes(10)
with z.open('large') as f:
    assert f.read(4096) == bytes(4096)
";
    if let Some(listed) = python(program, saved.path()) {
        assert_eq!(
            listed.trim(),
            "[('small', 10), ('just below', 4294967294), ('at the border', 4294967295), \
             ('large', 5368709120), ('after', 10), ('last/', 0)]"
        );
    }
    // The names leave out the large ones: reading 13 GiB of zeros takes a minute.
    run(
        "unzip",
        &["-tq", saved.path().to_str().unwrap(), "small", "after"],
    );
}

#[test]
fn lengths_never_overflow() {
    let mut layout = Layout::new();
    assert_eq!(layout.add(&file(b"a", u64::MAX)), Err(ZipError::TooLarge));
    assert_eq!(layout.add(&file(b"a", u64::MAX - 1000)), Ok(Offset::ZERO));
    let before = layout;
    assert_eq!(layout.add(&file(b"b", 900)), Err(ZipError::TooLarge));
    assert_eq!(layout, before);
    assert!(u64::MAX - 1000 < layout.total_len().get());
}

#[test]
fn a_million_members_cost_no_memory() {
    let mut layout = Layout::new();
    for number in 0..1_000_000_u64 {
        let name = format!("{number:07}");
        layout.add(&file(name.as_bytes(), 5 * GIB)).unwrap();
    }
    // 30 + 7 + 20 + 9 in front, 24 behind; 46 + 7 + 28 + 9 in the directory, 8 less for the
    // first, whose offset is small; 98 at the end.
    let each = 66 + 5 * GIB + 24 + 90;
    assert_eq!(layout.total_len().get(), 1_000_000 * each - 8 + 98);
    assert!(size_of::<Layout>() <= 24);
}

/// Members with random names and data; names may collide, as in an archive of a list.
fn any_member() -> impl Strategy<Value = (Vec<u8>, bool, u32, i64, Vec<u8>)> {
    let name = prop_oneof![
        prop::collection::vec(any::<u8>().prop_filter("no NUL", |byte| *byte != 0), 1..20),
        "[a-z가-힣/ ]{1,12}".prop_map(String::into_bytes),
    ];
    let data = prop::collection::vec(any::<u8>(), 0..50);
    (name, any::<bool>(), any::<u32>(), any::<i64>(), data)
}

proptest! {
    // Nothing is written beside the sources: a failing case is printed, and belongs in a table.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_archives_are_opened(members in prop::collection::vec(any_member(), 0..8)) {
        let members: Vec<(Entry<'_>, &[u8])> = members
            .iter()
            .map(|(name, is_dir, mode, mtime_s, data)| {
                let kind = if *is_dir { Kind::Dir } else { Kind::File };
                let data: &[u8] = if *is_dir { b"" } else { data };
                let (mode, mtime_s, size) = (*mode, *mtime_s, data.len() as u64);
                let entry = Entry { name, mode, mtime_s, size, kind };
                (entry, data)
            })
            .filter(|(entry, _)| Layout::new().add(entry).is_ok())
            .collect();
        let bytes = archive(&members);
        let mut want = BTreeMap::new();
        for (entry, data) in &members {
            let slash = if entry.kind == Kind::Dir { "/" } else { "" };
            let name = format!("{}{slash}", String::from_utf8_lossy(entry.name));
            want.insert(name, data.to_vec());
        }
        prop_assert_eq!(read_all(&bytes), want);
    }
}
