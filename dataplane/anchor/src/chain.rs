//! The directories between a base and the place where a walk stands, as descriptors.
//!
//! Laws
//! - Every directory was opened by its one name below the directory before it, never through
//!   a link and never by `..`: the way back is the descriptor that we came from.
//! - At most `HELD_MAX` descriptors are kept, however long the path: older ones are opened
//!   again, in the same way, if the walk comes back to them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::sys;

/// Longer than any path people use; a path of 4096 bytes can have 2047 components.
const HELD_MAX: usize = 64;

#[derive(Debug)]
struct Held {
    name: Vec<u8>,
    /// `None` once `HELD_MAX` later ones were pushed.
    fd: Option<OwnedFd>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    base: BorrowedFd<'a>,
    held: Vec<Held>,
}

impl<'a> Chain<'a> {
    pub(crate) fn new(base: BorrowedFd<'a>) -> Self {
        Self {
            base,
            held: Vec::new(),
        }
    }

    /// The directory where the walk stands. The newest one is always held.
    pub(crate) fn top(&self) -> BorrowedFd<'_> {
        let Some(last) = self.held.last() else {
            return self.base;
        };
        // Falling back to the base here would make a wrong place of it without a word.
        let fd = last.fd.as_ref().expect("pop opens the newest one again");
        fd.as_fd()
    }

    pub(crate) fn into_top(mut self) -> Option<OwnedFd> {
        self.held.pop().and_then(|last| last.fd)
    }

    pub(crate) fn is_at_base(&self) -> bool {
        self.held.is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.held.iter().map(|held| held.name.as_slice())
    }

    /// The base and every directory that is still held, from the base down.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let held = self
            .held
            .iter()
            .filter_map(|held| held.fd.as_ref().map(AsFd::as_fd));
        std::iter::once(self.base).chain(held)
    }

    /// Steps into `fd`, the directory called `name` in the top.
    pub(crate) fn push(&mut self, name: Vec<u8>, fd: OwnedFd) {
        self.held.push(Held { name, fd: Some(fd) });
        if let Some(old) = self.held.len().checked_sub(HELD_MAX + 1) {
            self.held[old].fd = None;
        }
    }

    /// Steps back. `false` at the base: there is nowhere to go.
    pub(crate) fn pop(&mut self) -> Result<bool, Errno> {
        if self.held.pop().is_none() {
            return Ok(false);
        }
        if self.held.last().is_some_and(|last| last.fd.is_none()) {
            self.open_again()?;
        }
        Ok(true)
    }

    /// Steps back to the base.
    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }

    fn open_again(&mut self) -> Result<(), Errno> {
        let names: Vec<Vec<u8>> = self.held.drain(..).map(|held| held.name).collect();
        for name in names {
            let fd = sys::open(self.top(), &name, sys::DIR_HANDLE | OFlags::NOFOLLOW)?;
            self.push(name, fd);
        }
        assert!(self.held.last().is_none_or(|last| last.fd.is_some()));
        Ok(())
    }
}
