//! A vfolder on the disk of the test: made directly, so that the product's own creation is
//! not needed to test everything else.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::server::{Server, TOKEN_SECRET, VOLUME};
use crate::token;

/// One vfolder of [`VOLUME`]: its name on the wire and its place on the disk.
#[derive(Clone, Debug)]
pub struct Folder {
    /// `user:<uuid>/<32 hex>`.
    pub vfid: String,
    /// `user:<uuid>`.
    pub qsid: String,
    /// The directory.
    pub path: PathBuf,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Folder {
    /// A name that no other folder of this process has, with nothing on the disk.
    #[must_use]
    pub fn unmade(server: &Server) -> Self {
        Self::unmade_in(server, VOLUME)
    }

    /// As [`Self::unmade`], on a given volume.
    #[must_use]
    pub fn unmade_in(server: &Server, volume: &str) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let scope = format!("11111111-2222-3333-4444-{n:012x}");
        let hex = format!(
            "{:02x}{:02x}ccddeeff00112233445566{n:06x}",
            n % 251,
            n % 241
        );
        let path = server
            .volume(volume)
            .join(scope.replace('-', ""))
            .join(&hex[..2])
            .join(&hex[2..4])
            .join(&hex[4..]);
        let qsid = format!("user:{scope}");
        Self {
            vfid: format!("{qsid}/{hex}"),
            qsid,
            path,
        }
    }

    /// An empty folder.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    #[track_caller]
    pub fn empty(server: &Server) -> Self {
        let folder = Self::unmade(server);
        std::fs::create_dir_all(&folder.path).expect("a folder on the test's disk");
        folder
    }

    /// A folder with one of everything:
    /// `a.txt` (hello), `hundred` (100 bytes), `none` (empty), `d1/x.txt`, `d1/sub/y.txt`,
    /// `empty/`, `한글/파일.txt`, links that stay inside (`in` → a.txt, `in_dir` → d1,
    /// `in_abs` → the absolute path of a.txt, `up_in` = d1/up → ../a.txt), links that do not
    /// (`out` → a file outside, `out_dir`, `out_rel`), `dangling`, `loop`, and `fifo`.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    #[track_caller]
    pub fn full(server: &Server) -> Self {
        let folder = Self::empty(server);
        let at = |name: &str| folder.path.join(name);
        let outside = server.outside();
        std::fs::create_dir_all(outside.join("dir")).expect("outside");
        std::fs::write(outside.join("secret"), SECRET).expect("outside");
        std::fs::write(outside.join("dir/secret"), SECRET).expect("outside");
        for dir in ["d1/sub", "empty", "한글"] {
            std::fs::create_dir_all(at(dir)).expect("a directory");
        }
        let hundred: Vec<u8> = (0..100).collect();
        let files: [(&str, &[u8]); 6] = [
            ("a.txt", b"hello"),
            ("hundred", &hundred),
            ("none", b""),
            ("d1/x.txt", b"x marks the spot"),
            ("d1/sub/y.txt", b"why"),
            ("한글/파일.txt", "내용".as_bytes()),
        ];
        for (name, content) in files {
            std::fs::write(at(name), content).expect("a file");
        }
        let up = "../".repeat(folder.path.components().count());
        let links = [
            ("in", "a.txt".to_owned()),
            ("in_dir", "d1".to_owned()),
            ("in_abs", at("a.txt").display().to_string()),
            ("d1/up", "../a.txt".to_owned()),
            ("out", outside.join("secret").display().to_string()),
            ("out_dir", outside.join("dir").display().to_string()),
            (
                "out_rel",
                format!("{up}{}", outside.join("secret").display()),
            ),
            ("dangling", "nowhere".to_owned()),
            ("loop", "loop".to_owned()),
        ];
        for (name, target) in links {
            symlink(target, at(name)).expect("a link");
        }
        make_fifo(&at("fifo"));
        folder
    }

    /// Where a name of this folder lies.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file, with the directories above it.
    ///
    /// # Panics
    /// When the disk refuses.
    #[track_caller]
    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("beneath the folder")).expect("parents");
        std::fs::write(path, content).expect("a file on the test's disk");
    }

    /// Names under `.upload`, sorted; empty when it is not there.
    #[must_use]
    pub fn staged(&self) -> Vec<String> {
        names(&self.at(".upload"))
    }

    /// A download token of the test's own making.
    #[must_use]
    pub fn download_token(&self, relpath: &str) -> String {
        token::mint(TOKEN_SECRET, &self.download_claims(relpath))
    }

    /// The claims of a download token.
    #[must_use]
    pub fn download_claims(&self, relpath: &str) -> Value {
        json!({
            "op": "download", "volume": VOLUME, "vfid": self.vfid, "relpath": relpath,
            "exp": token::now() + 3600,
        })
    }

    /// The claims of an upload token.
    #[must_use]
    pub fn upload_claims(&self, relpath: &str, size: u64, session: &str) -> Value {
        json!({
            "op": "upload", "volume": VOLUME, "vfid": self.vfid, "relpath": relpath,
            "size": size, "session": session, "exp": token::now() + 3600,
        })
    }

    /// The claims of an archive token.
    #[must_use]
    pub fn archive_claims(&self, files: &[&str]) -> Value {
        json!({
            "operation": "download", "volume": VOLUME, "virtual_folder_id": self.vfid,
            "files": files, "filename": null, "exp": token::now() + 3600,
        })
    }
}

/// What stands in every file outside: it must never come over the wire.
pub const SECRET: &str = "outside-secret-8c1f";

/// Makes a FIFO.
///
/// # Panics
/// When the disk refuses.
#[track_caller]
pub fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a fifo");
}

/// The names in a directory, sorted; empty when there is none.
#[must_use]
pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A tree as text, one line per entry with kind and content: two trees are equal when their
/// texts are.
#[must_use]
pub fn picture(dir: &Path) -> String {
    let mut out = String::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for name in names(&dir) {
            let path = dir.join(&name);
            let Ok(meta) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            let what = if meta.is_symlink() {
                format!(
                    "-> {}",
                    std::fs::read_link(&path).unwrap_or_default().display()
                )
            } else if meta.is_dir() {
                todo.push(path.clone());
                "dir".to_owned()
            } else if meta.is_file() {
                format!("file {:?}", std::fs::read(&path).unwrap_or_default())
            } else {
                "special".to_owned()
            };
            // Escaped, so that an entry is one line whatever its name is.
            out.push_str(&format!(
                "{} {what}\n",
                path.to_string_lossy().escape_debug()
            ));
        }
    }
    out
}
