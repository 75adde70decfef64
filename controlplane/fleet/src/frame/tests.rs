//! Bytes as they were recorded from the original, event by event.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proxy_core::id::{TaskId, VFolderId};
use proxy_state::Event;
use serde_json::{Value, json};

use super::*;

const TASK: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const SRC: &str = "user:01234567-89ab-cdef-0123-456789abcdef/11111111222233334444555555555555";
const DST: &str = "project:01234567-89ab-cdef-0123-456789abcdef/22222222222233334444555555555555";
const SCOPE: &str = "user:01234567-89ab-cdef-0123-456789abcdef";

fn task() -> TaskId {
    TaskId::parse(TASK).unwrap()
}

fn vfid(text: &str) -> VFolderId {
    VFolderId::parse(text).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `want` is hex; `<text>` stands for the hex of a text.
fn spelled(want: &str) -> String {
    let mut out = String::new();
    for (at, part) in want.split(['<', '>']).enumerate() {
        match at % 2 {
            0 => out.extend(part.chars().filter(|c| !c.is_whitespace())),
            _ => out.push_str(&hex(part.as_bytes())),
        }
    }
    out
}

#[track_caller]
fn check(event: FleetEvent, name: &str, args: &str, payload: &str) {
    let frame = Frame::of(&event, None);
    assert_eq!(frame.name, name);
    assert_eq!(hex(&frame.args), spelled(args), "{name}");
    assert_eq!(frame.payload, payload, "{name}");
    assert_eq!(frame.metadata, r#"{"request_id":null,"user":null}"#);
}

#[track_caller]
fn check_work(event: Event, name: &str, args: &str, payload: &str) {
    check(FleetEvent::Work(event), name, args, payload);
}

#[test]
fn events_about_folders_have_the_recorded_bytes() {
    let (src, dst) = (vfid(SRC), vfid(DST));
    check_work(
        Event::VFolderDeleted { vfid: src },
        "vfolder_deletion_success",
        &format!("91 d94a <{SRC}>"),
        &format!(r#"{{"vfid":"{SRC}"}}"#),
    );
    check_work(
        Event::VFolderDeleted {
            vfid: vfid("33333333222233334444555555555555"),
        },
        "vfolder_deletion_success",
        "91 d920 <33333333222233334444555555555555>",
        r#"{"vfid":"33333333222233334444555555555555"}"#,
    );
    check_work(
        Event::VFolderDeleteFailed {
            vfid: src,
            message: "Permission denied (errno:13)".into(),
        },
        "vfolder_deletion_failure",
        &format!("92 d94a <{SRC}> bc 5065726d697373696f6e2064656e69656420286572726e6f3a313329"),
        &format!(r#"{{"vfid":"{SRC}","message":"Permission denied (errno:13)"}}"#),
    );
    check_work(
        Event::VFolderCloned { src, dst },
        "vfolder_clone_success",
        &format!("92 d94a <{SRC}> d94d <{DST}>"),
        &format!(r#"{{"vfid":"{SRC}","dst_vfid":"{DST}"}}"#),
    );
    let message = "boom".into();
    check_work(
        Event::VFolderCloneFailed { src, dst, message },
        "vfolder_clone_failure",
        &format!("93 d94a <{SRC}> d94d <{DST}> a4626f6f6d"),
        &format!(r#"{{"vfid":"{SRC}","dst_vfid":"{DST}","message":"boom"}}"#),
    );
}

#[test]
fn progress_has_the_recorded_bytes() {
    let task = task();
    let id = format!("d924 <{TASK}>");
    for (current, total, message, args, payload) in [
        (
            0,
            0,
            Some("Task started"),
            "00 00 ac5461736b2073746172746564",
            r#""current_progress":0.0,"total_progress":0.0,"message":"Task started""#,
        ),
        (
            3,
            10,
            Some("x"),
            "03 0a a178",
            r#""current_progress":3.0,"total_progress":10.0,"message":"x""#,
        ),
        (
            300,
            5_000_000_000,
            None,
            "cd012c cf000000012a05f200 c0",
            r#""current_progress":300.0,"total_progress":5000000000.0,"message":null"#,
        ),
    ] {
        let message = message.map(str::to_owned);
        check_work(
            Event::TaskUpdated {
                task,
                current,
                total,
                message,
            },
            "bgtask_updated",
            &format!("94 {id} {args}"),
            &format!(r#"{{"task_id":"{TASK}",{payload}}}"#),
        );
    }
}

#[test]
fn last_words_have_the_recorded_bytes() {
    let task = task();
    let id = format!("d924 <{TASK}>");
    let text = |message: &str| message.to_owned();
    for (event, name, args, message) in [
        (
            Event::TaskDone {
                task,
                message: text("Task completed successfully"),
            },
            "bgtask_done",
            "bb5461736b20636f6d706c65746564207375636365737366756c6c79",
            "Task completed successfully",
        ),
        (
            Event::TaskCancelled {
                task,
                message: text("Task cancelled"),
            },
            "bgtask_cancelled",
            "ae5461736b2063616e63656c6c6564",
            "Task cancelled",
        ),
        (
            Event::TaskFailed {
                task,
                message: text("OSError(5, 'x')"),
            },
            "bgtask_failed",
            "af4f534572726f7228352c2027782729",
            "OSError(5, 'x')",
        ),
    ] {
        let payload = format!(r#"{{"task_id":"{TASK}","message":"{message}"}}"#);
        check_work(event, name, &format!("92 {id} {args}"), &payload);
    }
    check_work(
        Event::TaskPartlyDone {
            task,
            message: text("msg"),
            errors: vec![text("e1"), text("e2")],
        },
        "bgtask_partial_success",
        &format!("93 {id} a36d7367 92 a26531 a26532"),
        &format!(r#"{{"task_id":"{TASK}","message":"msg","errors":["e1","e2"]}}"#),
    );
}

fn mount() -> DoVolumeMount {
    DoVolumeMount {
        dir_name: "qs/dir".into(),
        volume_backend_name: "hammerspace".into(),
        quota_scope_id: SCOPE.into(),
        fs_location: "nas:/share".into(),
        fs_type: "nfs".into(),
        cmd_options: None,
        scaling_group: None,
        edit_fstab: true,
        fstab_path: "/etc/fstab".into(),
    }
}

fn unmount() -> DoVolumeUnmount {
    DoVolumeUnmount {
        dir_name: "d".into(),
        volume_backend_name: "v".into(),
        quota_scope_id: SCOPE.into(),
        scaling_group: None,
        edit_fstab: false,
        fstab_path: None,
    }
}

fn reply(err_msg: Option<&str>) -> VolumeReply {
    VolumeReply {
        node_id: "i-sp".into(),
        node_type: VolumeReply::NODE_TYPE.into(),
        mount_path: "/mnt/d".into(),
        quota_scope_id: SCOPE.into(),
        err_msg: err_msg.map(str::to_owned),
    }
}

#[test]
fn events_about_mounts_have_the_recorded_bytes() {
    let scope = format!("d929 <{SCOPE}>");
    let payload = json!({"dir_name": "qs/dir", "volume_backend_name": "hammerspace",
        "quota_scope_id": SCOPE, "fs_location": "nas:/share", "fs_type": "nfs",
        "cmd_options": null, "scaling_group": null, "edit_fstab": true,
        "fstab_path": "/etc/fstab"});
    check(
        FleetEvent::DoVolumeMount(mount()),
        "do_volume_mount",
        &format!(
            "99 a671732f646972 ab68616d6d65727370616365 {scope} aa6e61733a2f7368617265 a36e6673 \
             c0 c0 c3 aa2f6574632f6673746162"
        ),
        &payload.to_string(),
    );
    let payload = json!({"dir_name": "d", "volume_backend_name": "v", "quota_scope_id": SCOPE,
        "scaling_group": null, "edit_fstab": false, "fstab_path": null});
    check(
        FleetEvent::DoVolumeUnmount(unmount()),
        "do_volume_unmount",
        &format!("96 a164 a176 {scope} c0 c2 c0"),
        &payload.to_string(),
    );
    for (err_msg, args) in [(None, "c0"), (Some("err"), "a3657272")] {
        let payload = json!({"node_id": "i-sp", "node_type": "storage_proxy",
            "mount_path": "/mnt/d", "quota_scope_id": SCOPE, "err_msg": err_msg});
        let args =
            format!("95 a4692d7370 ad73746f726167655f70726f7879 a62f6d6e742f64 {scope} {args}");
        let events = [
            (FleetEvent::VolumeMounted(reply(err_msg)), "volume_mounted"),
            (
                FleetEvent::VolumeUnmounted(reply(err_msg)),
                "volume_unmounted",
            ),
        ];
        for (event, name) in events {
            check(event, name, &args, &payload.to_string());
        }
    }
}

#[test]
fn events_about_services_are_binary() {
    let endpoint = ServiceEndpoint {
        role: "api".into(),
        scope: "cluster".into(),
        address: "127.0.0.1".into(),
        port: 20622,
        protocol: "http".into(),
        metadata: serde_json::Map::new(),
    };
    let record = ServiceRecord {
        instance_id: "sp-inst-1".into(),
        service_group: "storage-proxy".into(),
        display_name: "storage-local".into(),
        version: "26.8.1".into(),
        labels: serde_json::Map::new(),
        endpoints: vec![endpoint],
        startup_time: "2026-11-22T07:29:23.098157Z".into(),
        config_hash: String::new(),
    };
    let inner = concat!(
        r#"{"instance_id":"sp-inst-1","service_group":"storage-proxy","#,
        r#""display_name":"storage-local","version":"26.8.1","labels":{},"endpoints":["#,
        r#"{"role":"api","scope":"cluster","address":"127.0.0.1","port":20622,"#,
        r#""protocol":"http","metadata":{}}],"config_hash":""}"#
    );
    let start = "2026-11-22T07:29:23.098157";
    check(
        FleetEvent::ServiceRegistered(record),
        "service_registered",
        &format!("92 c4fc <{inner}> c420 <{start}+00:00>"),
        &inner.replace(
            r#""config_hash""#,
            &format!(r#""startup_time":"{start}Z","config_hash""#),
        ),
    );
    check(
        FleetEvent::ServiceDeregistered {
            instance_id: "sp-inst-1".into(),
            service_group: "storage-proxy".into(),
        },
        "service_deregistered",
        "92 c409 <sp-inst-1> c40d <storage-proxy>",
        r#"{"instance_id":"sp-inst-1","service_group":"storage-proxy"}"#,
    );
}

#[test]
fn events_about_models_hold_no_extension() {
    let model = FetchedModel {
        model_id: "org/model".into(),
        revision: "main".into(),
        kind: ArtifactKind::HuggingFace,
        registry: "hf".into(),
    };
    let named = "a9<org/model> a4<main> ab<huggingface> a2<hf>";
    let payload = concat!(
        r#""model_id":"org/model","revision":"main","registry_type":"huggingface","#,
        r#""registry_name":"hf""#
    );
    check(
        FleetEvent::ModelVerifying(model.clone()),
        "model_verifying",
        &format!("94 {named}"),
        &format!("{{{payload}}}"),
    );
    check(
        FleetEvent::ModelImportDone(ImportDone {
            model: model.clone(),
            success: true,
            digest: Some("abc".into()),
            verification: Some(json!({"verifiers": {"clamav": {"scan_time": 1.5}}})),
        }),
        "model_import_done",
        &format!(
            "97 {named} c3 a3<abc> 81a9<verifiers>81a6<clamav>81a9<scan_time>cb3ff8000000000000"
        ),
        &format!(
            r#"{{{payload},"success":true,"digest":"abc","verification_result":{}}}"#,
            r#"{"verifiers":{"clamav":{"scan_time":1.5}}}"#
        ),
    );
    check(
        FleetEvent::ModelMetadataFetched {
            model,
            readme: "# hi".into(),
            bytes: 12_345_678_901,
        },
        "models_metadata_fetch_done",
        "96 a9<org/model> a4<main> a4<# hi> a2<hf> ab<huggingface> cf00000002dfdc1c35",
        concat!(
            r##"{"model":{"model_id":"org/model","revision":"main","readme_content":"# hi","##,
            r#""registry_type":"huggingface","registry_name":"hf","size":12345678901}}"#
        ),
    );
}

#[test]
fn a_frame_is_sent_as_recorded_with_one_member_more() {
    let message = "Task completed successfully".to_owned();
    let event = FleetEvent::Work(Event::TaskDone {
        task: task(),
        message,
    });
    let old = concat!(
        r#"{"name":"bgtask_done","source":"storage","args":""#,
        "ktkkYWFhYWFhYWEtYmJiYi00Y2NjLThkZGQtZWVlZWVlZWVlZWVlu1Rhc2sgY29tcGxldGVkIHN1Y2Nlc3NmdWxs",
        r#"eQ==","metadata":"{\"request_id\":null,\"user\":null}"}"#
    );
    let new = r#""payload":"{\"task_id\":\"ID\",\"message\":\"Task completed successfully\"}","#;
    let new = new.replace("ID", TASK);
    let want = old.replace(r#""metadata""#, &format!(r#"{new}"metadata""#));
    assert_eq!(Frame::of(&event, None).message(), want);
    let named = Frame::of(&event, Some("req-9"));
    assert_eq!(named.metadata, r#"{"request_id":"req-9","user":null}"#);

    let frame = Frame::of(&event, None);
    let packed = frame.xadd().get_packed_command();
    let text = String::from_utf8_lossy(&packed);
    let words: Vec<&str> = text.split("\r\n").skip(2).step_by(2).collect();
    let head = [
        "XADD",
        "events",
        "MAXLEN",
        "~",
        "128",
        "*",
        "name",
        "bgtask_done",
    ];
    assert_eq!(words[..8], head);
    assert_eq!(words[8..11], ["source", "storage", "args"]);
    assert_eq!((words[12], words[14]), ("payload", "metadata"));
    assert_eq!(words.len(), 16);
}

fn message(name: &str, args: Option<&[u8]>, payload: Option<&Value>) -> Vec<u8> {
    let mut message = json!({"name": name, "source": "agent", "metadata": "{}"});
    if let Some(args) = args {
        message["args"] = BASE64.encode(args).into();
    }
    if let Some(payload) = payload {
        message["payload"] = payload.to_string().into();
    }
    message.to_string().into_bytes()
}

#[test]
fn requests_are_read_in_either_form() {
    let mount_frame = Frame::of(&FleetEvent::DoVolumeMount(mount()), None);
    let unmount_frame = Frame::of(&FleetEvent::DoVolumeUnmount(unmount()), None);
    for (frame, want) in [
        (mount_frame, Request::Mount(mount())),
        (unmount_frame, Request::Unmount(unmount())),
    ] {
        let payload: Value = serde_json::from_str(&frame.payload).unwrap();
        for (args, payload) in [
            (Some(frame.args.as_slice()), None),
            (None, Some(&payload)),
            // The new form counts where both are there.
            (Some(b"\xc1".as_slice()), Some(&payload)),
        ] {
            let got = receive(&message(&frame.name, args, payload)).unwrap();
            assert_eq!(got.as_ref(), Some(&want));
        }
        assert_eq!(receive(frame.message().as_bytes()).unwrap(), Some(want));
    }
    // Members with a default may be missing.
    let short = json!({"dir_name": "qs/dir", "volume_backend_name": "hammerspace",
        "quota_scope_id": SCOPE, "fs_location": "nas:/share", "more": [1]});
    let want = DoVolumeMount {
        edit_fstab: false,
        ..mount()
    };
    let args = Packed::list(["qs/dir", "hammerspace", SCOPE, "nas:/share"]).pack();
    for (args, payload) in [(None, Some(&short)), (Some(args.as_slice()), None)] {
        let got = receive(&message("do_volume_mount", args, payload)).unwrap();
        assert_eq!(got, Some(Request::Mount(want.clone())));
    }
}

#[test]
fn what_is_not_asked_of_us_is_dropped_and_nonsense_refused() {
    for name in [
        "bgtask_done",
        "session_started",
        "volume_mounted",
        "do_volume_x",
    ] {
        assert_eq!(
            receive(&message(name, Some(b"\xc1"), None)).unwrap(),
            None,
            "{name}"
        );
    }
    let deep = format!("{}do_volume_mount{}", "[".repeat(9000), "]".repeat(9000));
    let nested = [vec![0x91; 20], vec![0xc0]].concat();
    for (what, message) in [
        ("no body", message("do_volume_mount", None, None)),
        ("no list", message("do_volume_mount", Some(b"\xc0"), None)),
        (
            "too few",
            message("do_volume_mount", Some(b"\x91\xa1x"), None),
        ),
        (
            "bytes",
            message("do_volume_mount", Some(b"\x91\xc4\x01x"), None),
        ),
        (
            "extension",
            message("do_volume_mount", Some(b"\x91\xd4\x06x"), None),
        ),
        (
            "a long list",
            message("do_volume_mount", Some(b"\xdd\xff\xff\xff\xff"), None),
        ),
        ("depth", message("do_volume_mount", Some(&nested), None)),
        (
            "other JSON",
            message("do_volume_mount", None, Some(&json!({"dir_name": 5}))),
        ),
        ("deep JSON", deep.into_bytes()),
        ("cut", b"{\"name\":\"do_volume_mount\"".to_vec()),
        ("long", vec![b' '; MESSAGE_BYTES_MAX + 1]),
    ] {
        assert!(receive(&message).is_err(), "{what}");
    }
}

#[test]
fn numbers_take_their_shortest_form_and_come_back() {
    for number in [
        0,
        127,
        128,
        255,
        256,
        65535,
        65536,
        u64::from(u32::MAX),
        u64::MAX,
    ] {
        let packed = Packed::Int(number).pack();
        assert_eq!(unpack(&packed), Ok(Packed::Int(number)));
    }
    for (number, len) in [
        (-1, 1),
        (-32, 1),
        (-33, 2),
        (-129, 3),
        (-40_000, 5),
        (i64::MIN, 9),
    ] {
        let packed = Packed::Negative(number).pack();
        assert_eq!(packed.len(), len, "{number}");
        assert_eq!(unpack(&packed), Ok(Packed::Negative(number)));
    }
    for len in [0, 31, 32, 255, 256, 65535, 65536] {
        let text = Packed::Text("x".repeat(len));
        assert_eq!(unpack(&text.pack()), Ok(text));
        let bytes = Packed::Bytes(vec![7; len]);
        assert_eq!(unpack(&bytes.pack()), Ok(bytes));
    }
    for len in [0, 15, 16, 70_000] {
        let list = Packed::List(vec![Packed::Nil; len]);
        assert_eq!(unpack(&list.pack()), Ok(list));
    }
    assert_eq!(unpack(b"\xcb\x40\x0c\0\0\0\0\0\0"), Ok(Packed::Float(3.5)));
    assert_eq!(unpack(b"\xca\x40\x60\0\0"), Ok(Packed::Float(3.5)));
    assert_eq!(unpack(b"\xc0\xc0"), Err(UnpackError::Surplus));
}

proptest! {
    #[test]
    fn nothing_that_is_received_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = unpack(&bytes);
        let _ = receive(&bytes);
        let _ = receive(&message("do_volume_mount", Some(&bytes), None));
        let text = String::from_utf8_lossy(&bytes);
        let _ = receive(&message("do_volume_unmount", None, Some(&json!(text))));
    }

    #[test]
    fn nothing_that_resembles_a_request_panics(
        at in 0usize..400,
        byte in any::<u8>(),
        cut in 0usize..400,
    ) {
        let frame = Frame::of(&FleetEvent::DoVolumeMount(mount()), None);
        let mut args = frame.args;
        if let Some(old) = args.get_mut(at) {
            *old = byte;
        }
        args.truncate(cut);
        let _ = receive(&message("do_volume_mount", Some(&args), None));
    }
}
