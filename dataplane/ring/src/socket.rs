//! Socket calls that never wait, made on the data-plane thread.
//!
//! Readiness comes from monoio; these calls move what is there. `MSG_DONTWAIT` keeps them from
//! waiting whatever the socket's own flag says.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::buffer::Lease;

/// Borrows the descriptor of a runtime's socket that has no `AsFd`.
pub fn borrow(socket: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `socket` lives, and the returned lifetime ends
    // before that. Broken by: a type whose `as_raw_fd` names a descriptor that it does not own.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// Receives what is there behind the filled bytes of `lease`, at most `limit` bytes.
///
/// Returns the count; zero means that the peer sent its end.
///
/// # Errors
/// `WouldBlock` when nothing is there.
pub fn recv_into(socket: BorrowedFd<'_>, lease: &mut Lease, limit: usize) -> io::Result<usize> {
    let room = limit.min(lease.spare());
    assert!(room > 0);
    let count = recv(socket, &mut lease.spare_mut()[..room])?;
    lease.advance(count);
    Ok(count)
}

/// Receives what is there into `room`.
///
/// # Errors
/// `WouldBlock` when nothing is there.
pub fn recv(socket: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *room, RecvFlags::DONTWAIT) {
            Ok((count, _)) => return Ok(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sends as much of `bytes` as the socket takes now. `more` holds back a short segment because
/// something follows at once.
///
/// # Errors
/// `WouldBlock` when the socket is full.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], more: bool) -> io::Result<usize> {
    let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if more {
        flags |= SendFlags::MORE;
    }
    loop {
        match rustix::net::send(socket, bytes, flags) {
            Ok(count) => return Ok(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether the page at `at` is in the page cache: a read of one byte that may not wait
/// (preadv2(2), RWF_NOWAIT, kernel 4.14).
///
/// File systems without that flag (NFS, FUSE) answer no.
pub fn is_cached(file: impl std::os::fd::AsFd, at: u64) -> bool {
    let mut byte = [0_u8; 1];
    let mut slices = [io::IoSliceMut::new(&mut byte)];
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    matches!(rustix::io::preadv2(file, &mut slices, at, flags), Ok(1))
}

/// Sends as much of `slices`, in order, as the socket takes now.
///
/// # Errors
/// `WouldBlock` when the socket is full.
pub fn send_vectored(socket: BorrowedFd<'_>, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut control = SendAncillaryBuffer::default();
    loop {
        match rustix::net::sendmsg(socket, slices, &mut control, flags) {
            Ok(count) => return Ok(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Tells the kernel that the file is read from front to back: it reads twice as far ahead, in large
/// folios. Advice only, nothing is read or waited for (posix_fadvise(2)).
pub fn advise_sequential(file: impl std::os::fd::AsFd) {
    // A file that takes no advice is read as ever.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
}

/// Reads cached bytes at `at` into `room` without waiting for a disk.
///
/// # Errors
/// `WouldBlock` (or `Unsupported`) when they are not in the page cache.
pub fn read_cached(file: impl std::os::fd::AsFd, room: &mut [u8], at: u64) -> io::Result<usize> {
    let mut slices = [io::IoSliceMut::new(room)];
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    Ok(rustix::io::preadv2(file, &mut slices, at, flags)?)
}
