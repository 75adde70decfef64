//! Goal: entries of a folder and tokens for them are what the contract says.
//! Method: tables of requests against one volume; effects are looked at on disk.
#![allow(clippy::unwrap_used)]

use proxy_core::token::{ArchiveClaims, DownloadClaims, Secret, UploadClaims};
use serde_json::json;

use crate::testbed::{Answer, HERE, NEW, Row, Testbed, UPLOAD_BYTES_MAX, VFID, check};

const NO_FOLDER: &str = r#"{"error_code":"vfolder_read_not-found"}"#;
const ESCAPE: &str = r#"{"error_code":"vfolder_access_invalid-parameters"}"#;

#[tokio::test]
async fn directories_are_made_one_by_one() {
    let bed = Testbed::new().await;
    let many: Vec<String> = (0..51).map(|number| format!("\"d{number}\"")).collect();
    let many = format!(r#"{{$here,"relpath":[{}]}}"#, many.join(",")).leak();
    let rows: &[Row] = &[
        (
            "POST /folder/file/mkdir",
            r#"{$here,"relpath":"new//deep/"}"#,
            200,
            r#"{"results":{"success":[{"msg":null,"item":"new/deep"}],"failed":[]}}"#,
        ),
        (
            "POST /folder/file/mkdir",
            r#"{$here,"relpath":["dir","more"],"parents":"no"}"#,
            207,
            r#"{"results":{"success":[{"msg":null,"item":"more"}],
                "failed":[{"msg":"File exists","item":"dir"}]}}"#,
        ),
        (
            "POST /folder/file/mkdir",
            r#"{$here,"relpath":["a.txt"],"exist_ok":1}"#,
            422,
            r#"{"results":{"success":[],"failed":[{"msg":"File exists","item":"a.txt"}]}}"#,
        ),
        (
            "POST /folder/file/mkdir",
            r#"{$here,"relpath":[]}"#,
            422,
            r#"{"results":{"success":[],"failed":[]}}"#,
        ),
        (
            "POST /folder/file/mkdir",
            r#"{$here,"relpath":"","exist_ok":true}"#,
            200,
            r#"{"results":{"success":[{"msg":null,"item":"."}],"failed":[]}}"#,
        ),
        (
            "POST /folder/file/mkdir",
            r#"{$here,"relpath":["ok","/abs"],"parents":"f"}"#,
            400,
            r#"{"data":{"relpath":{"1":"expected relative path but the value is absolute"},
                "parents":"value can't be converted to Bool"}}"#,
        ),
        (
            "POST /folder/file/mkdir",
            many,
            400,
            r#"{"data":{"relpath":"<any>"}}"#,
        ),
    ];
    check(&bed, rows).await;
    assert!(bed.folder(VFID).join("new/deep").is_dir());
    let body = r#"{"volume":"local","vfid":"$new","relpath":"x"}"#;
    let answer = bed.ask("POST /folder/file/mkdir", body).await;
    assert_eq!(answer.status, 422, "a missing folder fails each directory");
    for path in ["..", ".upload", ".upload/x"] {
        let body = format!(r#"{{{HERE},"relpath":"{path}"}}"#);
        assert_eq!(
            bed.ask("POST /folder/file/mkdir", &body).await.status,
            422,
            "{path}"
        );
    }
}

#[tokio::test]
async fn listings_have_types_times_and_no_staging() {
    let bed = Testbed::new().await;
    let folder = bed.folder(VFID);
    std::fs::create_dir(folder.join(".upload")).unwrap();
    std::os::unix::fs::symlink("a.txt", folder.join("link")).unwrap();
    let name = std::os::unix::ffi::OsStringExt::from_vec(b"bad\xff".to_vec());
    let name: std::ffi::OsString = name;
    std::fs::write(folder.join(name), "").unwrap();
    let body = format!(r#"{{{HERE},"relpath":""}}"#);
    let answer = bed.ask("POST /folder/file/list", &body).await.json();
    let mut items = answer["items"].as_array().unwrap().clone();
    items.sort_by_key(|item| item["name"].to_string());
    let seen: Vec<_> = items
        .iter()
        .map(|item| [&item["name"], &item["type"], &item["symlink_target"]])
        .map(|texts| texts.map(|text| text.as_str().unwrap()))
        .collect();
    let want = [
        ["a.txt", "FILE", ""],
        ["bad\u{fffd}", "FILE", ""],
        ["dir", "DIRECTORY", ""],
        ["empty", "DIRECTORY", ""],
        ["link", "SYMLINK", "a.txt"],
    ];
    assert_eq!(seen, want);
    assert_eq!(items[0]["stat"]["size"], 5);
    assert_eq!(items[0]["stat"]["mode"], 0o100_644);
    for time in ["created", "modified"] {
        let time = items[0]["stat"][time].as_str().unwrap();
        assert!(time.ends_with("+00:00"), "{time}");
    }
    let mut settings = bed.state.settings.load_full().as_ref().clone();
    settings.list_entries_max = 2;
    bed.state.settings.store(std::sync::Arc::new(settings));
    let answer = bed.ask("POST /folder/file/list", &body).await.json();
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(2));
    let rows: &[Row] = &[
        (
            "POST /folder/file/list",
            r#"{$here,"relpath":"none"}"#,
            400,
            r#"{"msg":"No such file or directory","errno":2,"paths":["none"]}"#,
        ),
        (
            "POST /folder/file/list",
            r#"{$here,"relpath":"a.txt"}"#,
            400,
            r#"{"errno":20}"#,
        ),
        (
            "POST /folder/file/list",
            r#"{$here,"relpath":".."}"#,
            400,
            ESCAPE,
        ),
        (
            "POST /folder/file/list",
            r#"{"volume":"local","vfid":"$new","relpath":""}"#,
            404,
            NO_FOLDER,
        ),
    ];
    check(&bed, rows).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table of steps")]
async fn entries_are_renamed_moved_and_deleted() {
    let bed = Testbed::new().await;
    let rows: &[Row] = &[
        (
            "POST /folder/file/rename",
            r#"{$here,"relpath":"a.txt","new_name":"c.txt","is_dir":false}"#,
            204,
            "",
        ),
        (
            "POST /folder/file/rename",
            r#"{$here,"relpath":"c.txt","new_name":"x/y"}"#,
            400,
            r#"{}"#,
        ),
        (
            "POST /folder/file/rename",
            r#"{$here,"relpath":"dir/b.txt","new_name":".."}"#,
            400,
            r#"{}"#,
        ),
        (
            "POST /folder/file/move",
            r#"{$here,"src_relpath":"c.txt","dst_relpath":"dir"}"#,
            204,
            "",
        ),
        (
            "POST /folder/file/move",
            r#"{$here,"src_relpath":"c.txt","dst_relpath":"x"}"#,
            400,
            r#"{"errno":2}"#,
        ),
        (
            "POST /folder/file/move",
            r#"{$here,"src_relpath":"dir","dst_relpath":"../x"}"#,
            400,
            ESCAPE,
        ),
        (
            "POST /folder/file/delete",
            r#"{$here,"relpaths":["none","empty","dir/c.txt"]}"#,
            200,
            r#"{"status":"ok"}"#,
        ),
        (
            "POST /folder/file/delete",
            r#"{$here,"relpaths":[]}"#,
            200,
            r#"{"status":"ok"}"#,
        ),
        (
            "POST /folder/file/delete",
            r#"{$here,"relpaths":["."],"recursive":true}"#,
            400,
            r#"{}"#,
        ),
        (
            "POST /folder/file/delete",
            r#"{$here,"relpaths":["dir","../x"]}"#,
            400,
            ESCAPE,
        ),
        (
            "POST /folder/file/delete",
            r#"{$here,"relpaths":["/x",5]}"#,
            400,
            r#"{"data":{"relpaths":{"0":"expected relative path but the value is absolute",
                "1":"cannot parse value as a path"}}}"#,
        ),
    ];
    check(&bed, rows).await;
    let folder = bed.folder(VFID);
    assert!(!folder.join("empty").exists());
    assert!(!folder.join("dir/c.txt").exists());
    assert!(folder.join("dir/b.txt").exists());
}

#[tokio::test]
async fn fetch_streams_what_is_there_and_nothing_for_the_rest() {
    let bed = Testbed::new().await;
    let big = vec![7u8; 3 << 20];
    std::fs::write(bed.folder(VFID).join("big"), &big).unwrap();
    for (body, want) in [
        (r#"{$here,"relpath":"a.txt"}"#, &b"hello"[..]),
        (r#"{$here,"relpath":"big"}"#, &big),
        (r#"{$here,"relpath":"none"}"#, b""),
        (r#"{$here,"relpath":"dir"}"#, b""),
        (r#"{$here,"relpath":"a.txt/x"}"#, b""),
        (r#"{$here,"relpath":"../x"}"#, b""),
        (
            r#"{"volume":"nowhere","vfid":"$vfid","relpath":"a.txt"}"#,
            b"",
        ),
        (r#"{"volume":"gone","vfid":"$vfid","relpath":"a.txt"}"#, b""),
        (r#"{"volume":"local","vfid":"$new","relpath":"a.txt"}"#, b""),
    ] {
        let body = body.replace("$here", HERE);
        let answer = bed.ask("POST /folder/file/fetch", &body).await;
        assert_eq!(answer.status, 200, "{body}");
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert_eq!(
            answer.header("content-length"),
            "",
            "{body} is sent in chunks"
        );
        assert!(answer.body == want, "{body}: {} bytes", answer.body.len());
    }
    let rows: &[Row] = &[(
        "POST /folder/file/fetch",
        "{$here}",
        400,
        r#"{"data":{"relpath":"is required"}}"#,
    )];
    check(&bed, rows).await;
}

fn token(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["token"].as_str().unwrap().to_owned()
}

fn secret() -> Secret {
    Secret::new("token-secret")
}

#[tokio::test]
async fn download_and_archive_tokens_carry_what_was_asked() {
    let bed = Testbed::new().await;
    let body = r#"{"volume":"any","vfid":"$new","relpath":"./a//b","archive":true,
        "unmanaged_path":"/etc"}"#;
    let minted = token(&bed.ask("POST /folder/file/download", body).await);
    let claims = DownloadClaims::verify(&secret(), &minted, 0).unwrap();
    assert_eq!(
        (claims.volume.as_str(), claims.relpath.as_str()),
        ("any", "a/b")
    );
    assert_eq!(
        (claims.vfid.to_string().as_str(), claims.unmanaged_path),
        (NEW, None)
    );

    for path in ["archive-download-token", "download-archive"] {
        let body = r#"{"volume":"any","virtual_folder_id":"$new","files":["/a",".."],
            "filename":"x.zip","more":1}"#;
        let minted = token(&bed.ask(&format!("POST /folder/file/{path}"), body).await);
        let claims = ArchiveClaims::verify(&secret(), &minted, 0).unwrap();
        assert_eq!(claims.files, ["/a", ".."]);
        assert_eq!(claims.filename.as_deref(), Some("x.zip"));
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(
            (now + 3500..=now + 3600).contains(&claims.exp),
            "{}",
            claims.exp
        );
    }
    for bad in [
        r#"{"volume":"any","virtual_folder_id":"$new","files":[]}"#,
        r#"{"volume":"any","virtual_folder_id":"$new","files":["a"],"filename":"a/b"}"#,
        r#"{"volume":"any","virtual_folder_id":"zz","files":["a"]}"#,
    ] {
        let answer = bed
            .ask("POST /folder/file/archive-download-token", bad)
            .await;
        assert_eq!(
            answer.json()["error_code"],
            "api_parsing_invalid-parameters",
            "{bad}"
        );
    }
}

#[tokio::test]
async fn upload_tokens_come_with_a_session() {
    let bed = Testbed::new().await;
    let body = format!(r#"{{{HERE},"relpath":"d/up","size":" 7 "}}"#);
    let minted = token(&bed.ask("POST /folder/file/upload", &body).await);
    let claims = UploadClaims::verify(&secret(), &minted, 0).unwrap();
    assert_eq!((claims.size, claims.relpath.as_str()), (7, "d/up"));
    let staged = bed
        .folder(VFID)
        .join(".upload")
        .join(claims.session.to_string());
    assert_eq!(std::fs::metadata(staged).unwrap().len(), 0);
    let session = bed
        .state
        .sessions
        .look(claims.session)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (session.size, session.offset.get(), session.is_finished()),
        (7, 0, false)
    );

    let body = format!(r#"{{{HERE},"relpath":"deep/zero","size":0}}"#);
    let minted = token(&bed.ask("POST /folder/file/upload", &body).await);
    let claims = UploadClaims::verify(&secret(), &minted, 0).unwrap();
    assert_eq!(
        std::fs::read(bed.folder(VFID).join("deep/zero")).unwrap(),
        b""
    );
    let session = bed
        .state
        .sessions
        .look(claims.session)
        .await
        .unwrap()
        .unwrap();
    assert!(session.is_finished());

    let body = r#"{"volume":"noop","vfid":"$vfid","relpath":"x","size":5}"#;
    token(&bed.ask("POST /folder/file/upload", body).await);
}

#[tokio::test]
async fn uploads_that_cannot_end_well_get_no_token() {
    let bed = Testbed::new().await;
    let over = UPLOAD_BYTES_MAX + 1;
    for (path, size, status, code) in [
        ("up", json!(-1), 400, None),
        ("up", json!("1g"), 400, None),
        (
            "up",
            json!(over),
            413,
            Some("vfolder_create_invalid-parameters"),
        ),
        ("..", json!(1), 400, None),
        (
            "../up",
            json!(1),
            400,
            Some("vfolder_access_invalid-parameters"),
        ),
        (".", json!(1), 400, None),
        (".upload/up", json!(1), 400, None),
        ("dir", json!(1), 400, None),
        ("a.txt/up", json!(1), 400, None),
    ] {
        let body = format!(r#"{{{HERE},"relpath":"{path}","size":{size}}}"#);
        let answer = bed.ask("POST /folder/file/upload", &body).await;
        assert_eq!(answer.status, status, "{path} {size}: {}", answer.text());
        if let Some(code) = code {
            assert_eq!(answer.json()["error_code"], code, "{path} {size}");
        }
    }
    assert!(
        !bed.folder(VFID).join(".upload").exists(),
        "nothing is left behind"
    );
    let body = r#"{"volume":"local","vfid":"$new","relpath":"x","size":5}"#;
    let answer = bed.ask("POST /folder/file/upload", body).await;
    assert_eq!(answer.json()["error_code"], "vfolder_read_not-found");
}
