//! Which vfolders a volume holds, read off its directories.
//!
//! Only names that a vfolder can have are followed: hidden trees and foreign files are not
//! seen.

use proxy_core::id::{QuotaScopeId, VFolderId};

use crate::dir::{Dir, FileKind};
use crate::error::Result;
use crate::volume::VolumeRoot;

/// See [`VolumeRoot::vfolders`].
#[derive(Debug)]
pub struct VFolders {
    levels: Vec<FolderLevel>,
    start: Option<VolumeRoot>,
}

#[derive(Debug)]
struct FolderLevel {
    dir: Dir,
    names: Vec<String>,
    scope: Option<QuotaScopeId>,
    /// Hex digits of the folder so far: 0, 2 or 4.
    hex: String,
}

impl VFolders {
    pub(crate) fn of(volume: &VolumeRoot) -> Self {
        Self {
            levels: Vec::new(),
            start: Some(volume.clone()),
        }
    }

    fn enter(&mut self, mut dir: Dir, scope: Option<QuotaScopeId>, hex: String) -> Result<()> {
        let mut names = Vec::new();
        for entry in dir.entries() {
            let entry = entry?;
            let Ok(name) = entry.name.into_string() else {
                continue;
            };
            let fits = match hex.len() {
                0 => is_hex(&name, 2) || (scope.is_none() && is_hex(&name, 32)),
                2 => is_hex(&name, 2),
                _ => is_hex(&name, 28),
            };
            if fits && matches!(entry.kind, FileKind::Dir | FileKind::Unknown) {
                names.push(name);
            }
        }
        self.levels.push(FolderLevel {
            dir,
            names,
            scope,
            hex,
        });
        Ok(())
    }

    /// Goes down into `name`, or answers it when it is a vfolder.
    fn visit(&mut self, name: &str) -> Result<Option<VFolderId>> {
        let Some(level) = self.levels.last() else {
            return Ok(None);
        };
        let dir = match level.dir.open_dir(std::ffi::OsStr::new(name)) {
            Err(error) if error.is_not_found() => return Ok(None),
            dir => dir?,
        };
        let (scope, hex) = (level.scope, format!("{}{name}", level.hex));
        match name.len() {
            28 => Ok(vfolder_id(scope.as_ref(), &hex)),
            32 => self
                .enter(dir, scope_of(name), String::new())
                .map(|()| None),
            _ => self.enter(dir, scope, hex).map(|()| None),
        }
    }
}

impl Iterator for VFolders {
    type Item = Result<VFolderId>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(volume) = self.start.take() {
            let entered = volume
                .open_scope(None)
                .and_then(|dir| self.enter(dir, None, String::new()));
            if let Err(error) = entered {
                return Some(Err(error));
            }
        }
        loop {
            let Some(name) = self.levels.last_mut()?.names.pop() else {
                self.levels.pop();
                continue;
            };
            match self.visit(&name).transpose() {
                None => {}
                answer => return answer,
            }
        }
    }
}

fn is_hex(name: &str, digits: usize) -> bool {
    name.len() == digits
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn scope_of(name: &str) -> Option<QuotaScopeId> {
    is_hex(name, 32)
        .then(|| QuotaScopeId::parse(&format!("user:{name}")).ok())
        .flatten()
}

pub(crate) fn vfolder_id(scope: Option<&QuotaScopeId>, folder: &str) -> Option<VFolderId> {
    match scope {
        Some(scope) => VFolderId::parse(&format!("{scope}/{folder}")).ok(),
        None => VFolderId::parse(folder).ok(),
    }
}
