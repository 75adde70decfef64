//! The handlers of background tasks, alone and in a runner with a store.

use std::sync::Arc;

use proxy_core::id::TaskId;
use proxy_state::{
    EmbeddedStore, Event, Handler, Outcome, RecordSink, Runner, RunnerOptions, Stop, StopReason,
    StoreOptions, TaskContext, TaskError,
};
use proxy_volume::tasks::{CLONE_VFOLDER, DELETE_FILES, DELETE_VFOLDER, handlers};
use serde_json::{Value, json};

use crate::scene::{FOLDER, OTHER, Scene, describe, make, rel, vfid};

fn handler(scene: &Scene, name: &str) -> Arc<dyn Handler> {
    handlers(&scene.volumes)
        .into_iter()
        .find(|handler| handler.name() == name)
        .unwrap()
}

/// Runs one task; returns what it came to and the events about folders.
fn run(
    scene: &Scene,
    name: &str,
    body: Value,
    stop: Stop,
) -> (Result<Outcome, TaskError>, Vec<Event>) {
    let sink = Arc::new(RecordSink::default());
    let context = TaskContext::detached(sink.clone(), stop);
    let done = scene.run(handler(scene, name).run(&body, context));
    let about = |event: &Event| !matches!(event, Event::TaskUpdated { .. });
    (done, sink.events().into_iter().filter(about).collect())
}

fn clone_body() -> Value {
    json!({"volume": "v1", "src_vfolder": FOLDER, "dst_vfolder": OTHER})
}

#[test]
fn a_clone_says_so_when_it_is_there() {
    let scene = Scene::new();
    scene.arrange(&["f=x", "p|"]);
    let (src, dst) = (vfid(FOLDER), vfid(OTHER));
    let (done, events) = run(&scene, CLONE_VFOLDER, clone_body(), Stop::never());
    assert_eq!(
        done,
        Ok(Outcome::DoneWith(
            "1 special files were not copied: p".to_owned()
        ))
    );
    assert_eq!(events, [Event::VFolderCloned { src, dst }]);
    let (done, events) = run(&scene, CLONE_VFOLDER, clone_body(), Stop::never());
    let message = format!("vfolder exists already: {OTHER}");
    assert_eq!(done, Err(TaskError::Failed(message.clone())));
    assert_eq!(events, [Event::VFolderCloneFailed { src, dst, message }]);
}

#[test]
fn a_deletion_says_so_also_when_there_was_nothing() {
    let scene = Scene::new();
    scene.arrange(&["f=x"]);
    let body = json!({"volume": "v1", "vfolder_id": FOLDER});
    for _ in 0..2 {
        let (done, events) = run(&scene, DELETE_VFOLDER, body.clone(), Stop::never());
        assert_eq!(done, Ok(Outcome::Done));
        assert_eq!(events, [Event::VFolderDeleted { vfid: vfid(FOLDER) }]);
    }
    let body = json!({"volume": "v9", "vfolder_id": FOLDER});
    let (done, events) = run(&scene, DELETE_VFOLDER, body, Stop::never());
    let message = "no such volume: v9".to_owned();
    assert_eq!(done, Err(TaskError::Failed(message.clone())));
    assert_eq!(
        events,
        [Event::VFolderDeleteFailed {
            vfid: vfid(FOLDER),
            message
        }]
    );
}

#[test]
fn files_are_deleted_without_events() {
    let scene = Scene::new();
    scene.arrange(&["a=1", "d/b=2", "e/c=3"]);
    let body = |paths: Value, recursive| {
        json!({
            "volume": "v1",
            "vfolder_id": FOLDER,
            "relpaths": paths,
            "recursive": recursive,
        })
    };
    let (done, events) = run(
        &scene,
        DELETE_FILES,
        body(json!(["a", "d"]), true),
        Stop::never(),
    );
    assert_eq!((done, events), (Ok(Outcome::Done), vec![]));
    assert_eq!(scene.found(), ["e/", "e/c=3"]);
    let (done, _) = run(
        &scene,
        DELETE_FILES,
        body(json!(["e"]), false),
        Stop::never(),
    );
    assert!(matches!(done, Ok(Outcome::DoneWith(text)) if text.contains("not empty")));
    for bad in ["/etc/passwd", "../x"] {
        let (done, events) = run(
            &scene,
            DELETE_FILES,
            body(json!(["e", bad]), true),
            Stop::never(),
        );
        let text = format!("path is outside of the vfolder {FOLDER}: {bad}");
        assert_eq!((done, events), (Err(TaskError::Failed(text)), vec![]));
    }
    assert_eq!(scene.found(), ["e/", "e/c=3"]);
}

#[test]
fn a_task_that_is_told_to_stop_says_nothing_itself() {
    let scene = Scene::new();
    scene.arrange(&["f=x"]);
    for (name, body) in [
        (CLONE_VFOLDER, clone_body()),
        (
            DELETE_VFOLDER,
            json!({"volume": "v1", "vfolder_id": FOLDER}),
        ),
    ] {
        // Nothing can be done before the stop is seen: another task holds the volume's places.
        let (switch, stop) = Stop::pair();
        switch.stop(StopReason::Shutdown);
        let (done, events) = run(&scene, name, body.clone(), stop);
        if done == Err(TaskError::Stopped) {
            assert_eq!(events, []);
        }
        assert_eq!(handler(&scene, name).last_words(&body, "why").len(), 1);
    }
}

#[test]
fn bodies_that_make_no_sense_fail_their_task() {
    let scene = Scene::new();
    for name in [CLONE_VFOLDER, DELETE_VFOLDER, DELETE_FILES] {
        for body in [json!(null), json!({}), json!({"volume": 1}), json!([])] {
            let (done, events) = run(&scene, name, body.clone(), Stop::never());
            assert!(matches!(done, Err(TaskError::Failed(_))), "{name} {body}");
            assert_eq!(events, []);
            assert!(handler(&scene, name).last_words(&body, "why").is_empty());
        }
    }
}

#[test]
fn a_runner_finishes_what_a_crash_interrupted() {
    let scene = Scene::new();
    scene.arrange(&["d/f=x"]);
    let scope = scene.scope_dir();
    let leftover = ".clone-fedcba9876543210fedcba9876543210-00112233445566778899aabbccddeeff";
    make(&scope, &format!("{leftover}/half=x"));
    let state = scene.home.path().join("state.redb");
    let sink = Arc::new(RecordSink::default());
    scene.run(async {
        let store = Arc::new(EmbeddedStore::open(&state, StoreOptions::default()).unwrap());
        let runner = Runner::start(
            store.clone(),
            sink.clone(),
            handlers(&scene.volumes),
            RunnerOptions::default(),
        )
        .await
        .unwrap();
        let clone = runner
            .submit(CLONE_VFOLDER, clone_body(), "v1")
            .await
            .unwrap();
        wait_for(&sink, clone).await;
        let body = json!({"volume": "v1", "vfolder_id": FOLDER});
        let delete = runner.submit(DELETE_VFOLDER, body, "v1").await.unwrap();
        wait_for(&sink, delete).await;
        runner.shutdown(std::time::Duration::from_secs(5)).await;
    });
    let copy = scene
        .run(scene.volume.mount_path(vfid(OTHER), rel("")))
        .unwrap();
    assert_eq!(describe(&copy), ["d/", "d/f=x"]);
    assert!(!scene.root.exists());
    assert!(!scope.join(leftover).exists());
    let names = sink.names();
    assert!(names.contains(&"vfolder_clone_success"), "{names:?}");
    assert!(names.contains(&"vfolder_deletion_success"), "{names:?}");
}

async fn wait_for(sink: &RecordSink, task: TaskId) {
    let ended = |event: &Event| match event {
        Event::TaskDone { task: id, .. } => *id == task,
        Event::TaskFailed { message, .. } => panic!("{message}"),
        _ => false,
    };
    while !sink.events().iter().any(ended) {
        tokio::task::yield_now().await;
    }
}
