//! Whether an archive holds the files of a set, byte for byte.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use crate::content::Pattern;
use crate::fixture::{FileId, Fixture};
use crate::workload::ArchiveKind;

/// Read at a time.
const ROOM_BYTES: usize = 64 * 1024;
/// Unit of a tar archive (POSIX.1-2017, pax).
const TAR_BLOCK_BYTES: usize = 512;

/// Compares every member with what it should be.
///
/// # Errors
/// What is wrong or missing.
pub fn verify(
    mut archive: File,
    kind: ArchiveKind,
    fixture: &Fixture,
    files: &[FileId],
) -> Result<(), String> {
    archive
        .seek(SeekFrom::Start(0))
        .map_err(|error| error.to_string())?;
    let mut members = Members {
        wanted: files
            .iter()
            .map(|id| (last(&fixture.file(*id).name).to_owned(), *id))
            .collect(),
        fixture,
    };
    match kind {
        ArchiveKind::Zip => unzip(archive, &mut members)?,
        ArchiveKind::Tar => untar(&mut io::BufReader::new(archive), &mut members)?,
    }
    match members.wanted.keys().next() {
        Some(name) => Err(format!("not in the archive: {name}")),
        None => Ok(()),
    }
}

/// The files that have not been seen yet.
struct Members<'a> {
    /// By the last part of their names.
    wanted: HashMap<String, FileId>,
    fixture: &'a Fixture,
}

impl Members<'_> {
    fn check(&mut self, name: &str, size: u64, from: &mut dyn Read) -> Result<(), String> {
        let id = self
            .wanted
            .remove(last(name))
            .ok_or_else(|| format!("unexpected: {name}"))?;
        let file = self.fixture.file(id);
        if size != file.bytes {
            return Err(format!("{name}: {size} bytes instead of {}", file.bytes));
        }
        let pattern = Pattern::of(&file.name);
        let mut room = vec![0; ROOM_BYTES];
        let mut at = 0;
        while at < size {
            let len = room
                .len()
                .min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let count = from
                .read(&mut room[..len])
                .map_err(|error| format!("{name}: {error}"))?;
            if count == 0 {
                return Err(format!("{name}: cut off at {at}"));
            }
            if let Some(place) = pattern.mismatch(at, &room[..count]) {
                return Err(format!("{name}: wrong byte at {place}"));
            }
            at += count as u64;
        }
        Ok(())
    }
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn unzip(archive: File, members: &mut Members<'_>) -> Result<(), String> {
    let mut archive = zip::ZipArchive::new(archive).map_err(|error| error.to_string())?;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(|error| error.to_string())?;
        if member.is_dir() {
            continue;
        }
        let name = member
            .name()
            .map_err(|error| error.to_string())?
            .into_owned();
        let size = member.size();
        members.check(&name, size, &mut member)?;
        // The checksum is compared at the end of the member, which must therefore be read.
        io::copy(&mut member, &mut io::sink()).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn untar(from: &mut dyn Read, members: &mut Members<'_>) -> Result<(), String> {
    let mut block = [0; TAR_BLOCK_BYTES];
    loop {
        from.read_exact(&mut block)
            .map_err(|error| format!("tar: {error}"))?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let size = octal(&block[124..136])?;
        let padding = size.next_multiple_of(TAR_BLOCK_BYTES as u64) - size;
        let mut skip = padding;
        match block[156] {
            b'0' | 0 => members.check(&text(&block[..100]), size, from)?,
            _ => skip += size,
        }
        let skipped = io::copy(&mut from.take(skip), &mut io::sink());
        if skipped.map_err(|error| format!("tar: {error}"))? != skip {
            return Err("tar: cut off".to_owned());
        }
    }
}

fn text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn octal(field: &[u8]) -> Result<u64, String> {
    let digits = text(field);
    let number = u64::from_str_radix(digits.trim(), 8);
    number.map_err(|_| format!("tar: size {digits}"))
}
