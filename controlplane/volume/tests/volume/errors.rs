//! What the wire says about each error.

use proxy_volume::VolumeError;
use serde_json::{Value, json};

use crate::scene::{FOLDER, scope, vfid};

#[track_caller]
fn check(error: VolumeError, status: u16, key: &str, want: Value) {
    let answer = error.answer();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (answer.status, &body[key]),
        (status, &want),
        "{error:?}: {body}"
    );
    let text = error.to_string();
    assert!(!text.ends_with('.'), "{text}");
}

#[test]
fn errors_have_the_envelopes_of_the_original() {
    let vfid = vfid(FOLDER);
    let code = "error_code";
    check(
        VolumeError::UnknownVolume("v9".into()),
        400,
        code,
        json!("storage_access_invalid-parameters"),
    );
    check(
        VolumeError::UnknownVolume("v9".into()),
        400,
        "msg",
        json!("v9"),
    );
    check(
        VolumeError::Busy,
        503,
        code,
        json!("storage-proxy_request_unavailable"),
    );
    check(VolumeError::Unsupported, 400, code, Value::Null);
    check(
        VolumeError::VFolderNotFound(vfid),
        404,
        code,
        json!("vfolder_read_not-found"),
    );
    let outside = VolumeError::InvalidSubpath {
        vfid,
        path: "../x".into(),
    };
    check(
        outside.clone(),
        400,
        code,
        json!("vfolder_access_invalid-parameters"),
    );
    check(outside.clone(), 400, "msg", json!(outside.to_string()));
    check(outside.clone(), 400, "data", json!(outside.to_string()));
    let name = VolumeError::InvalidName {
        vfid,
        name: "a/b".into(),
    };
    check(name, 400, code, json!("vfolder_access_invalid-parameters"));
    check(
        VolumeError::ScopeRequired(vfid),
        400,
        code,
        json!("storage-proxy_request_invalid-parameters"),
    );
    let exists = "Volume already exists with given quota scope.";
    check(VolumeError::ScopeExists(scope()), 409, "msg", json!(exists));
    check(
        VolumeError::ScopeNotFound(scope()),
        404,
        code,
        json!("quota-scope_read_not-found"),
    );
    check(
        VolumeError::FolderExists(vfid),
        409,
        code,
        json!("vfolder_create_already-exists"),
    );
    let full = VolumeError::NoRoom {
        needed_bytes: 2,
        free_bytes: 1,
    };
    check(
        full,
        500,
        code,
        json!("storage-proxy_execute_internal-error"),
    );
    let os = VolumeError::Os {
        op: "mkdir",
        errno: 17,
        path: "a/b".into(),
    };
    check(os.clone(), 400, "msg", json!("File exists"));
    check(os.clone(), 400, "errno", json!(17));
    check(os.clone(), 400, "paths", json!(["a/b"]));
    assert_eq!(os.to_string(), "mkdir: File exists: 'a/b'");
    check(
        VolumeError::Refused("it is taken"),
        400,
        "errno",
        Value::Null,
    );
    check(VolumeError::Refused("it is taken"), 400, "paths", json!([]));
    check(
        VolumeError::Cancelled,
        503,
        code,
        json!("storage_access_unavailable"),
    );
    check(
        VolumeError::Internal("oh"),
        500,
        code,
        json!("storage-proxy_generic_internal-error"),
    );
}
