//! What is said over the socket: frames of JSON behind four bytes of length.
//!
//! Laws
//! - Every request has a number, and its answer has the same one: answers may come in any order.
//! - A frame is at most [`FRAME_BYTES_MAX`]; a longer one ends the connection.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest frame: a path, a location and a list of options fit many times over.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Nothing; says that the other side is alive.
    Ping,
    /// Mounts, unless something is mounted there; the mount point is made, its parents are not.
    Mount {
        /// Where.
        target: PathBuf,
        /// What: `host:/path`, a device, a directory to bind.
        location: String,
        /// File system type.
        fs_type: String,
        /// Options as mount(8) takes them.
        #[serde(default)]
        options: Option<String>,
        /// Also write it into the mount table.
        #[serde(default)]
        edit_fstab: bool,
        /// Which one; must be the configured one.
        #[serde(default)]
        fstab: Option<PathBuf>,
    },
    /// Unmounts, if something is mounted there.
    Umount {
        /// Where.
        target: PathBuf,
        /// Also take it out of the mount table.
        #[serde(default)]
        edit_fstab: bool,
        /// Which one; must be the configured one.
        #[serde(default)]
        fstab: Option<PathBuf>,
    },
    /// Gives a path, not what is below it, to the service's user.
    Chown {
        /// Which.
        target: PathBuf,
        /// Must be the service's.
        uid: u32,
        /// Must be the service's.
        gid: u32,
    },
    /// Tells what a project uses and may use, as [`Told`].
    ProjectQuota {
        /// The path of a volume with project quotas.
        target: PathBuf,
        /// Which.
        project: u32,
    },
    /// Tells of the first project from this number on that the file system knows, as [`Told`].
    NextProjectQuota {
        /// The path of a volume with project quotas.
        target: PathBuf,
        /// From which on.
        project: u32,
    },
    /// Holds a project to so many bytes; 0 lifts the limit.
    SetProjectLimit {
        /// The path of a volume with project quotas.
        target: PathBuf,
        /// Which; never 0, which is everything that is in no project.
        project: u32,
        /// Its limit.
        limit_bytes: u64,
    },
    /// Removes a file, or a directory with all that is in it. A missing one is fine.
    DeletePath {
        /// Which.
        target: PathBuf,
    },
}

/// What the kernel says of project quotas: the text of an answer, as JSON. A job that it refused
/// is done as well: with its error number here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Why not.
    #[serde(default)]
    pub errno: Option<i32>,
    /// Project, used bytes and limit.
    #[serde(default)]
    pub quota: Option<(u32, u64, u64)>,
}

/// A job with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the answer.
    pub id: u64,
    /// How long it may take.
    pub time_limit_ms: u64,
    /// What to do.
    #[serde(flatten)]
    pub task: Task,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the request.
    pub id: u64,
    /// Whether it is done.
    pub done: bool,
    /// Why not, or something worth knowing; often empty.
    #[serde(default)]
    pub text: String,
    /// What was in use; trying again may help.
    #[serde(default)]
    pub busy: bool,
}

/// Writes one frame.
///
/// # Errors
/// The stream's, and a frame that is too long.
pub fn write_frame(mut to: impl Write, value: &impl Serialize) -> io::Result<()> {
    to.write_all(&frame(value)?)
}

/// A value as one frame.
///
/// # Errors
/// The frame would be too long.
pub fn frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value)?;
    if FRAME_BYTES_MAX < body.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    Ok(frame)
}

/// Reads one frame; `None` when the stream ends before it.
///
/// # Errors
/// The stream's, and a frame that is too long or cut.
pub fn read_frame(mut from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = length_of(length)?;
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(body))
}

/// The length that a head announces.
///
/// # Errors
/// It is too long.
pub fn length_of(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head) as usize;
    if FRAME_BYTES_MAX < length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_way_and_long_ones_do_not() {
        let request = Request {
            id: 7,
            time_limit_ms: 1000,
            task: Task::DeletePath {
                target: "/v/a b".into(),
            },
        };
        let bytes = frame(&request).unwrap();
        let body = read_frame(&bytes[..]).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&body).unwrap(), request);
        assert!(read_frame(&bytes[..0]).unwrap().is_none());
        assert!(read_frame(&bytes[..bytes.len() - 1]).is_err());
        assert!(read_frame(&[0xff; 8][..]).is_err());
        assert!(frame(&"x".repeat(FRAME_BYTES_MAX)).is_err());
    }
}
