//! The data directory: secrets, lock, state, the `local` volume, and what clients must know.
//!
//! Laws
//! - Nothing in it is readable by others: directories 0700, files 0600, from their first moment.
//! - A secret is made once, written whole, and then only read. One that others can read is refused,
//!   because it may be known already.
//! - One server at a time: the lock is held by the kernel and ends with the process.
//!
//! ```text
//! lock             held while a server runs; its process id
//! control.sock     where a successor asks to take over
//! runtime.json     addresses of the running server, for the client commands
//! secrets/         token-secret, manager-secret
//! state.redb       upload sessions and tasks
//! volumes/local/   the volume `local`
//! client/          names of folders, unfinished transfers
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proxy_core::config::Document;
use proxy_core::token::Secret;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::settings::Secrets;

/// Bytes of a secret: as many as the hash that signs with it.
const SECRET_BYTES: usize = 32;

/// A data directory that exists.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// Held while a server runs.
#[derive(Debug)]
pub struct Lock {
    /// The kernel drops the lock with the descriptor.
    _file: File,
}

/// Addresses of a running server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// URL of the client port.
    pub client: String,
    /// URL of the manager port.
    pub manager: String,
    /// URL of the internal port.
    pub internal: String,
}

impl DataDir {
    /// The directory, made with mode 0700 if it is not there. An existing one keeps its mode: it
    /// may be a mount point that others have to pass.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        private_dir(path)?;
        Ok(Self(path.to_owned()))
    }

    /// The directory as it stands, for reading.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes the lock, or says who has it.
    pub fn lock(&self) -> Result<Lock, Failure> {
        let path = self.join("lock");
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let mut file = opened.map_err(|error| Failure::at("open", &path, &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                // Who it is only makes the message better.
                let _ = file.read_to_string(&mut owner);
                return Err(Failure::new(format!(
                    "data directory {} is in use by process {}; stop it, or choose another with \
                     --data-dir",
                    self.0.display(),
                    owner.trim()
                )));
            }
            Err(error) => return Err(Failure::at("lock", &path, &error.into())),
        }
        let written = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| Failure::at("write", &path, &error))?;
        Ok(Lock { _file: file })
    }

    /// The secrets of the configuration; those it lacks are read, and made on first start.
    pub fn secrets(&self, document: &Document) -> Result<Secrets, Failure> {
        private_dir(&self.join("secrets"))?;
        let secret = |key: &str, name: &str| match document.text(key, &[]) {
            Some(text) => Ok(Secret::new(text)),
            None => self.made_once(name),
        };
        Ok(Secrets {
            token: secret("storage-proxy.secret", "token-secret")?,
            manager: secret("api.manager.secret", "manager-secret")?,
        })
    }

    fn made_once(&self, name: &str) -> Result<Secret, Failure> {
        let path = self.join("secrets").join(name);
        match read_secret(&path) {
            Err(Unreadable::Missing) => {}
            Err(Unreadable::Failed(failure)) => return Err(failure),
            Ok(secret) => return Ok(secret),
        }
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| Failure::new(format!("no random numbers: {error}")))?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&path, text.as_bytes())?;
        Ok(Secret::new(text))
    }

    /// The secret that the manager port of a server with this configuration wants.
    pub fn manager_secret(&self, document: &Document) -> Result<Secret, Failure> {
        if let Some(text) = document.text("api.manager.secret", &[]) {
            return Ok(Secret::new(text));
        }
        let path = self.join("secrets/manager-secret");
        read_secret(&path).map_err(|why| match why {
            Unreadable::Failed(failure) => failure,
            Unreadable::Missing => Failure::new(format!(
                "no server has run on data directory {} yet; start one with: storage-proxy serve",
                self.0.display()
            )),
        })
    }

    /// Tells client commands where the server listens.
    pub fn write_runtime(&self, runtime: &Runtime) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(runtime)
            .map_err(|error| Failure::new(format!("runtime.json: {error}")))?;
        write_private(&self.join("runtime.json"), &text)
    }

    /// Where a running server listens; `None` when it left no word.
    pub fn runtime(&self) -> Option<Runtime> {
        serde_json::from_slice(&fs::read(self.join("runtime.json")).ok()?).ok()
    }

    /// Takes the word back, unless a successor has given its own.
    pub fn remove_runtime(&self) {
        let is_own = |word: &Runtime| word.pid == std::process::id();
        if !self.runtime().as_ref().is_some_and(is_own) {
            return;
        }
        // Client commands then use the configured addresses, which is what a missing file means.
        let _ = fs::remove_file(self.join("runtime.json"));
    }
}

enum Unreadable {
    Missing,
    Failed(Failure),
}

fn read_secret(path: &Path) -> Result<Secret, Unreadable> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unreadable::Missing),
        Err(error) => return Err(Unreadable::Failed(Failure::at("read", path, &error))),
    };
    let failed = |text: String| Err(Unreadable::Failed(Failure::new(text)));
    let mut text = String::new();
    let read = file
        .metadata()
        .and_then(|found| file.read_to_string(&mut text).map(|_| found));
    let found = match read {
        Ok(found) => found,
        Err(error) => return Err(Unreadable::Failed(Failure::at("read", path, &error))),
    };
    let (path, mode) = (path.display(), found.mode() & 0o777);
    if mode & 0o077 != 0 {
        return failed(format!(
            "secret {path} has mode {mode:03o}, so others may know it: remove the file to get a \
             new secret, or chmod 600 it if you are sure"
        ));
    }
    match text.trim() {
        "" => failed(format!(
            "secret {path} is empty: remove the file to get a new secret"
        )),
        text => Ok(Secret::new(text)),
    }
}

/// A directory of mode 0700, parents included, or the one that is there.
pub fn private_dir(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::at("create directory", path, &error))
}

/// A file of mode 0600 that is there whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Failure::at("write", path, &error)
    })
}

#[cfg(test)]
#[path = "datadir_tests.rs"]
mod tests;
