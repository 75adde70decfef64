//! Events survive what they have to survive.
#![allow(clippy::unwrap_used)]
use std::io::Write as _;

use proxy_core::id::VFolderId;
use proxy_state::Event;
use tempfile::TempDir;

use super::*;
use crate::frame::{FleetEvent, Frame};

fn kept(number: u64, last_of: Option<TaskId>) -> Kept {
    let vfid = VFolderId::parse(&format!("{number:032x}")).unwrap();
    let event = FleetEvent::Work(Event::VFolderDeleted { vfid });
    Kept::new(&Frame::of(&event, Some("req")), last_of)
}

fn open(dir: &TempDir) -> Outbox {
    Outbox::open(&dir.path().join("outbox"), OutboxLimits::default()).unwrap()
}

/// What would be sent, in order.
fn drain(outbox: &Outbox) -> Vec<String> {
    let mut payloads = Vec::new();
    while let Some((number, kept)) = outbox.first() {
        let payload = kept.frame().unwrap().payload;
        let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
        payloads.push(payload["vfid"].as_str().unwrap()[30..].to_owned());
        outbox.strike(number);
    }
    payloads
}

#[tokio::test]
async fn what_was_synced_is_there_again_in_its_order() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    let numbers: Vec<u64> = (0..5).map(|n| outbox.put(kept(n, None), false)).collect();
    outbox.strike(numbers[1]);
    assert!(outbox.sync().await);
    // As after kill -9: the old one still lives.
    let again = open(&dir);
    assert_eq!(again.len(), 4);
    let (_, first) = again.first().unwrap();
    assert!(first.is_old);
    let mut frame = first.frame().unwrap();
    assert_eq!(frame.metadata, r#"{"request_id":"req","user":null}"#);
    frame.name = "vfolder_deletion_success".into();
    assert_eq!(Kept::new(&frame, None).frame(), kept(0, None).frame());
    again.put(kept(9, None), false);
    assert_eq!(drain(&again), ["00", "02", "03", "04", "09"]);
    drop(again);
    assert_eq!(open(&dir).len(), 0);
}

#[tokio::test]
async fn held_events_wait_for_their_release() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    let task = TaskId::random();
    let held = outbox.put(kept(1, Some(task)), true);
    let other = outbox.put(kept(2, Some(TaskId::random())), true);
    outbox.put(kept(3, None), false);
    assert!(outbox.sync().await);
    outbox.release(other);
    let again = open(&dir);
    assert_eq!(outbox.held(), [(held, task)]);
    assert!(again.held().contains(&(held, task)));
    assert_eq!(drain(&outbox), ["02", "03"]);
    outbox.release(held);
    assert_eq!(drain(&outbox), ["01"]);
}

#[test]
fn too_many_events_cost_the_oldest_last_words_first() {
    let dir = TempDir::new().unwrap();
    let limits = OutboxLimits {
        len_max: 4,
        ..OutboxLimits::default()
    };
    let outbox = Outbox::open(&dir.path().join("outbox"), limits).unwrap();
    let held = outbox.put(kept(0, Some(TaskId::random())), true);
    outbox.put(kept(1, None), false);
    outbox.put(kept(2, Some(TaskId::random())), false);
    for number in 3..7 {
        outbox.put(kept(number, None), false);
    }
    assert_eq!((outbox.len(), outbox.dropped()), (4, 3));
    outbox.release(held);
    assert_eq!(drain(&outbox), ["00", "04", "05", "06"]);
}

#[tokio::test]
async fn a_torn_end_costs_its_own_line_only() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("outbox");
    for (junk, left) in [
        ("{\"put\":7,\"held\":fal", 1),
        ("\0\0\0\0", 2),
        ("\n\nnonsense\n{\"put\":3}", 3),
    ] {
        let outbox = open(&dir);
        outbox.put(kept(left, None), false);
        assert!(outbox.sync().await);
        drop(outbox);
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(junk.as_bytes()).unwrap();
        assert_eq!(open(&dir).len() as u64, left, "{junk:?}");
    }
}

#[tokio::test]
async fn history_does_not_stay_in_the_file() {
    let dir = TempDir::new().unwrap();
    let outbox = open(&dir);
    let stays = outbox.put(kept(1, None), false);
    for number in 0..6000 {
        let gone = outbox.put(kept(number, None), false);
        outbox.strike(gone);
        if number % 500 == 0 {
            assert!(outbox.sync().await);
        }
    }
    assert!(outbox.sync().await);
    drop(outbox);
    let bytes = std::fs::metadata(dir.path().join("outbox")).unwrap().len();
    assert!(bytes < 2 << 20, "{bytes}");
    let again = open(&dir);
    assert_eq!(again.first().unwrap().0, stays);
    assert_eq!(drain(&again), ["01"]);
}
