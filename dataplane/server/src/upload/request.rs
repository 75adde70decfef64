//! What every request about one session begins with: its token, volume, folder and target.

use std::rc::Rc;
use std::sync::Arc;

use proxy_anchor::{AnchorError, Room, VFolderRoot, VolumeRoot, staging};
use proxy_core::problem::{self, Kind, Problem};
use proxy_core::relpath::RelPath;
use proxy_core::token::UploadClaims;
use proxy_core::units::Offset;
use proxy_wire::head::RequestHead;
use proxy_wire::query::UploadParams;

use super::answer::{
    EDQUOT, invalid_target, is_full, no_room_for, no_space, refused_claim, session_not_found,
};
use super::ledger;
use crate::bridge::Known;
use crate::download::{bad_token, busy, storage_away, unavailable, volume};
use crate::names;
use crate::reply::Reply;
use crate::route;
use crate::snapshot::{Snapshot, VolumeEntry};
use crate::thread::{Thread, unix_now_s};

/// One request about one session.
pub(super) struct Request<'r> {
    pub(super) thread: &'r Rc<Thread>,
    pub(super) snapshot: &'r Snapshot,
    pub(super) volume: &'r Arc<VolumeEntry>,
    pub(super) root: VolumeRoot,
    pub(super) claims: UploadClaims,
    /// Where the file goes.
    pub(super) target: RelPath,
    /// The partial upload that it is about.
    pub(super) part: Option<u32>,
    /// The query without the number of a partial upload.
    query: String,
}

impl<'r> Request<'r> {
    pub(super) fn parse(
        thread: &'r Rc<Thread>,
        snapshot: &'r Snapshot,
        head: &RequestHead,
    ) -> Result<Self, Reply> {
        let params = UploadParams::parse(head.query.as_deref()).map_err(route::invalid)?;
        let claims = UploadClaims::verify(&snapshot.secret, &params.token, unix_now_s())
            .map_err(bad_token)?;
        let volume = volume(snapshot, &claims.volume)?;
        let root = volume.root.clone().ok_or_else(|| unavailable(volume))?;
        let target = match &params.dst_dir {
            Some(dir) => RelPath::parse(dir)
                .map_err(|_| invalid_target(&claims, "dst_dir is absolute"))?
                .join(&claims.relpath),
            None => claims.relpath.clone(),
        };
        Ok(Self {
            thread,
            snapshot,
            volume,
            root,
            claims,
            target,
            part: params.part,
            query: without_part(head.query.as_deref().unwrap_or("")),
        })
    }

    /// Where the upload is: an address relative to any that leads here.
    pub(super) fn location(&self, part: Option<u32>) -> String {
        match part {
            Some(part) => format!("/upload?{}&part={part}", self.query),
            None => format!("/upload?{}", self.query),
        }
    }

    /// Whether a token is one of this session.
    pub(super) fn is_own_token(&self, token: &str) -> bool {
        let claims = UploadClaims::verify(&self.snapshot.secret, token, unix_now_s());
        claims.is_ok_and(|claims| claims.session == self.claims.session)
    }

    /// What is on record of the session.
    pub(super) async fn look(&self) -> Result<Option<Known>, Reply> {
        let known = self.thread.setup.bridge.look(self.claims.session).await;
        known.map_err(|refusal| refused_claim(self, &refusal))
    }

    /// Makes the staging file of a session that has none and is not finished: a client creates
    /// what was there, or was taken away, before.
    pub(super) async fn begin(&self) -> Result<Option<Known>, Reply> {
        let known = self.look().await?;
        if known.as_ref().is_some_and(|known| known.finished.is_some()) {
            return Ok(known);
        }
        let durable = known.as_ref().map_or(0, |known| known.durable.prefix());
        self.has_room(durable).await?;
        let session = self.claims.session;
        let target = self.target.clone();
        let begun = self.on_folder(move |folder| {
            staging::check_target(folder, &target)?;
            match staging::create(folder, &session) {
                Err(AnchorError::Os { errno: 17, .. }) => Ok(()),
                created => created.map(drop),
            }
        });
        self.told(begun.await?).await.map(|()| known)
    }

    pub(super) fn size(&self) -> Offset {
        Offset::new(u64::try_from(self.claims.size).unwrap_or(0))
    }

    /// Runs a call on the session's folder on a thread that may wait.
    pub(super) async fn on_folder<T: Send + 'static>(
        &self,
        job: impl FnOnce(&VFolderRoot) -> Result<T, AnchorError> + Send + 'static,
    ) -> Result<Result<T, AnchorError>, Reply> {
        let (root, vfid) = (self.root.clone(), self.claims.vfid);
        let run = move || root.vfolder(&vfid).and_then(|folder| job(&folder));
        let limits = &self.snapshot.limits;
        names::run(&self.thread.setup.names, self.volume, limits, run)
            .await
            .map_err(|error| busy(error, self.volume))
    }

    /// What room there is; `None` when that cannot be known now.
    pub(super) async fn room(&self) -> Option<Room> {
        self.on_folder(VFolderRoot::room).await.ok()?.ok()
    }

    /// Refuses a body that the quota has no room for, where the file system would take it and
    /// complain later, or never.
    pub(super) async fn fits(&self, body: Option<u64>, at: Offset) -> Result<(), Reply> {
        // Of a body that does not say how long it is, a byte is known.
        let bytes = body.unwrap_or(1);
        if bytes == 0 || !self.volume.late_quota {
            return Ok(());
        }
        match self.room().await {
            Some(room) if room.refuses(bytes).is_some() => {
                Err(no_room_for(Some(bytes), EDQUOT, Some(room), Some(at)))
            }
            _ => Ok(()),
        }
    }

    /// Refuses an upload whose missing bytes the quota has no room for, before any of them is
    /// taken. `durable` bytes are there; what is laid out for others is charged already.
    async fn has_room(&self, durable: u64) -> Result<(), Reply> {
        let (session, size) = (self.claims.session, self.size().get());
        let missing = self.on_folder(move |folder| {
            let staged = staging::open(folder, &session).ok();
            let held = staged.map_or(0, |staged| ledger::allocated_bytes(&staged.fd));
            let missing = size.saturating_sub(held.max(durable));
            Ok((missing, folder.room()?))
        });
        match missing.await? {
            Ok((missing, room)) if room.refuses(missing).is_some() => {
                let at = Offset::new(durable);
                Err(no_room_for(Some(missing), EDQUOT, Some(room), Some(at)))
            }
            // What cannot be known now is told when the bytes are written.
            _ => Ok(()),
        }
    }

    /// What a call on names gave, or the answer to why not: for calls that may find no space.
    pub(super) async fn told<T>(&self, done: Result<T, AnchorError>) -> Result<T, Reply> {
        match done {
            Ok(it) => Ok(it),
            Err(AnchorError::Os { errno, .. }) if is_full(errno) => {
                Err(no_space(errno, self.room().await, None))
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    pub(super) fn log(&self, what: &str, error: &dyn std::fmt::Display) {
        tracing::error!(
            volume = self.volume.name,
            backend = self.volume.backend,
            vfolder_id = %self.claims.vfid,
            session = %self.claims.session,
            operation = "upload",
            %error,
            "{what}"
        );
    }

    /// The answer to a name that is refused.
    pub(super) fn refused(&self, error: &AnchorError) -> Reply {
        match error {
            AnchorError::VFolderMissing => session_not_found(),
            // Somebody removed the staging file, perhaps on another host.
            _ if error.is_not_found() && ledger::is_about_staging(error) => session_not_found(),
            AnchorError::Escapes | AnchorError::Reserved | AnchorError::InvalidName => {
                invalid_target(&self.claims, &error.to_string())
            }
            // A loop of links leads nowhere.
            AnchorError::Os { errno: 40, .. } => invalid_target(&self.claims, &error.to_string()),
            // EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, ENAMETOOLONG: something else has that name.
            AnchorError::Os {
                errno: 17 | 20 | 21 | 39 | 36,
                ..
            } => {
                let text = format!("the file can not get its name: {error}");
                Problem::new(Kind::TargetConflict).msg(text).into()
            }
            // EXDEV: known only now where the file system does not tell such directories apart.
            AnchorError::Os { errno: 18, .. } => {
                let text = "the file can not get its name: that directory has a quota of its own, \
                            or is another file system; upload to another place, and move it";
                Problem::new(Kind::TargetConflict).msg(text).into()
            }
            AnchorError::Os { errno, .. } if is_full(*errno) => no_space(*errno, None, None),
            AnchorError::Os { errno, .. } if problem::is_away(*errno) => {
                self.log("a name can not be used", error);
                storage_away(&error.to_string())
            }
            AnchorError::Os {
                errno: 1 | 13 | 30, ..
            } => Reply::from(problem::text(403, &format!("403: {error}"))),
            _ => {
                self.log("a name can not be used", error);
                problem::internal_error().into()
            }
        }
    }
}

impl Request<'_> {
    /// Whether the staged file has its name already, though no record says so: a crash came between
    /// the rename and its record, or the writer is about to make the record. Nothing is claimed
    /// for that: it would revoke the writer.
    pub(super) async fn is_published(&self, known: &Known) -> Result<bool, Reply> {
        let ((ino, dev), size) = (known.staged, known.size);
        let target = self.target.clone();
        let published = self
            .on_folder(move |folder| staging::is_published(folder, ino, dev, size, &target))
            .await?;
        Ok(published.unwrap_or(false))
    }
}

impl Request<'_> {
    /// Empty files are made with their token, before anybody can say `dst_dir`: the first request
    /// that says it moves the file there, as long as nobody has touched it.
    pub(super) async fn move_empty(&self) -> Result<(), Reply> {
        let session = self.claims.session;
        let known = self.thread.setup.bridge.look(session).await;
        let known = known.map_err(|refusal| refused_claim(self, &refusal))?;
        let Some((made, (ino, _))) = known
            .and_then(|known| Some((known.finished?.0, known.staged)))
            .filter(|(made, _)| *made != self.target)
        else {
            return Ok(());
        };
        let target = self.target.clone();
        let moved = self.on_folder(move |folder| {
            match folder.stat(&made, false) {
                Ok(stat) if stat.ino == ino && stat.size == 0 => {}
                _ => return Ok(()),
            }
            staging::check_target(folder, &target)?;
            staging::create(folder, &session)?;
            staging::publish(folder, &session, &target)?;
            folder.unlink(&made)
        });
        self.told(moved.await?).await
    }
}

impl Request<'_> {
    /// Whether there is such a session at all.
    pub(super) async fn exists(&self) -> Result<bool, Reply> {
        let session = self.claims.session;
        let known = self.thread.setup.bridge.look(session).await;
        let known = known.map_err(|refusal| refused_claim(self, &refusal))?;
        if known.is_some_and(|known| known.finished.is_some()) {
            return Ok(true);
        }
        let opened = self
            .on_folder(move |folder| staging::open(folder, &session))
            .await?;
        Ok(opened.is_ok())
    }

    /// Durable bytes of an existing session.
    pub(super) async fn offset(&self) -> Result<Offset, Reply> {
        if !self.exists().await? {
            return Err(session_not_found());
        }
        let known = self.thread.setup.bridge.look(self.claims.session).await;
        let known = known.map_err(|refusal| refused_claim(self, &refusal))?;
        Ok(known.map_or(Offset::ZERO, |known| Offset::new(known.durable.prefix())))
    }
}

fn without_part(query: &str) -> String {
    let others = query.split('&').filter(|pair| !pair.starts_with("part="));
    others.collect::<Vec<_>>().join("&")
}
