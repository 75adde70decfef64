//! What must not be seen: passwords, tokens, sessions.
//!
//! Method: all lines of the log, of every level and with all their fields, and all errors of a run
//! in which much goes wrong are searched for what was configured and for what the simulator gave
//! out.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use proxy_simulators::{Fault, What};
use proxy_volume::{Capability, SnapshotName};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::bed::{MIB, Scene, reins, scope};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Does much of what a volume can do, and gives all that came back as text.
fn busy(scene: &Scene) -> String {
    let (one, _) = scene.folder(1);
    let mut told = Vec::new();
    let volume = &scene.volume;
    told.push(format!("{:?}", scene.create_scope(Some(MIB))));
    told.push(format!("{:?}", scene.describe()));
    told.push(format!(
        "{:?}",
        scene.run(volume.update_scope(scope(), 2 * MIB))
    ));
    told.push(format!("{:?}", scene.run(volume.fs_usage())));
    told.push(format!("{:?}", scene.run(volume.hwinfo())));
    told.push(format!("{:?}", scene.run(volume.metric())));
    if scene.can(Capability::Snapshot) {
        let name = || SnapshotName::parse("a").unwrap();
        let made = volume.create_snapshot(one, name(), None, reins());
        told.push(format!("{:?}", scene.run(made)));
        let gone = volume.delete_snapshot(one, name(), reins());
        told.push(format!("{:?}", scene.run(gone)));
    }
    told.push(format!("{:?}", scene.run(volume.unset_scope(scope()))));
    told.join("\n")
}

/// What the simulator was sent as proof, and what it gave out for it.
fn secrets(scene: &Scene) -> Vec<String> {
    let configured = scene.bed.options[scene.bed.secret_option].as_str().unwrap();
    let mut all = vec![configured.to_owned()];
    let proofs = ["authorization", "cookie", "x-auth-token", "x-csrf-token"];
    for request in scene.bed.sim.requests() {
        let request = request.request;
        for name in proofs.iter().chain(&["api-token"]) {
            let Some(value) = request.header(name) else {
                continue;
            };
            all.push(value.to_owned());
            let parts = value.split([' ', ';', '=']).map(str::trim);
            all.extend(parts.filter(|part| 8 < part.len()).map(str::to_owned));
        }
    }
    all.sort();
    all.dedup();
    all
}

pub fn silent(scene: &mut Scene) {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(lines.clone())
        .finish();
    // Set for the process: calls are made on threads of the runtime. Later scenes log into it as
    // well, which does no harm; a second one of this kind would hear nothing, and says so.
    let heard = tracing::subscriber::set_global_default(log).is_ok();
    let lines = if heard { keep(lines) } else { kept() };
    let mut told = busy(scene);
    scene.bed.sim.expire();
    told += &busy(scene);
    for what in [
        What::Status(500),
        What::Status(403),
        What::Garbage,
        What::Throttle(429, 0),
        What::Drop,
    ] {
        scene.bed.sim.inject(Fault::new(what).times(12));
        told += &busy(scene);
        scene.bed.sim.heal();
    }
    let secret = scene.bed.secret_option;
    let wrong = "correct-horse-battery";
    let right = scene.bed.options.insert(secret.to_owned(), json!(wrong));
    scene.restart();
    told += &format!("{:?}", scene.run(scene.volume.fs_usage()));
    told += &busy(scene);
    let mut all = secrets(scene);
    all.push(right.unwrap().as_str().unwrap().to_owned());
    let logged = String::from_utf8_lossy(&lines.0.lock()).into_owned();
    assert!(logged.contains("call to the storage system"), "it is heard");
    for one in all {
        for (place, text) in [("the log", &logged), ("an answer", &told)] {
            assert!(!text.contains(&one), "{one} is in {place}");
        }
    }
}

static KEPT: std::sync::OnceLock<Lines> = std::sync::OnceLock::new();

fn keep(lines: Lines) -> Lines {
    KEPT.get_or_init(|| lines).clone()
}

/// The lines of the scene that came first: all log into one place.
fn kept() -> Lines {
    KEPT.get().cloned().expect("somebody set the log")
}
