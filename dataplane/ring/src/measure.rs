//! What a measuring client needs of the kernel and `rustix` does not have.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Lets a socket count as readable only from `bytes` on (SO_RCVLOWAT, socket(7)).
///
/// Without it a client that discards is woken for every segment, and measures its own wake-ups.
///
/// # Errors
/// As setsockopt(2) says.
pub fn set_receive_low_water(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let len = mem::size_of_val(&value) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `len` bytes from `value`, which lives until the call returns; the
    // descriptor is borrowed for the call. Broken by: a `len` that is not the size of `value`.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// No process has this number or a larger one (PID_MAX_LIMIT, proc_pid(5)).
const PID_MAX: u32 = 1 << 22;

/// User and system time that a process has used, with all threads that it ever had, to the
/// nanosecond: `/proc/<pid>/stat` counts in hundredths of a second.
///
/// # Errors
/// When there is no such process.
pub fn process_cpu(pid: u32) -> io::Result<Duration> {
    // A clock's name has 29 bits for the process; a larger number would name another one.
    if PID_MAX <= pid {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    let pid = pid as libc::pid_t;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the kernel's C library writes one `clockid_t` to `clock`, which lives until the
    // call returns. Broken by: a pointer to anything smaller.
    let result = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one `timespec` to `time`, which lives until the call returns.
    // Broken by: a pointer to anything smaller.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_process_that_works_has_used_time() {
        let before = process_cpu(std::process::id()).expect("our own process");
        let mut after = before;
        while after < before + Duration::from_millis(5) {
            after = process_cpu(std::process::id()).expect("our own process");
        }
        assert!(process_cpu(PID_MAX).is_err());
    }

    #[test]
    fn a_socket_with_a_low_water_mark_still_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("open");
        let (mut server, _) = listener.accept().expect("a connection");
        set_receive_low_water(&client, 256 * 1024).expect("a socket option");
        server.write_all(b"x").expect("sent");
        set_receive_low_water(&client, 1).expect("a socket option");
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).expect("received"), 1);
    }
}
