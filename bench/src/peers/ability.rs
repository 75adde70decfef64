//! What a peer can do, as a table: one line per thing that a workload can ask for.

use crate::peer::Reason;
use crate::workload::{Kind, Load, Protocol, PutWay, Workload};

/// Whether it can, or why not.
pub type Able = Result<(), &'static str>;

/// What a peer can do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Read a file, whole and in parts.
    pub get: Able,
    /// Write a file in one request.
    pub put_whole: Able,
    /// Write a file in requests that follow each other.
    pub put_chunks: Able,
    /// Write parts of a file at the same time.
    pub put_parts: Able,
    /// Give a directory as a zip archive.
    pub zip: Able,
    /// Give a directory as a tar archive.
    pub tar: Able,
    /// Encrypt.
    pub tls: Able,
    /// HTTP/2 by prior knowledge, without encryption.
    pub h2_plain: Able,
    /// HTTP/2 by ALPN.
    pub h2_tls: Able,
}

impl Abilities {
    /// Whether all of a workload can be done.
    ///
    /// # Errors
    /// The first thing that cannot.
    pub fn check(&self, workload: &Workload) -> Result<(), Reason> {
        let protocol = match (workload.protocol, workload.tls) {
            (Protocol::Http1, false) => Ok(()),
            (Protocol::Http1, true) => self.tls,
            (Protocol::H2, false) => self.h2_plain,
            (Protocol::H2, true) => self.h2_tls,
        };
        let mut all = std::iter::once(protocol).chain(workload.load.iter().map(|l| self.load(l)));
        all.try_for_each(|able| able).map_err(Reason::new)
    }

    fn load(&self, load: &Load) -> Able {
        match (load.kind, load.way) {
            (Kind::Idle, _) => Ok(()),
            (Kind::Get | Kind::Stalled, _) => self.get,
            (Kind::Put, PutWay::Whole) => self.put_whole,
            (Kind::Put, PutWay::Chunks | PutWay::FreshChunks) => self.put_chunks,
            (Kind::Put, PutWay::Parts) => self.put_parts,
            (Kind::Zip, _) => self.zip,
            (Kind::Tar, _) => self.tar,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Abilities = Abilities {
        get: Ok(()),
        put_whole: Ok(()),
        put_chunks: Err("no chunks"),
        put_parts: Err("no parts"),
        zip: Err("no zip"),
        tar: Err("no tar"),
        tls: Err("no tls"),
        h2_plain: Err("no h2"),
        h2_tls: Ok(()),
    };

    #[track_caller]
    fn check(head: &str, load: &str, want: Result<(), &str>) {
        let text = format!(
            "about = \"x\"\nmeasure = \"bytes\"\nseconds = 1.0\n{head}\n[[load]]\n{load}\n\
             connections = 1\nfiles = {{ count = 1, bytes = \"1MiB\" }}\n"
        );
        let workload = Workload::parse("some", &text).expect("a workload");
        let got = SOME.check(&workload).map_err(|reason| reason.0);
        assert_eq!(got, want.map_err(str::to_owned), "{head} {load}");
    }

    #[test]
    fn the_first_thing_that_cannot_be_done_is_named() {
        check("", "kind = \"get\"", Ok(()));
        check("", "kind = \"stalled\"", Ok(()));
        check("", "kind = \"idle\"", Ok(()));
        check("", "kind = \"put\"", Ok(()));
        for way in ["chunks", "fresh-chunks"] {
            let load = format!("kind = \"put\"\nchunk = \"1MiB\"\nway = \"{way}\"");
            check("", &load, Err("no chunks"));
        }
        let parts = "kind = \"put\"\nway = \"parts\"\nparts = 4";
        check("", parts, Err("no parts"));
        check("", "kind = \"zip\"", Err("no zip"));
        check("", "kind = \"tar\"", Err("no tar"));
        check("tls = true", "kind = \"get\"", Err("no tls"));
        check("protocol = \"h2\"", "kind = \"get\"", Err("no h2"));
        check("protocol = \"h2\"\ntls = true", "kind = \"get\"", Ok(()));
    }
}
