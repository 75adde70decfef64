//! Goal: volumes, quota scopes, folders and long work do what the contract says.
//! Method: tables of requests against one volume; effects are looked at on disk.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use crate::testbed::{HERE, NEW, Row, Testbed, VFID, check};

const NO_VOLUME: &str = r#"{"error_code":"storage_access_invalid-parameters","msg":"nowhere"}"#;
const NO_FOLDER: &str = r#"{"error_code":"vfolder_read_not-found"}"#;
const NO_SCOPE: &str = r#"{"error_code":"quota-scope_read_not-found"}"#;
const NO_QUOTA: &str = r#"{"error_code":"storage-proxy_request_not-implemented"}"#;

#[tokio::test]
async fn volumes_are_told_even_when_one_is_gone() {
    let bed = Testbed::new().await;
    let rows: &[Row] = &[
        (
            "GET /volume/hwinfo",
            r#"{"volume":"nowhere"}"#,
            400,
            NO_VOLUME,
        ),
        (
            "GET /volume/hwinfo",
            r#"{"volume":"@noop"}"#,
            400,
            r#"{"msg":"@noop"}"#,
        ),
        (
            "GET /volume/hwinfo",
            r#"{"volume":"noop"}"#,
            200,
            r#"{"status":"healthy","status_info":null,"metadata":{}}"#,
        ),
        (
            "GET /volume/performance-metric",
            r#"{"volume":"local"}"#,
            400,
            r#"{"title":"Unsupported operation by the storage backend"}"#,
        ),
        ("GET /volume/quota", "{$here}", 400, NO_QUOTA),
        ("GET /volume/quota", r#"{"volume":"x"}"#, 400, NO_QUOTA),
        (
            "PATCH /volume/quota",
            r#"{$here,"size_bytes":"1.5g"}"#,
            400,
            NO_QUOTA,
        ),
        (
            "PATCH /volume/quota",
            r#"{$here,"size_bytes":"much"}"#,
            400,
            r#"{"data":{"size_bytes":"value is not a valid binary size"}}"#,
        ),
    ];
    check(&bed, rows).await;
    let volumes = bed.ask("GET /volumes", "").await.json();
    let volume = |name: &str, path: &str| {
        let path = bed.dir.path().join(path);
        json!({
            "name": name, "backend": "vfs", "path": path, "fsprefix": ".",
            "capabilities": ["vfolder"],
        })
    };
    assert_eq!(
        volumes,
        json!({"volumes": [volume("local", "volume"), volume("gone", "gone")]})
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table of steps")]
async fn quota_scopes_are_made_shown_and_kept() {
    let bed = Testbed::new().await;
    let rows: &[Row] = &[
        (
            "GET /quota-scope",
            r#"{"volume":"local","qsid":"user:$q"}"#,
            404,
            NO_SCOPE,
        ),
        (
            "DELETE /quota-scope/quota",
            r#"{"volume":"local","qsid":"user:$q"}"#,
            404,
            NO_SCOPE,
        ),
        (
            "POST /quota-scope",
            r#"{"volume":"local","qsid":"user:$q","options":{"limit_bytes":"5"}}"#,
            204,
            "",
        ),
        (
            "POST /quota-scope",
            r#"{"volume":"local","qsid":"user:$q","options":null,"extra_args":{}}"#,
            409,
            r#"{"msg":"Volume already exists with given quota scope."}"#,
        ),
        (
            "GET /quota-scope",
            r#"{"volume":"local","qsid":"user:$q"}"#,
            200,
            r#"{"used_bytes":null,"limit_bytes":null}"#,
        ),
        (
            "PATCH /quota-scope",
            r#"{"volume":"local","qsid":"project:$p","options":{"limit_bytes":-1}}"#,
            204,
            "",
        ),
        (
            "PATCH /quota-scope",
            r#"{"volume":"local","qsid":"project:$p","options":{"limit_bytes":10}}"#,
            204,
            "",
        ),
        (
            "DELETE /quota-scope/quota",
            r#"{"volume":"local","qsid":"user:$q"}"#,
            204,
            "",
        ),
        (
            "PATCH /quota-scope",
            r#"{"volume":"local","qsid":"user:$q","options":null}"#,
            400,
            r#"{"data":{"options":"value is not a dict"}}"#,
        ),
        (
            "POST /quota-scope",
            r#"{"volume":"local","qsid":"nope:abc","options":{"x":1}}"#,
            400,
            r#"{"data":{"qsid":"<any>",
                "options":{"limit_bytes":"is required","x":"x is not allowed key"}}}"#,
        ),
    ];
    let fill = |body: &'static str| -> &'static str {
        body.replace("$q", "99999999-2222-3333-4444-555555555555")
            .replace("$p", "88888888-2222-3333-4444-555555555555")
            .leak()
    };
    let rows: Vec<Row> = rows
        .iter()
        .map(|row| (row.0, fill(row.1), row.2, row.3))
        .collect();
    check(&bed, &rows).await;
}

#[tokio::test]
async fn folders_are_made_once() {
    let bed = Testbed::new().await;
    let rows: &[Row] = &[
        (
            "POST /folder/create",
            r#"{"volume":"local","vfid":"$new","mode":448}"#,
            204,
            "",
        ),
        (
            "POST /folder/create",
            r#"{"volume":"local","vfid":"$new"}"#,
            204,
            "",
        ),
        (
            "POST /folder/create",
            "{$here}",
            409,
            r#"{"error_code":"vfolder_create_already-exists"}"#,
        ),
        (
            "POST /folder/create",
            r#"{"volume":"local","vfid":"aabbccddeeff00112233445566778899"}"#,
            400,
            r#"{"error_code":"storage-proxy_request_invalid-parameters"}"#,
        ),
        (
            "POST /folder/create",
            r#"{"volume":"local","vfid":"zz","mode":"511","options":"x"}"#,
            400,
            r#"{"data":{"vfid":"cannot convert value to UUID","mode":"value is not int",
                "options":"value is not a dict"}}"#,
        ),
        (
            "POST /folder/create",
            r#"{$here,"mode":true}"#,
            400,
            r#"{"data":{"mode":"value is not int"}}"#,
        ),
        (
            "POST /folder/create",
            r#"{$here,"mode":100000}"#,
            400,
            r#"{"data":{"mode":"value is not a file mode"}}"#,
        ),
    ];
    check(&bed, rows).await;
    let mode = std::os::unix::fs::PermissionsExt::mode;
    let made = std::fs::metadata(bed.folder(NEW)).unwrap();
    assert_eq!(mode(&made.permissions()) & 0o7777, 0o700);
}

#[tokio::test]
async fn folders_are_mounted_where_they_lie() {
    let bed = Testbed::new().await;
    let rows: &[Row] = &[
        (
            "GET /folder/mount",
            r#"{$here,"subpath":"not/there"}"#,
            200,
            r#"{"path":"<any>"}"#,
        ),
        (
            "GET /folder/mount",
            r#"{$here,"subpath":"../x"}"#,
            400,
            r#"{"msg":"Invalid vfolder subpath","vfid":"$vfid","subpath":"../x"}"#,
        ),
        (
            "GET /folder/mount",
            r#"{$here,"subpath":"/etc"}"#,
            400,
            r#"{"msg":"Invalid vfolder subpath","vfid":"$vfid","subpath":"/etc"}"#,
        ),
        (
            "GET /folder/mount",
            r#"{"volume":"local","vfid":"aabbccddeeff00112233445566778800"}"#,
            400,
            r#"{"msg":"VFolder not found","vfid":"aabbccddeeff00112233445566778800"}"#,
        ),
        (
            "GET /folder/mount",
            r#"{$here,"subpath":""}"#,
            400,
            r#"{"data":{"subpath":"<any>"}}"#,
        ),
        (
            "GET /folder/metadata",
            r#"{"volume":"x","vfid":"$new"}"#,
            200,
            r#"{"status":"ok"}"#,
        ),
        (
            "POST /folder/metadata",
            r#"{$here,"payload":"x"}"#,
            400,
            r#"{"data":{"payload":"value is not a bytes string"}}"#,
        ),
    ];
    check(&bed, rows).await;
    let mounted = bed
        .ask("GET /folder/mount", &format!("{{{HERE}}}"))
        .await
        .json();
    assert_eq!(
        mounted,
        json!({"path": bed.folder(VFID).canonicalize().unwrap()})
    );
}

#[tokio::test]
async fn folders_are_measured() {
    let bed = Testbed::new().await;
    let rows: &[Row] = &[
        (
            "GET /folder/usage",
            "{$here}",
            200,
            r#"{"file_count":4,"used_bytes":"<any>"}"#,
        ),
        (
            "GET /folder/used-bytes",
            "{$here}",
            200,
            r#"{"used_bytes":"<any>"}"#,
        ),
        (
            "GET /folder/usage",
            r#"{"volume":"local","vfid":"aabbccddeeff00112233445566778800"}"#,
            404,
            NO_FOLDER,
        ),
        (
            "GET /folder/used-bytes",
            r#"{"volume":"local","vfid":"aabbccddeeff00112233445566778800"}"#,
            404,
            NO_FOLDER,
        ),
        (
            "GET /folder/fs-usage",
            r#"{"volume":"local"}"#,
            200,
            r#"{"capacity_bytes":"<any>","used_bytes":"<any>"}"#,
        ),
        (
            "GET /folder/fs-usage",
            "{$here}",
            400,
            r#"{"data":{"vfid":"vfid is not allowed key"}}"#,
        ),
    ];
    check(&bed, rows).await;
}

#[tokio::test]
async fn scopes_are_not_made_on_demand_where_that_is_off() {
    let bed = Testbed::new().await;
    let mut settings = bed.state.settings.load_full().as_ref().clone();
    settings.scopes_on_demand = false;
    bed.state.settings.store(std::sync::Arc::new(settings));
    let vfid = NEW.replace("11111111", "77777777");
    let body = format!(r#"{{"volume":"local","vfid":"{vfid}"}}"#);
    let answer = bed.ask("POST /folder/create", &body).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error_code"], "quota-scope_read_not-found");
}

#[tokio::test]
async fn long_work_is_on_record_before_it_is_answered() {
    let mut bed = Testbed::new().await;
    for (call, body, status, name, task) in [
        (
            "POST /folder/delete",
            r#"{"volume":"nowhere","vfid":"$vfid"}"#,
            202,
            "delete_vfolder",
            json!({"volume": "nowhere", "vfolder_id": VFID}),
        ),
        (
            "POST /folder/clone",
            r#"{"src_volume":"local","src_vfid":"$vfid","dst_volume":null,"dst_vfid":"$new",
                "cmd":"x"}"#,
            200,
            "clone_vfolder",
            json!({"volume": "local", "src_vfolder": VFID, "dst_vfolder": NEW}),
        ),
        (
            "POST /folder/file/delete-async",
            r#"{"volume":"local","vfid":"$vfid","relpaths":["/a","b"],"recursive":"yes","x":1}"#,
            202,
            "delete_files",
            json!({
                "volume": "local", "vfolder_id": VFID, "relpaths": ["/a", "b"],
                "recursive": true,
            }),
        ),
    ] {
        let answer = bed.ask(call, body).await;
        assert_eq!(answer.status, status, "{call}: {}", answer.text());
        let id = answer.json()["bgtask_id"].as_str().map(str::len);
        assert_eq!(id, Some(36), "{call}");
        assert_eq!(bed.task().await, (name, task));
    }
    let rows: &[Row] = &[(
        "POST /folder/clone",
        r#"{"src_volume":"local","src_vfid":"$vfid","dst_volume":"gone","dst_vfid":"$new"}"#,
        500,
        r#"{"error_code":"storage-proxy_generic_internal-error"}"#,
    )];
    check(&bed, rows).await;
    bed.state.runner.shutdown(std::time::Duration::ZERO).await;
    let answer = bed.ask("POST /folder/delete", &format!("{{{HERE}}}")).await;
    assert_eq!(answer.status, 503);
}
