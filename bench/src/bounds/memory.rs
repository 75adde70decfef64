//! Memory and the loopback device: what one core can move.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use proxy_ring::measure::set_receive_low_water;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice};

use super::{GIB, LOOP, on, rate};

/// Larger than any cache.
const COPIED: usize = 256 << 20;
/// What is sent again and again: fits into the page cache of any machine.
const SENT: usize = 64 << 20;
const PIPE: usize = 1 << 20;
/// A client that discards wakes only for this much: else it measures its own wake-ups.
const LOW_WATER: u32 = 256 << 10;

/// One core copies memory to memory, GiB/s.
///
/// # Errors
/// There is no such core.
pub fn copy(cores: &[usize]) -> io::Result<f64> {
    on(cores, || {
        // Not zeroes: those would all be one page.
        let from = vec![2; COPIED];
        let mut to = vec![1; COPIED];
        let bytes = rate(|| {
            to.copy_from_slice(std::hint::black_box(&from));
            std::hint::black_box(&mut to);
            Ok(COPIED as u64)
        })?;
        Ok(bytes / GIB)
    })
}

/// One core splices a cached file through a pipe into a loopback socket; another core discards
/// what it receives. GiB/s.
///
/// # Errors
/// The system refuses a file, a socket or a core.
pub fn loopback(dir: &Path, sender: &[usize], receiver: &[usize]) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(dir)?;
    file.write_all(&vec![1; SENT])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    set_receive_low_water(&client, LOW_WATER)?;
    std::thread::scope(|scope| {
        let discarded = scope.spawn(|| on(receiver, || discard(&client)));
        let sent = on(sender, move || send(&file, server));
        let discarded = discarded
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the receiver panicked")));
        sent.and(discarded)
    })
}

fn send(file: &File, socket: TcpStream) -> io::Result<()> {
    let (out, into) = pipe()?;
    fcntl_setpipe_size(&into, PIPE)?;
    let started = Instant::now();
    while started.elapsed() < LOOP {
        let mut at = 0;
        while at < SENT as u64 {
            let len = splice(file, Some(&mut at), &into, None, PIPE, SpliceFlags::MOVE)?;
            let mut left = len;
            while 0 < left {
                let flags = SpliceFlags::MOVE | SpliceFlags::MORE;
                left -= splice(&out, None, &socket, None, left, flags)?;
            }
        }
    }
    Ok(())
}

fn discard(socket: &TcpStream) -> io::Result<f64> {
    // MSG_TRUNC writes nothing into it: it only says how much may go.
    let mut buffer = vec![0; 1 << 20];
    let started = Instant::now();
    let mut bytes = 0_u64;
    loop {
        let (_, len) = recv(socket, &mut buffer, RecvFlags::TRUNC)?;
        if len == 0 {
            return Ok(bytes as f64 / GIB / started.elapsed().as_secs_f64());
        }
        bytes += len as u64;
    }
}
