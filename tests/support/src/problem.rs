//! Error envelopes as the contract lists them, written down a second time.
//!
//! Source: contract, wire contract sections 2.2, 5.1, 5.2.

use serde_json::{Value, json};

use crate::http::Response;

/// One row of the error table: class, status, type suffix, title, error code.
pub type Class = (&'static str, u16, &'static str, &'static str, &'static str);

/// The classes that the routes under test can answer with.
pub const CLASSES: &[Class] = &[
    (
        "NotImplementedAPI",
        400,
        "storage/api/not-implemented",
        "API Not Implemented",
        "storage-proxy_request_not-implemented",
    ),
    (
        "StorageProxyError",
        500,
        "storage/generic",
        "Storage Proxy Error",
        "storage-proxy_generic_internal-error",
    ),
    (
        "InvalidAPIParameters",
        400,
        "storage/invalid-api-params",
        "Invalid API parameters",
        "storage-proxy_request_invalid-parameters",
    ),
    (
        "UploadOffsetMismatchError",
        409,
        "storage/upload-offset-mismatch",
        "Upload Offset Mismatch",
        "storage-proxy_update_conflict",
    ),
    (
        "InvalidDataLength",
        400,
        "storage/data/invalid-length",
        "Invalid Data Length",
        "storage-proxy_request_invalid-parameters",
    ),
    (
        "TusLeaseLostError",
        409,
        "storage/tus-lease-lost",
        "TUS session lease lost mid-write",
        "storage-proxy_update_conflict",
    ),
    (
        "UploadPartConflict",
        409,
        "storage/upload-part-conflict",
        "Upload Part Conflict",
        "storage-proxy_update_conflict",
    ),
    (
        "UploadRangesMax",
        409,
        "storage/upload-ranges-max",
        "Too Many Ranges In Upload",
        "storage-proxy_update_conflict",
    ),
    (
        "UploadChecksumMismatch",
        460,
        "storage/upload-checksum-mismatch",
        "Upload Checksum Mismatch",
        "storage-proxy_update_mismatch",
    ),
    (
        "InvalidSubpathError",
        400,
        "storage/subpath/invalid",
        "Invalid Subpath",
        "vfolder_access_invalid-parameters",
    ),
    (
        "VFolderNotFoundError",
        404,
        "storage/vfolder/not-found",
        "VFolder Not Found",
        "vfolder_read_not-found",
    ),
    (
        "QuotaScopeNotFoundError",
        404,
        "storage/quota/scope/not-found",
        "Quota Scope Not Found",
        "quota-scope_read_not-found",
    ),
    (
        "InvalidVolumeError",
        400,
        "storage/volume/invalid",
        "Invalid Volume",
        "storage_access_invalid-parameters",
    ),
    (
        "UnsupportedFileTypeError",
        400,
        "storage/unsupported-file-type",
        "Unsupported File Type",
        "vfs-storage_read_invalid-parameters",
    ),
    (
        "common InvalidAPIParameters",
        400,
        "generic-bad-request",
        "Invalid or Missing API Parameters.",
        "api_parsing_invalid-parameters",
    ),
    (
        "MalformedRequestBody",
        400,
        "generic-bad-request",
        "Malformed request body.",
        "api_parsing_bad-request",
    ),
    (
        "JWTDecodeError",
        400,
        "jwt-decode-error",
        "Failed to decode JWT token.",
        "auth_auth_bad-request",
    ),
    (
        "JWTExpiredError",
        401,
        "jwt-expired",
        "JWT token has expired.",
        "auth_auth_data-expired",
    ),
    (
        "JWTInvalidSignatureError",
        401,
        "jwt-invalid-signature",
        "JWT signature verification failed.",
        "auth_auth_unauthorized",
    ),
    (
        "JWTPayloadValidationError",
        400,
        "jwt-payload-validation-error",
        "JWT payload validation failed.",
        "auth_auth_invalid-parameters",
    ),
    (
        "TusSessionNotFoundError",
        404,
        "storage/tus-session-not-found",
        "TUS upload session not found",
        "storage-proxy_read_not-found",
    ),
];

/// Every `type` starts with this.
pub const TYPES: &str = "https://api.backend.ai/probs/";

/// E1: a typed error, exactly its class; `msg` and `data` are free.
///
/// # Errors
/// What differs.
pub fn typed(response: &Response, class: &str) -> Result<(), String> {
    let row = CLASSES.iter().find(|row| row.0 == class);
    let &(_, status, suffix, title, code) = row.ok_or_else(|| format!("no class {class}"))?;
    let mut want = json!({"type": format!("{TYPES}{suffix}"), "title": title, "error_code": code});
    document(response, status)?;
    let mut got = body(response)?;
    let object = got.as_object_mut().ok_or("not an object")?;
    object.remove("msg");
    object.remove("data");
    want.sort_all_objects();
    got.sort_all_objects();
    same("problem", &got, &want)
}

/// E2: parameter validation. `fields` are the names that failed, all of them.
///
/// # Errors
/// What differs.
pub fn fields(response: &Response, fields: &[&str]) -> Result<(), String> {
    let data = invalid_parameters(response)?;
    let object = data.as_object().ok_or_else(|| format!("data is {data}"))?;
    let mut got: Vec<&str> = object.keys().map(String::as_str).collect();
    let mut want = fields.to_vec();
    got.sort_unstable();
    want.sort_unstable();
    if got == want {
        Ok(())
    } else {
        Err(format!("failing fields {got:?}, not {want:?}: {data}"))
    }
}

/// E2, and its `data`.
///
/// # Errors
/// What differs.
pub fn invalid_parameters(response: &Response) -> Result<Value, String> {
    document(response, 400)?;
    let mut got = body(response)?;
    let object = got.as_object_mut().ok_or("not an object")?;
    let data = object.remove("data").ok_or("no data")?;
    let want = json!({
        "type": format!("{TYPES}storage/invalid-api-params"), "title": "Invalid API parameters",
    });
    same("problem", &got, &want)?;
    Ok(data)
}

/// E3: a fixed small problem without `error_code`.
///
/// # Errors
/// What differs.
pub fn fixed(response: &Response, status: u16, suffix: &str, title: &str) -> Result<(), String> {
    document(response, status)?;
    let want = json!({"type": format!("{TYPES}{suffix}"), "title": title});
    same("problem", &body(response)?, &want)
}

/// E4: a download that is not there; its content type has no charset.
///
/// # Errors
/// What differs.
pub fn download_not_found(response: &Response) -> Result<(), String> {
    head(response, 404, "application/problem+json")?;
    let want = format!(r#"{{"title":"File not found","type":"{TYPES}storage/file-not-found"}}"#);
    if response.text() == want {
        Ok(())
    } else {
        Err("not the 87 bytes of E4".to_owned())
    }
}

/// E5: a file system error with `msg`, `errno` and `paths`.
///
/// # Errors
/// What differs.
pub fn os_error(response: &Response, errno: Option<i64>) -> Result<(), String> {
    head(response, 400, "application/json; charset=utf-8")?;
    let got = body(response)?;
    let object = got.as_object().ok_or("not an object")?;
    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
    if keys != ["msg", "errno", "paths"] {
        return Err(format!("keys {keys:?}"));
    }
    same("errno", &got["errno"], &json!(errno))?;
    if !got["msg"].is_string() || !got["paths"].is_array() {
        return Err(format!("msg and paths: {got}"));
    }
    Ok(())
}

/// E6: plain text.
///
/// # Errors
/// What differs.
pub fn text(response: &Response, status: u16, text: &str) -> Result<(), String> {
    head(response, status, "text/plain; charset=utf-8")?;
    if response.text() == text {
        Ok(())
    } else {
        Err(format!("not the text {text:?}"))
    }
}

/// Any JSON object as a 400: where upstream crashed with a 500 and the wording is ours.
///
/// # Errors
/// What differs.
pub fn refused(response: &Response, status: u16) -> Result<(), String> {
    if response.status != status {
        return Err(format!("status {}, not {status}", response.status));
    }
    let kind = response.header("Content-Type").unwrap_or("");
    if !kind.starts_with("application/problem+json") && !kind.starts_with("application/json") {
        return Err(format!("content type {kind:?}: the Manager needs JSON"));
    }
    body(response)?
        .as_object()
        .map(|_| ())
        .ok_or_else(|| "not an object".to_owned())
}

/// Status and content type.
///
/// # Errors
/// What differs.
pub fn head(response: &Response, status: u16, content_type: &str) -> Result<(), String> {
    if response.status != status {
        return Err(format!("status {}, not {status}", response.status));
    }
    let got = response.header("Content-Type").unwrap_or("");
    if got != content_type {
        return Err(format!("content type {got:?}, not {content_type:?}"));
    }
    Ok(())
}

fn document(response: &Response, status: u16) -> Result<(), String> {
    head(response, status, "application/problem+json; charset=utf-8")
}

fn body(response: &Response) -> Result<Value, String> {
    serde_json::from_slice(&response.body).map_err(|err| format!("body: {err}"))
}

/// Equality of JSON, said in words when there is none.
///
/// # Errors
/// Both values.
pub fn same(what: &str, got: &Value, want: &Value) -> Result<(), String> {
    if got == want {
        Ok(())
    } else {
        Err(format!("{what} is {got}, not {want}"))
    }
}
