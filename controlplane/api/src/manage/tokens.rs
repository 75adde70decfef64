//! Tokens with which clients move bytes past the Manager.
//!
//! Source: manager-facing API 5.6 to 5.8; contract 6.

use std::time::{SystemTime, UNIX_EPOCH};

use proxy_core::extent::Extents;
use proxy_core::grammar::{self, Check, failure};
use proxy_core::id::SessionId;
use proxy_core::problem::{Kind, Problem};
use proxy_core::token::{self, ArchiveClaims, DownloadClaims, UploadClaims};
use proxy_core::units::Offset;
use proxy_state::{Session, SessionState};
use proxy_volume::Prepared;
use serde_json::{Value, json};

use crate::call::{self, Call};
use crate::reply::{self, Failure, Outcome};

/// `POST /folder/file/download`. Nothing is looked at on disk: that happens at the download.
pub(crate) async fn download(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let relpath = fields.required("relpath", grammar::rel_path);
    let archive = fields.defaulted("archive", false, grammar::to_bool);
    let unmanaged = fields.defaulted("unmanaged_path", None, grammar::nullable(grammar::string));
    let fields = fields
        .finish((volume, vfid, relpath, archive, unmanaged))
        .map_err(Failure::parameters)?;
    // The query string's `archive` decides at the download. A path outside of all vfolders is
    // dropped like at the original: a leaked secret must not open the host.
    let (volume, vfid, relpath, _, _) = fields;
    let exp = expiry(&call);
    let claims = DownloadClaims {
        volume,
        vfid,
        relpath,
        exp,
        unmanaged_path: None,
    };
    minted(claims.mint(&call.settings.token_secret))
}

/// `POST /folder/file/upload`: checks what can be checked before a byte is sent, and makes the
/// staging file. A file of no bytes is in place already when its token is handed out, because
/// clients send nothing for it.
pub(crate) async fn upload(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let relpath = fields.required("relpath", grammar::rel_path);
    let size = fields.required("size", size);
    let (volume, vfid, relpath, size) = fields
        .finish((volume, vfid, relpath, size))
        .map_err(Failure::parameters)?;
    if let Some(most) = call.settings.upload_bytes_max.filter(|most| size > *most) {
        let text = format!("{size} bytes announced, at most {most} are taken");
        return Err(Problem::new(Kind::UploadTooLarge).msg(text).into());
    }
    let claims = UploadClaims {
        volume,
        vfid,
        relpath,
        size: i64::try_from(size).unwrap_or(i64::MAX),
        session: SessionId::random(),
        exp: expiry(&call),
    };
    let prepared = call
        .state
        .volumes
        .find(&claims.volume)?
        .prepare_upload(vfid, claims.relpath.clone(), size, claims.session)
        .await?;
    if let Some(session) = session(&claims, size, &prepared) {
        let (id, complete) = (session.id, session.is_finished());
        call.state.sessions.create(session).await?;
        if complete {
            // No staging file is left to tell of this session after a crash.
            call.state.sessions.secure(id).await?;
        }
    }
    minted(claims.mint(&call.settings.token_secret))
}

/// What the store is to know of an upload.
fn session(claims: &UploadClaims, size: u64, prepared: &Prepared) -> Option<Session> {
    let (staged, state) = match prepared {
        Prepared::Staged(staged) => (staged, SessionState::Open),
        Prepared::Published(staged) => {
            let target = claims.relpath.clone();
            (
                staged,
                SessionState::Finished {
                    last_from: Offset::ZERO,
                    target,
                },
            )
        }
        Prepared::Nothing => return None,
    };
    Some(Session {
        id: claims.session,
        volume: claims.volume.clone(),
        vfid: claims.vfid,
        relpath: claims.relpath.clone(),
        size,
        offset: Offset::ZERO,
        ranges: Extents::default(),
        pieces: Default::default(),
        metadata: None,
        ino: staged.ino,
        dev: staged.dev,
        exp: claims.exp,
        state,
    })
}

/// `POST /folder/file/archive-download-token`, and the path that it has in 26.2.
pub(crate) async fn archive(mut call: Call) -> Outcome {
    let mut fields = call.model().await?;
    let volume = fields.required("volume", grammar::string_or_blank);
    let vfid = fields.required("virtual_folder_id", grammar::vfolder_id);
    let files = fields.required("files", token::archive_files);
    let name = fields.defaulted("filename", None, grammar::nullable(token::archive_name));
    let (volume, vfid, files, filename) = fields
        .finish((volume, vfid, files, name))
        .map_err(call::model_failure)?;
    let claims = ArchiveClaims {
        volume,
        vfid,
        files,
        filename,
        exp: expiry(&call),
    };
    minted(claims.mint(&call.settings.token_secret))
}

fn minted(token: String) -> Outcome {
    reply::ok(&json!({"token": token}))
}

/// Whole seconds, like the clock that the token is checked against.
fn expiry(call: &Call) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.as_secs()
        .saturating_add(call.settings.token_ttl.as_secs())
}

/// Bytes of a file: a number or text of one, as users' clients give it.
fn size(value: &Value) -> Check<u64> {
    u64::try_from(grammar::to_int(value)?).map_err(|_| failure("value is negative"))
}
