//! One connection's socket, plain or under TLS: sends without waiting, receives or discards
//! without waiting.
//!
//! Over TLS a large body that is only to be dropped is not decrypted: after the head, records are
//! walked by their lengths. The connection is of no use afterwards and is closed.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// Ciphertext that a record of TLS 1.3 has beside its content: the tag and the inner type.
const RECORD_EXTRA_BYTES: u64 = 17;
/// Type, version, length.
const RECORD_HEAD_BYTES: usize = 5;
/// Source addresses that connections to loopback take turns with: each has ports of its own.
const SOURCES: u32 = 16;

/// A socket, with TLS or without.
pub struct Wire {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Ciphertext that is not a whole record yet.
    record: Vec<u8>,
    /// Of the record that is being passed over.
    skipping: u64,
}

/// What a receiving call found.
pub enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Wait,
    /// The peer sent its end.
    End,
}

impl Wire {
    /// Begins to connect; the socket is writable when it is done. `turn` chooses the source.
    ///
    /// # Errors
    /// As connect(2) says.
    pub fn connect(to: SocketAddr, tls: Option<&Arc<ClientConfig>>, turn: u32) -> io::Result<Self> {
        let family = if to.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if to.ip() == Ipv4Addr::LOCALHOST {
            let [_, _, _, last] = (1 + turn % SOURCES).to_be_bytes();
            let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0);
            rustix::net::bind(&socket, &source)?;
        }
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let tls = match tls {
            Some(config) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let connection = ClientConnection::new(Arc::clone(config), name);
                Some(Box::new(connection.map_err(io::Error::other)?))
            }
            None => None,
        };
        Ok(Self {
            socket: TcpStream::from(socket),
            tls,
            record: Vec::new(),
            skipping: 0,
        })
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What became of the connection attempt.
    ///
    /// # Errors
    /// Refused, or no route.
    pub fn connected(&self) -> io::Result<()> {
        match sockopt::socket_error(&self.socket)? {
            Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends as much as the socket takes. `more` holds back a short segment.
    ///
    /// # Errors
    /// `WouldBlock` when it is full; under TLS also while the handshake goes on.
    pub fn send(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let mut flags = SendFlags::NOSIGNAL;
            flags.set(SendFlags::MORE, more);
            return Ok(rustix::net::send(&self.socket, bytes, flags)?);
        };
        // Plaintext is taken at once and goes out with the handshake's last flight.
        let count = tls.writer().write(bytes)?;
        flush(tls, &self.socket)?;
        Ok(count)
    }

    /// Sends from a file without copying.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full.
    pub fn send_file(&self, file: BorrowedFd<'_>, from: u64, len: u64) -> io::Result<usize> {
        let mut at = from;
        let count = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(rustix::fs::sendfile(
            &self.socket,
            file,
            Some(&mut at),
            count,
        )?)
    }

    /// Receives into `room`. Under TLS at most one record is taken from the socket, so that what
    /// follows can still be discarded.
    ///
    /// # Errors
    /// The connection broke.
    pub fn receive(&mut self, room: &mut [u8]) -> io::Result<Received> {
        let Some(tls) = &mut self.tls else {
            return receive(&self.socket, room, RecvFlags::empty());
        };
        loop {
            match tls.reader().read(room) {
                Ok(0) => return Ok(Received::End),
                Ok(count) => return Ok(Received::Bytes(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match next_record(&self.socket, &mut self.record)? {
                Received::Bytes(_) => {}
                other => return Ok(other),
            }
            let mut record = self.record.as_slice();
            while !record.is_empty() {
                tls.read_tls(&mut record)?;
                tls.process_new_packets().map_err(io::Error::other)?;
            }
            self.record.clear();
            flush(tls, &self.socket)?;
        }
    }

    /// Drops at most `limit` bytes of content in the kernel, or as ciphertext. `scratch` is room
    /// that is not looked at.
    ///
    /// # Errors
    /// The connection broke.
    pub fn discard(&mut self, limit: u64, scratch: &mut [u8]) -> io::Result<Received> {
        if self.tls.is_some() {
            return self.discard_records(scratch);
        }
        let len = scratch
            .len()
            .min(usize::try_from(limit).unwrap_or(usize::MAX));
        receive(&self.socket, &mut scratch[..len], RecvFlags::TRUNC)
    }

    /// Walks over records; counts their content.
    fn discard_records(&mut self, scratch: &mut [u8]) -> io::Result<Received> {
        let count = match receive(&self.socket, scratch, RecvFlags::empty())? {
            Received::Bytes(count) => count,
            other => return Ok(other),
        };
        let (mut at, mut content) = (0, 0);
        while at < count {
            if self.skipping > 0 {
                let here = self.skipping.min((count - at) as u64);
                at += here as usize;
                self.skipping -= here;
                continue;
            }
            let missing = RECORD_HEAD_BYTES - self.record.len();
            let here = missing.min(count - at);
            self.record.extend_from_slice(&scratch[at..at + here]);
            at += here;
            if self.record.len() == RECORD_HEAD_BYTES {
                self.skipping = u64::from(u16::from_be_bytes([self.record[3], self.record[4]]));
                content += self.skipping.saturating_sub(RECORD_EXTRA_BYTES);
                self.record.clear();
            }
        }
        Ok(Received::Bytes(content as usize))
    }
}

fn receive(socket: &TcpStream, room: &mut [u8], flags: RecvFlags) -> io::Result<Received> {
    match rustix::net::recv(socket, room, flags | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Ok(Received::End),
        Ok((_, count)) => Ok(Received::Bytes(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Wait),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads on until `record` holds one whole record.
fn next_record(socket: &TcpStream, record: &mut Vec<u8>) -> io::Result<Received> {
    loop {
        let want = if record.len() < RECORD_HEAD_BYTES {
            RECORD_HEAD_BYTES
        } else {
            RECORD_HEAD_BYTES + usize::from(u16::from_be_bytes([record[3], record[4]]))
        };
        let have = record.len();
        if RECORD_HEAD_BYTES < want && have == want {
            return Ok(Received::Bytes(have));
        }
        record.resize(want, 0);
        let received = receive(socket, &mut record[have..], RecvFlags::empty());
        let count = match received {
            Ok(Received::Bytes(count)) => count,
            _ => 0,
        };
        record.truncate(have + count);
        match received? {
            Received::Bytes(_) => {}
            other => return Ok(other),
        }
    }
}

fn flush(tls: &mut ClientConnection, socket: &TcpStream) -> io::Result<()> {
    let mut socket = socket;
    while tls.wants_write() {
        match tls.write_tls(&mut socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
