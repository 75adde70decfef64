//! Entries of a directory or of a whole tree, page by page: each page says where the next begins.
//!
//! Laws
//! - A page is made from what is on disk when it is asked for; nothing is kept between two pages.
//!   What is there all the time is on exactly one page; what comes and goes may be on one.
//! - Memory is bounded by the length of a page and the depth of the tree, not by the number of
//!   entries.
//! - Links are entries; they are never followed into.
//!
//! In order of names, a tree is listed as paths compare, component by component: a directory,
//! then what is in it. As they come, entries of one directory are listed in its own order, which
//! costs least.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proxy_anchor::{Dir, VFolderRoot};
use proxy_core::relpath::RelPath;
use rustix::io::Errno;

use crate::error::{In, VolumeError};
use crate::listing::{Entry, EntryType, look};

/// Entries of one page at most.
pub const PAGE_LEN_MAX: usize = 10_000;
/// Levels below the asked directory that are entered; each costs a descriptor.
const DEPTH_MAX: usize = 256;

/// What page is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageWish {
    /// The directory.
    pub dir: RelPath,
    /// How entries are ordered, and how deep they are looked for.
    pub order: Order,
    /// Entries at most; 1..=[`PAGE_LEN_MAX`].
    pub len_max: usize,
    /// Where the page before ended, as it said; `None` for the first.
    pub cursor: Option<String>,
}

/// How entries are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the directory has them.
    Raw,
    /// By name, bytes compared.
    Name,
    /// By path, with everything below.
    Tree,
}

/// Some entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Each with its path below the asked directory.
    pub entries: Vec<(String, Entry)>,
    /// Where the next page begins; `None` when this is the last one.
    pub next: Option<String>,
}

/// A cursor that no page gave.
const NO_CURSOR: VolumeError = VolumeError::Refused("the cursor is none that a page gave");

/// Makes one page.
///
/// # Errors
/// Those of the directory; [`VolumeError::Refused`] for a cursor that no page gave.
pub(crate) fn page(folder: &VFolderRoot, wish: &PageWish) -> Result<Page, VolumeError> {
    let here = In(*folder.id(), &wish.dir);
    let dir = folder
        .open_dir(&wish.dir)
        .map_err(|error| here.err(error))?;
    let len_max = wish.len_max.clamp(1, PAGE_LEN_MAX);
    match wish.order {
        Order::Raw => raw(folder, &dir, wish.cursor.as_deref(), len_max),
        Order::Name | Order::Tree => {
            let after = match &wish.cursor {
                None => Vec::new(),
                Some(text) => {
                    let path = text.strip_prefix('p').ok_or(NO_CURSOR)?;
                    let path = URL_SAFE_NO_PAD.decode(path).map_err(|_| NO_CURSOR)?;
                    path.split(|byte| *byte == b'/')
                        .map(<[u8]>::to_vec)
                        .collect()
                }
            };
            let deep = wish.order == Order::Tree;
            Sorted::new(folder, len_max, deep).page(dir, &after)
        }
    }
}

fn raw(
    folder: &VFolderRoot,
    dir: &Dir,
    cursor: Option<&str>,
    len_max: usize,
) -> Result<Page, VolumeError> {
    let mut position = match cursor {
        None => 0,
        Some(text) => {
            let number = text.strip_prefix('o').and_then(|text| text.parse().ok());
            number.ok_or(NO_CURSOR)?
        }
    };
    let mut page = Page::default();
    let mut buffer = Vec::new();
    let mut more = true;
    while more && page.entries.len() < len_max {
        let mut failed = None;
        more = dir.read_batch_at(position, &mut buffer, |name, behind| {
            if page.entries.len() == len_max || failed.is_some() {
                return;
            }
            position = behind;
            match look(folder, dir, name) {
                Ok(Some(entry)) => page.entries.push((entry.name.clone(), entry)),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    let is_full = page.entries.len() == len_max;
    page.next = (more || is_full).then(|| format!("o{position}"));
    Ok(page)
}

/// One directory on the way.
struct Level {
    dir: Dir,
    /// Its path below the start, and a slash; empty for the start.
    path: Vec<u8>,
    /// What is still to be listed here, the next one last.
    waiting: Vec<(OsString, Entry)>,
    /// The last name that was taken, when more was there than fits on a page.
    cut_at: Option<OsString>,
}

struct Sorted<'a> {
    folder: &'a VFolderRoot,
    len_max: usize,
    deep: bool,
    page: Page,
    /// Path up to which everything is listed.
    last: Vec<u8>,
}

impl<'a> Sorted<'a> {
    fn new(folder: &'a VFolderRoot, len_max: usize, deep: bool) -> Self {
        Self {
            folder,
            len_max,
            deep,
            page: Page::default(),
            last: Vec::new(),
        }
    }

    /// Fills the page with what comes behind the path `after`.
    fn page(self, start: Dir, after: &[Vec<u8>]) -> Result<Page, VolumeError> {
        let mut stack = vec![self.level(start, Vec::new(), after.first())?];
        if self.deep {
            // Down to where the page before ended: what is behind it there comes first.
            for (depth, name) in after.iter().enumerate().take(DEPTH_MAX) {
                let Some(top) = stack.last() else { break };
                let Some(below) = self.enter(top, OsStr::from_bytes(name), after.get(depth + 1))?
                else {
                    break;
                };
                stack.push(below);
            }
        }
        self.fill(stack)
    }

    fn fill(mut self, mut stack: Vec<Level>) -> Result<Page, VolumeError> {
        let mut is_cut = false;
        while let Some(top) = stack.last_mut() {
            if self.page.entries.len() == self.len_max {
                let has_more = |level: &Level| !level.waiting.is_empty() || level.cut_at.is_some();
                is_cut = stack.iter().any(has_more);
                break;
            }
            let Some((name, entry)) = top.waiting.pop() else {
                if let Some(name) = &top.cut_at {
                    self.last = joined(&top.path, name);
                    is_cut = true;
                    break;
                }
                stack.pop();
                continue;
            };
            self.last = joined(&top.path, &name);
            let is_dir = entry.kind == EntryType::Directory;
            let shown = String::from_utf8_lossy(&self.last).into_owned();
            self.page.entries.push((shown, entry));
            if self.deep && is_dir && stack.len() <= DEPTH_MAX {
                let below = match stack.last() {
                    Some(top) => self.enter(top, &name, None)?,
                    None => None,
                };
                stack.extend(below);
            }
        }
        if is_cut {
            self.page.next = Some(format!("p{}", URL_SAFE_NO_PAD.encode(&self.last)));
        }
        Ok(self.page)
    }

    /// The sub-directory `name`; `None` when it can not be entered.
    fn enter(
        &self,
        level: &Level,
        name: &OsStr,
        after: Option<&Vec<u8>>,
    ) -> Result<Option<Level>, VolumeError> {
        let mut path = joined(&level.path, name);
        path.push(b'/');
        match level.dir.open_dir(name).map_err(VolumeError::from) {
            Ok(dir) => self.level(dir, path, after).map(Some),
            Err(error) => match error.errno() {
                Some(
                    Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::LOOP
                    | Errno::ACCESS
                    | Errno::PERM
                    | Errno::STALE,
                ) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Reads the names of `dir` behind `after`, as many as fit on a page.
    fn level(
        &self,
        dir: Dir,
        path: Vec<u8>,
        after: Option<&Vec<u8>>,
    ) -> Result<Level, VolumeError> {
        let mut smallest: BinaryHeap<OsString> = BinaryHeap::new();
        let mut is_cut = false;
        let mut buffer = Vec::new();
        let mut more = true;
        while more {
            more = dir.read_batch(&mut buffer, |name, _, _| {
                if after.is_some_and(|after| name.as_bytes() <= after.as_slice()) {
                    return;
                }
                if smallest.len() < self.len_max {
                    smallest.push(name.to_owned());
                    return;
                }
                is_cut = true;
                if smallest.peek().is_some_and(|largest| name < largest) {
                    smallest.pop();
                    smallest.push(name.to_owned());
                }
            })?;
        }
        let names = smallest.into_sorted_vec();
        let cut_at = if is_cut { names.last().cloned() } else { None };
        let mut waiting = Vec::new();
        for name in names.into_iter().rev() {
            if let Some(entry) = look(self.folder, &dir, &name)? {
                waiting.push((name, entry));
            }
        }
        Ok(Level {
            dir,
            path,
            waiting,
            cut_at,
        })
    }
}

fn joined(path: &[u8], name: &OsStr) -> Vec<u8> {
    [path, name.as_bytes()].concat()
}
