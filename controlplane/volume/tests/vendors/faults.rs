//! What goes wrong between us and a storage system, and between a beginning and an end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_simulators::{Fault, What};
use proxy_volume::{Capability, Cause, HwStatus, Limits, SnapshotName, Spec, VolumeError, Volumes};
use serde_json::{Map, json};

use crate::bed::{
    MIB, Scene, cause, in_the_end, other_scope, reins, scope, vendor_error, vfid, write,
};

/// Something that asks the storage system, whatever the backend.
fn ask(scene: &Scene) -> Result<(), VolumeError> {
    if scene.can(Capability::Metric) {
        return scene.run(scene.volume.metric()).map(drop);
    }
    scene.run(scene.volume.describe_scope(scope())).map(drop)
}

pub fn down(scene: &mut Scene) {
    let (one, dir) = scene.folder(1);
    write(&dir, "file", 10);
    ask(scene).unwrap();
    scene.bed.sim.stop();
    let begin = Instant::now();
    let got = cause(ask(scene));
    assert!(
        matches!(got, Cause::Unreachable | Cause::Suspended),
        "{got:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(30));
    if scene.can(Capability::FastFsSize) {
        let info = scene.run(scene.volume.hwinfo()).unwrap();
        assert_eq!(info.status, HwStatus::Unavailable);
    }
    // The mount is still there.
    let usage = scene.run(scene.volume.usage(one)).unwrap();
    assert_eq!(usage.file_count, 1);
    scene
        .run(scene.volume.create_folder(vfid(2), 0o755, None, true))
        .unwrap();
    scene.run(scene.volume.delete_folder(one, reins())).unwrap();
    scene.bed.sim.resume();
    in_the_end(|| ask(scene));
}

/// What goes to the Manager while the system is down, and while the credentials are wrong.
pub fn told(scene: &mut Scene) {
    let body = |error: VolumeError| {
        let answer = error.answer();
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, body)
    };
    ask(scene).unwrap();
    let system = {
        let secret = scene.bed.secret_option;
        let right = scene.bed.options.insert(secret.to_owned(), json!("wrong"));
        scene.restart();
        let (status, body) = body(ask(scene).unwrap_err());
        assert!((400..600).contains(&status), "{body}");
        assert_eq!(body["data"]["retry"], false, "{body}");
        assert_eq!(body["data"]["cause"], "unauthorized", "{body}");
        scene.bed.options.insert(secret.to_owned(), right.unwrap());
        scene.restart();
        body["data"]["system"].as_str().unwrap().to_owned()
    };
    scene.bed.sim.stop();
    let mut answers = vec![ask(scene).unwrap_err()];
    if scene.can(Capability::FastFsSize) {
        answers.push(scene.run(scene.volume.fs_usage()).unwrap_err());
        let info = scene.run(scene.volume.hwinfo()).unwrap();
        let text = info.status_info.expect("why it is not available");
        assert!(text.contains(&system), "{text}");
    }
    for error in answers {
        let (status, body) = body(error);
        assert_eq!(status, 500, "{body}");
        assert_eq!(body["data"]["retry"], true, "{body}");
        assert_eq!(body["data"]["system"], *system, "{body}");
        assert!(body["msg"].as_str().unwrap().contains(&system), "{body}");
    }
}

/// A folder is deleted while the storage system is down; its snapshots go when it is back.
pub fn owed(scene: &mut Scene) {
    if !scene.can(Capability::Snapshot) {
        return;
    }
    let name = || SnapshotName::parse("kept").unwrap();
    let listed = |scene: &Scene| {
        let (one, _) = scene.folder(1);
        let found = scene.run(scene.volume.snapshots(one)).unwrap();
        found.len()
    };
    for by_repetition in [true, false] {
        let (one, _) = scene.folder(1);
        let made = scene.volume.create_snapshot(one, name(), None, reins());
        scene.run(made).unwrap();
        scene.bed.sim.stop();
        scene.run(scene.volume.delete_folder(one, reins())).unwrap();
        scene.bed.sim.resume();
        in_the_end(|| ask(scene));
        if by_repetition {
            scene.run(scene.volume.delete_folder(one, reins())).unwrap();
        } else {
            let policy = proxy_volume::Retention::default();
            let looked = scene.volume.retain_snapshots(None, policy, reins());
            scene.run(looked).unwrap();
        }
        assert_eq!(listed(scene), 0, "by repetition: {by_repetition}");
        // The folder that looked for them goes as well.
        scene.run(scene.volume.delete_folder(one, reins())).unwrap();
    }
}

pub fn counted(scene: &mut Scene) {
    ask(scene).unwrap();
    let ledger = scene.volume.ledger().expect("it asks somebody");
    let (stats, tallies) = (ledger.stats(), ledger.tallies());
    assert!(
        stats.tries > 0 && stats.calls > 0 && !stats.is_suspended,
        "{stats:?}"
    );
    let all: u64 = tallies.iter().map(|tally| tally.count).sum();
    assert_eq!(all, stats.calls, "{tallies:?}");
    scene.bed.sim.stop();
    for _ in 0..8 {
        let _ = ask(scene);
    }
    let ledger = scene.volume.ledger().unwrap();
    let stats = ledger.stats();
    assert!(stats.is_suspended && stats.suspended > 0, "{stats:?}");
    assert!(stats.failures > 0 && stats.retries > 0, "{stats:?}");
    let outcomes: Vec<_> = ledger.tallies().iter().map(|one| one.outcome).collect();
    for outcome in ["unreachable", "suspended"] {
        assert!(outcomes.contains(&outcome), "{outcomes:?}");
    }
    scene.bed.sim.resume();
    in_the_end(|| ask(scene));
    assert!(!scene.volume.ledger().unwrap().stats().is_suspended);
}

pub fn down_at_start(scene: &mut Scene) {
    scene.bed.sim.stop();
    let plain = tempfile::tempdir().unwrap();
    let other = Spec {
        name: "plain".to_owned(),
        backend: "vfs".to_owned(),
        path: plain.path().to_owned(),
        fsprefix: ".".to_owned(),
        options: Map::new(),
    };
    let specs = vec![scene.bed.spec(), other];
    let volumes = Volumes::new(specs, &Limits::default()).expect("nothing is asked at the start");
    scene.run(volumes.open_all());
    let plain = volumes.find("plain").unwrap();
    scene.run(plain.create_scope(scope(), None)).unwrap();
    scene.volume = volumes.find("v1").unwrap();
    let capabilities = scene.volume.capabilities();
    assert!(
        capabilities.contains(&Capability::VFolder),
        "what it can do does not change"
    );
    cause(scene.create_scope(Some(MIB)).and_then(|()| ask(scene)));
    scene.bed.sim.resume();
    in_the_end(|| ask(scene));
}

pub fn slow(scene: &mut Scene) {
    let delay = Duration::from_millis(300);
    scene
        .bed
        .sim
        .inject(Fault::new(What::Delay(delay)).times(3));
    ask(scene).unwrap();
    scene.create_scope(Some(MIB)).unwrap();
}

pub fn wrong_credentials(scene: &mut Scene) {
    let secret = "wrong-horse-battery";
    let key = scene.bed.secret_option;
    scene.bed.options.insert(key.to_owned(), json!(secret));
    scene.restart();
    let error = vendor_error(ask(scene));
    assert_eq!(error.cause, Cause::Unauthorized, "{error}");
    assert!(!error.to_string().contains(secret), "{error}");
}

pub fn stranger(scene: &mut Scene) {
    let key = scene.bed.ca_option;
    scene.bed.options.remove(key);
    scene.restart();
    let error = vendor_error(ask(scene));
    assert_eq!(error.cause, Cause::Unreachable, "{error}");
    assert!(error.text.contains(key), "{error}");
}

pub fn throttled(scene: &mut Scene) {
    ask(scene).unwrap();
    scene
        .bed
        .sim
        .inject(Fault::new(What::Throttle(429, 0)).times(2));
    ask(scene).unwrap();
    scene
        .bed
        .sim
        .inject(Fault::new(What::Throttle(503, 0)).times(2));
    scene.create_scope(Some(MIB)).unwrap();
    scene
        .bed
        .sim
        .inject(Fault::new(What::Throttle(429, 3600)).always());
    assert_eq!(cause(ask(scene)), Cause::Throttled, "an hour is not waited");
}

pub fn expired(scene: &mut Scene) {
    ask(scene).unwrap();
    scene.bed.sim.expire();
    ask(scene).unwrap();
    scene.bed.sim.expire();
    scene.create_scope(Some(MIB)).unwrap();
}

pub fn late_jobs(scene: &mut Scene) {
    let Some(jobs) = scene.bed.sim.jobs() else {
        return;
    };
    jobs.take(4);
    scene.create_scope(Some(MIB)).unwrap();
    scene.settles(|quota| quota.limit_bytes == Some(MIB));
}

pub fn endless_job(scene: &mut Scene) {
    let options = &mut scene.bed.options;
    options.insert("api_job_timeout".to_owned(), json!(0.3));
    scene.restart();
    let Some(jobs) = scene.bed.sim.jobs() else {
        return;
    };
    jobs.never_end_next();
    let begin = Instant::now();
    let error = vendor_error(scene.create_scope(Some(MIB)));
    assert_eq!(error.cause, Cause::Late, "{error}");
    assert!(error.cause.may_retry() && begin.elapsed() < Duration::from_secs(20));
    // Its work was never done: a second try does it.
    scene.create_scope(Some(MIB)).unwrap();
    scene.settles(|quota| quota.limit_bytes == Some(MIB));
}

pub fn failed_job(scene: &mut Scene) {
    let Some(jobs) = scene.bed.sim.jobs() else {
        return;
    };
    jobs.take(2);
    jobs.fail_next("7654321", "the disk ate it");
    let error = vendor_error(scene.create_scope(Some(MIB)));
    assert_eq!(error.cause, Cause::JobFailed);
    // Not every vendor has a place of its own for the code.
    for told in ["7654321", "the disk ate it"] {
        assert!(error.to_string().contains(told), "{error}");
    }
    scene.create_scope(Some(MIB)).unwrap();
    scene.settles(|quota| quota.limit_bytes == Some(MIB));
}

/// The creation of a scope breaks off before and after each of its steps; the program starts
/// anew, and the second creation ends as if it were the first.
pub fn restart(scene: &mut Scene) {
    for (number, (method, path)) in scene.bed.steps.iter().enumerate() {
        for what in [What::Drop, What::DropAfter] {
            scene
                .bed
                .sim
                .inject(Fault::new(what.clone()).on(method, path).always());
            let broken = scene.create_scope(Some(MIB));
            let at = format!("{what:?} at {method} {path} (step {number}): {broken:?}");
            scene.bed.sim.heal();
            scene.restart();
            match (broken, scene.create_scope(Some(MIB))) {
                (Err(_), Ok(())) => {}
                // The step was done, and what the second try found was complete.
                (_, Err(VolumeError::ScopeExists(_))) => {}
                (_, second) => panic!("{at}: {second:?}"),
            }
            if scene.can(Capability::Quota) {
                scene.settles(|quota| quota.limit_bytes == Some(MIB));
            }
            let other = scene.run(scene.volume.describe_scope(other_scope()));
            assert_eq!(other, Ok(None), "{at}");
            fresh(scene);
        }
    }
}

/// Another simulator and directory of the same kind.
fn fresh(scene: &mut Scene) {
    let make = crate::beds::of(scene.bed.backend);
    scene.bed = make();
    scene.restart();
}

pub fn options(scene: &mut Scene) {
    let build = |spec: Spec| Volumes::new(vec![spec], &Limits::default()).err();
    let fault = |spec| build(spec).map_or_else(String::new, |error| error.to_string());
    let with = |key: &str, value: serde_json::Value| {
        let mut spec = scene.bed.spec();
        spec.options.insert(key.to_owned(), value);
        spec
    };
    let required = proxy_volume::options_of(scene.volume.kind());
    let required = required.into_iter();
    let required = required.filter(|row| row.default == proxy_volume::Absent::Refused);
    for row in required {
        let mut spec = scene.bed.spec();
        spec.options.remove(row.key);
        let text = fault(spec);
        assert!(
            text.starts_with(&format!("volume.v1.options.{}: is missing", row.key)),
            "{text}"
        );
        let text = fault(with(row.key, json!({})));
        assert!(
            text.starts_with(&format!("volume.v1.options.{}: must be", row.key)),
            "{text}"
        );
    }
    let (endpoint, ca) = (scene.bed.endpoint, scene.bed.ca_option);
    assert!(fault(with(endpoint, json!("no url"))).contains(endpoint));
    assert!(fault(with(ca, json!("/nowhere/at/all"))).contains(ca));
    assert_eq!(
        fault(with("unknown_option", json!(1))),
        "",
        "told, and ignored"
    );
    let spec = scene.bed.spec();
    let volumes = Volumes::new(vec![spec], &Limits::default()).unwrap();
    let volume = Arc::clone(&volumes.find("v1").unwrap());
    assert_eq!(volume.kind().wire(), scene.bed.backend);
}
