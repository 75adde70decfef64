//! What the wire says about each error.

use proxy_core::problem::Kind;
use proxy_volume::VolumeError;
use serde_json::{Value, json};

use crate::scene::{FOLDER, scope, vfid};

fn body_of(error: &VolumeError) -> (u16, Value) {
    let answer = error.answer();
    let text = error.to_string();
    assert!(!text.ends_with('.'), "{text}");
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

/// The typed envelope of `kind`, with the error's own text.
#[track_caller]
fn check(error: VolumeError, kind: Kind) {
    let (status, body) = body_of(&error);
    assert_eq!(status, kind.status(), "{error:?}");
    assert_eq!(body["error_code"], json!(kind.error_code()), "{error:?}");
    assert_eq!(body["msg"], json!(error.to_string()), "{error:?}");
}

/// Plain JSON without a code.
#[track_caller]
fn check_plain(error: VolumeError, status: u16, want: Value) {
    assert_eq!(body_of(&error), (status, want), "{error:?}");
}

#[test]
fn errors_of_a_class_have_its_envelope() {
    let (vfid, scope) = (vfid(FOLDER), scope());
    let (path, name) = ("../x".to_owned(), "a/b".to_owned());
    let (volume, cause) = ("v1".to_owned(), "Input/output error".to_owned());
    let outside = VolumeError::InvalidSubpath { vfid, path };
    assert_eq!(body_of(&outside).1["data"], json!(outside.to_string()));
    check(outside, Kind::InvalidSubpath);
    check(
        VolumeError::InvalidName { vfid, name },
        Kind::InvalidSubpath,
    );
    check(VolumeError::VFolderNotFound(vfid), Kind::VFolderNotFound);
    check(VolumeError::FolderExists(vfid), Kind::VFolderExists);
    check(VolumeError::ScopeRequired(vfid), Kind::InvalidAPIParameters);
    check(VolumeError::ScopeNotFound(scope), Kind::QuotaScopeNotFound);
    let failed = VolumeError::ScopeCreationFailed {
        scope,
        cause: cause.clone(),
    };
    check(failed, Kind::ExternalStorageService);
    check(
        VolumeError::Unavailable { volume, cause },
        Kind::VolumeUnavailable,
    );
    check(VolumeError::Cancelled, Kind::VolumeUnavailable);
    check(VolumeError::Busy, Kind::Overloaded);
    let full = VolumeError::NoRoom {
        needed_bytes: 2,
        free_bytes: 1,
    };
    check(full, Kind::ProcessExecution);
    check(VolumeError::Internal("oh"), Kind::StorageProxy);
    let (status, body) = body_of(&VolumeError::UnknownVolume("v9".to_owned()));
    assert_eq!((status, &body["msg"]), (400, &json!("v9")));
}

#[test]
fn errors_of_the_system_are_plain() {
    let os = |path: &str| VolumeError::Os {
        op: "mkdir",
        errno: 17,
        path: path.to_owned(),
    };
    assert_eq!(os("a/b").to_string(), "mkdir: File exists: 'a/b'");
    assert_eq!(os("").to_string(), "mkdir: File exists");
    let want = json!({"msg": "File exists", "errno": 17, "paths": ["a/b"]});
    check_plain(os("a/b"), 400, want);
    check_plain(
        os(""),
        400,
        json!({"msg": "File exists", "errno": 17, "paths": []}),
    );
    let want = json!({"msg": "it is taken", "errno": null, "paths": []});
    check_plain(VolumeError::Refused("it is taken"), 400, want);
    let want = json!({"msg": "Volume already exists with given quota scope."});
    check_plain(VolumeError::ScopeExists(scope()), 409, want);
    let (status, body) = body_of(&VolumeError::Unsupported);
    assert_eq!((status, &body["error_code"]), (400, &Value::Null));
}
