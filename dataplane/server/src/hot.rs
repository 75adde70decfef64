//! Downloads that were asked for lately: tokens already verified, files already open.
//!
//! What a hit saves: signature and claims of the token, the lookup of vfolder and file, and the
//! texts of the answer's head. What it never saves: the expiry of the token, and one statx(2)
//! that says whether the name still leads to the same, unchanged file.
//!
//! Laws
//! - Bytes are never stale: they are read from the inode that the name leads to right now.
//! - A new snapshot (volumes, secrets) empties it.
//! - What nobody asks for again closes within two periods of [`AGE_PERIOD`]: a deleted file keeps
//!   its space, and a volume stays busy, no longer than that.
//! - Only files that open without waiting (local file systems) are kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_anchor::{Stat, VolumeRoot};
use proxy_core::relpath::RelPath;
use proxy_ring::FileRef;

use crate::download::Told;
use crate::metrics::ThreadMetrics;
use crate::snapshot::Snapshot;
use crate::story::About;

/// How long an entry lives that nobody asks for: one to two of these.
pub(crate) const AGE_PERIOD: Duration = Duration::from_secs(5);

/// One file, as one query asked for it.
pub(crate) struct Entry {
    /// The raw query, token included.
    query: Box<str>,
    /// Unix seconds after which the token is dead.
    pub(crate) exp: u64,
    pub(crate) root: VolumeRoot,
    pub(crate) about: About,
    pub(crate) path: RelPath,
    pub(crate) file: FileRef,
    pub(crate) stat: Stat,
    pub(crate) told: Told,
}

impl Entry {
    /// Whether the token is alive and the name leads to the same, unchanged file.
    fn holds(&self, now_unix_s: u64) -> bool {
        now_unix_s < self.exp
            && self
                .root
                .is_unchanged(&self.about.vfid, &self.path, &self.stat)
    }
}

/// What one thread remembers.
pub(crate) struct Hot {
    inner: RefCell<Inner>,
    entries_max: usize,
    metrics: Arc<ThreadMetrics>,
}

#[derive(Default)]
struct Inner {
    /// Under which the entries were made.
    snapshot: Option<Arc<Snapshot>>,
    /// Asked for in this period, by [`key`].
    young: HashMap<u64, Rc<Entry>>,
    /// Asked for in the last one.
    old: HashMap<u64, Rc<Entry>>,
}

impl Hot {
    /// Remembers up to `entries_max` downloads; zero is none.
    pub(crate) fn new(entries_max: usize, metrics: Arc<ThreadMetrics>) -> Self {
        Self {
            inner: RefCell::default(),
            entries_max,
            metrics,
        }
    }

    /// The entry of a query, if it still holds.
    pub(crate) fn find(
        &self,
        snapshot: &Snapshot,
        query: &str,
        now_unix_s: u64,
    ) -> Option<Rc<Entry>> {
        let mut inner = self.inner.borrow_mut();
        let current = inner.snapshot.as_ref();
        if !current.is_some_and(|current| std::ptr::eq(&**current, snapshot)) {
            return None;
        }
        let key = key(query);
        let (entry, is_young) = match inner.young.get(&key) {
            Some(entry) => (Rc::clone(entry), true),
            None => (Rc::clone(inner.old.get(&key)?), false),
        };
        if *entry.query != *query {
            return None;
        }
        if !entry.holds(now_unix_s) {
            inner.young.remove(&key);
            inner.old.remove(&key);
            self.count(&inner);
            return None;
        }
        if !is_young {
            inner.old.remove(&key);
            inner.young.insert(key, Rc::clone(&entry));
        }
        self.metrics.hot_hits.add(1);
        Some(entry)
    }

    /// Whether one more is remembered: what is there stays until nobody asks for it any more.
    /// Making room for newcomers would only churn where more files are in use than fit.
    pub(crate) fn has_room(&self) -> bool {
        let inner = self.inner.borrow();
        inner.young.len() + inner.old.len() < self.entries_max
    }

    /// Remembers an entry, under the snapshot that it was answered by, if there is room.
    pub(crate) fn keep(&self, snapshot: &Arc<Snapshot>, entry: Rc<Entry>) {
        if !self.has_room() {
            return;
        }
        let mut inner = self.inner.borrow_mut();
        if !inner
            .snapshot
            .as_ref()
            .is_some_and(|s| Arc::ptr_eq(s, snapshot))
        {
            *inner = Inner {
                snapshot: Some(Arc::clone(snapshot)),
                ..Inner::default()
            };
        }
        let key = key(&entry.query);
        inner.old.remove(&key);
        inner.young.insert(key, entry);
        debug_assert!(inner.young.len() + inner.old.len() <= self.entries_max);
        self.count(&inner);
    }

    /// Forgets everything: descriptors are needed for something else.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.borrow_mut();
        *inner = Inner::default();
        self.count(&inner);
    }

    fn count(&self, inner: &Inner) {
        let entries = inner.young.len() + inner.old.len();
        self.metrics.hot_files.set(entries as u64);
    }

    /// Ends a period: forgets what nobody asked for since the last one ended.
    pub(crate) fn age(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.old = std::mem::take(&mut inner.young);
        if inner.old.is_empty() {
            *inner = Inner::default();
        }
        self.count(&inner);
    }
}

impl Entry {
    /// An entry for `query`.
    pub(crate) fn new(
        query: &str,
        exp: u64,
        place: (VolumeRoot, About, RelPath),
        opened: (FileRef, Stat),
        told: Told,
    ) -> Self {
        let (root, about, path) = place;
        let (file, stat) = opened;
        Self {
            query: query.into(),
            exp,
            root,
            about,
            path,
            file,
            stat,
            told,
        }
    }
}

/// The last eight bytes of the first parameter, where clients put the token: the end of its
/// signature is as random as any hash. Only genuine tokens get this far, so nobody can choose
/// keys that collide.
fn key(query: &str) -> u64 {
    let first = query.split('&').next().unwrap_or(query).as_bytes();
    let tail = &first[first.len().saturating_sub(8)..];
    let mut key = [0; 8];
    key[..tail.len()].copy_from_slice(tail);
    u64::from_le_bytes(key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proxy_core::id::VFolderId;
    use proxy_core::token::Secret;
    use proxy_core::units::ByteLen;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::snapshot::Limits;

    const FOLDER: &str =
        "user:11111111-2222-3333-4444-555555555555/0123456789abcdef0123456789abcdef";

    fn snapshot() -> Arc<Snapshot> {
        Arc::new(Snapshot {
            volumes: HashMap::new(),
            secret: Secret::new("a secret"),
            upload_size_max: ByteLen::new(1),
            archives: Arc::new(Semaphore::new(1)),
            limits: Limits::default(),
        })
    }

    struct Place {
        root: VolumeRoot,
        vfid: VFolderId,
        _home: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let vfid = VFolderId::parse(FOLDER).unwrap();
            let dir = home.path().join(vfid.components().join("/"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("f"), "content").unwrap();
            Self {
                root: VolumeRoot::open(home.path()).unwrap(),
                vfid,
                _home: home,
            }
        }

        fn entry(&self, query: &str, exp: u64) -> Rc<Entry> {
            let path = RelPath::parse("f").unwrap();
            let opened = self.root.open_file_cached(&self.vfid, &path).unwrap();
            let told = Told::new(&opened.stat, &path, false);
            let vfid = self.vfid;
            let place = (self.root.clone(), About { volume: 0, vfid }, path);
            let opened = (Arc::new(opened.fd), opened.stat);
            Rc::new(Entry::new(query, exp, place, opened, told))
        }
    }

    #[test]
    fn a_token_is_dead_when_its_time_has_come() {
        let (place, snapshot) = (Place::new(), snapshot());
        let hot = Hot::new(8, Arc::default());
        hot.keep(&snapshot, place.entry("token=abc", 100));
        for (now, is_there) in [(0, true), (99, true), (100, false), (99, false)] {
            let found = hot.find(&snapshot, "token=abc", now);
            assert_eq!(found.is_some(), is_there, "at {now}");
        }
    }

    #[test]
    fn only_the_same_query_under_the_same_snapshot_is_found() {
        let (place, first, second) = (Place::new(), snapshot(), snapshot());
        let hot = Hot::new(8, Arc::default());
        hot.keep(&first, place.entry("token=0.12345678", 100));
        for (snapshot, query, is_there) in [
            (&first, "token=0.12345678", true),
            (&first, "token=1.12345678", false),
            (&first, "token=0.12345678&no_cache=1", false),
            (&second, "token=0.12345678", false),
        ] {
            let found = hot.find(snapshot, query, 0);
            assert_eq!(found.is_some(), is_there, "{query}");
        }
        hot.keep(&second, place.entry("token=2", 100));
        assert!(hot.find(&first, "token=0.12345678", 0).is_none());
    }

    #[test]
    fn the_number_is_bounded_and_old_entries_close() {
        let (place, snapshot) = (Place::new(), snapshot());
        let metrics = Arc::<ThreadMetrics>::default();
        let hot = Hot::new(8, Arc::clone(&metrics));
        let entries: Vec<_> = (0..40)
            .map(|n| place.entry(&format!("token={n}"), 100))
            .collect();
        for entry in &entries {
            hot.keep(&snapshot, Rc::clone(entry));
            assert!(metrics.hot_files.value() <= 8);
        }
        let held = |entry: &Rc<Entry>| Rc::strong_count(entry) > 1;
        assert!(entries[..8].iter().all(held), "what is there stays");
        assert!(!entries[8..].iter().any(held));
        hot.age();
        assert!(hot.find(&snapshot, "token=3", 0).is_some());
        hot.age();
        assert_eq!(metrics.hot_files.value(), 1, "what was asked for stays");
        hot.keep(&snapshot, Rc::clone(&entries[20]));
        assert!(held(&entries[20]), "there is room again");
        hot.clear();
        assert_eq!(metrics.hot_files.value(), 0);
        assert!(entries.iter().all(|entry| !held(entry)));
        let none = Hot::new(0, Arc::default());
        none.keep(&snapshot, place.entry("token=1", 100));
        assert!(none.find(&snapshot, "token=1", 0).is_none());
    }
}
