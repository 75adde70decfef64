//! Pipes for splicing, pooled per thread.
//!
//! A splice moves page references, not bytes; how many fit into the pipe decides its speed.
//! Law: a pipe that goes back to the pool is empty.
//!
//! Source: splice(2), pipe(7) (`/proc/sys/fs/pipe-max-size`, per-user soft limit).

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with};

use crate::Gauges;
use crate::engine::FileRef;

/// Bytes that a pipe should hold: 1 MiB moves a span in the fewest steps, and it is what an
/// ordinary user may have (`fs.pipe-max-size`).
pub const PIPE_BYTES: usize = 1024 * 1024;

/// One pipe, leased from [`Pipes`].
#[derive(Debug)]
pub struct Pipe {
    ends: Option<(FileRef, FileRef)>,
    capacity: usize,
    /// Bytes inside.
    held: usize,
    pool: Rc<Shared>,
}

/// The pipes of one thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pipes(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    free: RefCell<Vec<(FileRef, FileRef, usize)>>,
    keep: usize,
    gauges: Arc<Gauges>,
}

impl Pipes {
    /// A pool that keeps up to `keep` idle pipes.
    pub fn new(keep: usize, gauges: Arc<Gauges>) -> Self {
        Self(Rc::new(Shared {
            free: RefCell::new(Vec::new()),
            keep,
            gauges,
        }))
    }

    /// An empty pipe.
    ///
    /// # Errors
    /// Out of descriptors or out of the user's pipe pages: fall back to reading.
    pub fn take(&self) -> io::Result<Pipe> {
        let reused = self.0.free.borrow_mut().pop();
        let (reader, writer, capacity) = match reused {
            Some(ends) => ends,
            None => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // An unprivileged user over the soft limit keeps the default of 64 KiB.
                let capacity = fcntl_setpipe_size(&writer, PIPE_BYTES).unwrap_or(64 * 1024);
                (Arc::new(reader), Arc::new(writer), capacity)
            }
        };
        self.0.gauges.pipes_in_use.add(1);
        Ok(Pipe {
            ends: Some((reader, writer)),
            capacity,
            held: 0,
            pool: Rc::clone(&self.0),
        })
    }
}

impl Pipe {
    /// Bytes that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes inside.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The end that takes bytes, for [`crate::Ring::splice_in`].
    pub fn writer(&self) -> &FileRef {
        &self
            .ends
            .as_ref()
            .expect("a pipe has its ends until it is dropped")
            .1
    }

    fn reader(&self) -> &FileRef {
        &self
            .ends
            .as_ref()
            .expect("a pipe has its ends until it is dropped")
            .0
    }

    /// Notes that `n` bytes went in.
    pub fn filled(&mut self, n: usize) {
        self.held += n;
    }

    /// Moves bytes of a cached file in, on this thread. Only for ranges that are in the page
    /// cache: it waits for the disk otherwise.
    ///
    /// # Errors
    /// As splice(2) says; EINVAL where the file system can not splice.
    pub fn splice_in_now(&mut self, file: &FileRef, at: u64, len: usize) -> io::Result<usize> {
        let mut at = at;
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = rustix::pipe::splice(file, Some(&mut at), self.writer(), None, len, flags)?;
        self.held += count;
        Ok(count)
    }

    /// Moves bytes out into a socket. The socket must be O_NONBLOCK, or a slow client holds the
    /// thread. `more` says that something follows at once.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full; anything else ends the connection.
    pub fn splice_out_now(&mut self, socket: impl AsFd, more: bool) -> io::Result<usize> {
        let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        if more {
            flags |= SpliceFlags::MORE;
        }
        let count = rustix::pipe::splice(self.reader(), None, socket, None, self.held, flags)?;
        assert!(count <= self.held);
        self.held -= count;
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pool.gauges.pipes_in_use.sub(1);
        let Some((reader, writer)) = self.ends.take() else {
            return;
        };
        // A splice of the ring may still write into a pipe whose transfer was dropped: its slot
        // then holds the writing end too.
        let idle = self.held == 0 && Arc::strong_count(&writer) == 1;
        let mut free = self.pool.free.borrow_mut();
        if idle && free.len() < self.pool.keep {
            free.push((reader, writer, self.capacity));
        }
    }
}
