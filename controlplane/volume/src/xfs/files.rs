//! `/etc/projects` and `/etc/projid`: which project is which directory, for people and their
//! tools. The file system knows without them.
//!
//! Laws
//! - Lines of others stay as they are, comments and odd ones too; a line of ours is known by the
//!   whole of its name or path.
//! - A file is replaced as a whole, durably, and keeps its mode.
//!
//! Source: projects(5), projid(5).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The two files, in one directory.
pub(super) struct ProjectFiles {
    dir: PathBuf,
}

/// What is to stand in the files about one scope.
pub(super) struct Row<'a> {
    /// The name of its directory, which is the name of the project.
    pub(super) name: &'a str,
    /// Where the directory lies.
    pub(super) path: &'a Path,
    /// Its number; `None`: nothing is to stand there.
    pub(super) project: Option<u32>,
}

/// Numbers that stand in the files.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// The number of the name that was asked for.
    pub(super) own: Option<u32>,
    /// All others.
    pub(super) all: BTreeSet<u32>,
}

impl ProjectFiles {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// What stands in the files; nothing where they cannot be read.
    pub(super) fn ids(&self, name: &str) -> Ids {
        let mut ids = Ids::default();
        for line in self.read("projid").lines() {
            match line.split_once(':').map(|(n, id)| (n, id.trim().parse())) {
                Some((found, Ok(id))) if found == name && id != 0 => ids.own = Some(id),
                Some((_, Ok(id))) => _ = ids.all.insert(id),
                _ => {}
            }
        }
        for line in self.read("projects").lines() {
            let id = line.split_once(':').map(|(id, _)| id.trim().parse());
            if let Some(Ok(id)) = id {
                ids.all.insert(id);
            }
        }
        ids
    }

    /// Writes what is to stand in the files.
    ///
    /// # Errors
    /// Those of the system; a file is as it was then.
    pub(super) fn record(&self, row: Row<'_>) -> io::Result<()> {
        let path = row.path.display().to_string();
        let about_path = |line: &str| line.split_once(':').is_some_and(|(_, found)| found == path);
        let about_name = |line: &str| {
            line.split_once(':')
                .is_some_and(|(found, _)| found == row.name)
        };
        let line = row.project.map(|project| format!("{project}:{path}"));
        self.replace("projects", about_path, line)?;
        let line = row.project.map(|project| format!("{}:{project}", row.name));
        self.replace("projid", about_name, line)
    }

    fn read(&self, file: &str) -> String {
        let bytes = fs::read(self.dir.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn replace(
        &self,
        file: &str,
        is_ours: impl Fn(&str) -> bool,
        line: Option<String>,
    ) -> io::Result<()> {
        let path = self.dir.join(file);
        let old = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            old => old?,
        };
        let old = String::from_utf8(old)
            .map_err(|_| io::Error::other(format!("{file} is not text, and stays as it is")))?;
        let kept = old.lines().filter(|line| !is_ours(line));
        let mut new: String = kept.flat_map(|line| [line, "\n"]).collect();
        if let Some(line) = line {
            new.push_str(&line);
            new.push('\n');
        }
        if new == old {
            return Ok(());
        }
        let mode = fs::metadata(&path).map_or(0o644, |known| known.permissions().mode());
        let beside = self.dir.join(format!(".{file}.new"));
        let _ = fs::remove_file(&beside);
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)
            .and_then(|mut to| {
                to.write_all(new.as_bytes())?;
                to.sync_all()?;
                fs::rename(&beside, &path)
            });
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = ProjectFiles::new(dir.path().to_owned());
        let row = |project| Row {
            name: "aa11",
            path: Path::new("/vol/aa11"),
            project,
        };
        assert_eq!(files.ids("aa11").own, None);
        files.record(row(None)).unwrap();
        assert!(!at("projid").exists(), "nothing to say, nothing made");
        let others = "# people's own\n7:/vol/aa11b\nodd";
        fs::write(at("projects"), others).unwrap();
        fs::write(at("projid"), "aa11b:7\naa1:9\n").unwrap();
        files.record(row(Some(8))).unwrap();
        files.record(row(Some(8))).unwrap();
        let text = |name: &str| fs::read_to_string(at(name)).unwrap();
        assert_eq!(text("projects"), format!("{others}\n8:/vol/aa11\n"));
        assert_eq!(text("projid"), "aa11b:7\naa1:9\naa11:8\n");
        let ids = files.ids("aa11");
        assert_eq!(ids.own, Some(8));
        assert_eq!(ids.all.into_iter().collect::<Vec<_>>(), [7, 8, 9]);
        files.record(row(None)).unwrap();
        assert_eq!(text("projects"), format!("{others}\n"));
        assert_eq!(text("projid"), "aa11b:7\naa1:9\n");
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["projects", "projid"]);
    }
}
