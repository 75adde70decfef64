//! Goal: whatever was acknowledged before a SIGKILL is there afterwards, and nothing more than was
//! asked for.
//! Method: this test runs itself as a child that works on a store and prints what it asks for and
//! what it was told; the child is killed after a random number of lines, or a random moment after
//! its start, from a printed seed; then the store is opened and compared. Many rounds on one file;
//! `STATE_CRASH_ROUNDS` asks for more.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use proxy_core::extent::{Extents, Want};
use proxy_core::id::{SessionId, TaskId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use proxy_state::{
    Claim, ClaimOutcome, EmbeddedStore, Session, SessionState, Sessions, StoreOptions, TaskRecord,
    TaskState, TaskStore,
};
use random::Random;
use serde_json::json;

const THIS_TEST: &str = "acknowledged_state_survives_sigkill";
const DIR: &str = "STATE_CRASH_DIR";
/// Read by `random`.
const SEED: &str = "STATE_SEED";
const ROUNDS: &str = "STATE_CRASH_ROUNDS";
/// Uploads that a child runs at a time.
const UPLOADS_AT_ONCE: u64 = 8;
/// Longest wait for a line of the child.
const LINE_WAIT: Duration = Duration::from_secs(60);

#[test]
fn acknowledged_state_survives_sigkill() {
    match std::env::var(DIR) {
        Ok(dir) => child(Path::new(&dir)),
        Err(_) => parent(),
    }
}

// ---- the child ----

fn child(dir: &Path) {
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let store = EmbeddedStore::open(&dir.join("state.redb"), StoreOptions::default()).unwrap();
    let store = Arc::new(store);
    say(&["ready"]);
    runtime.block_on(async {
        let mut open = store.expired(u64::MAX, 1000).await.unwrap();
        open.retain(|session| !session.is_finished());
        let mut uploads = Vec::new();
        for at in 0..UPLOADS_AT_ONCE {
            let (store, next) = (Arc::clone(&store), open.pop());
            uploads.push(tokio::spawn(upload_for_ever(
                store,
                next,
                Random(seed + at),
            )));
        }
        uploads.push(tokio::spawn(run_tasks_for_ever(store)));
        for upload in uploads {
            upload.await.unwrap();
        }
    });
}

async fn upload_for_ever(store: Arc<EmbeddedStore>, first: Option<Session>, mut random: Random) {
    let mut next = first;
    loop {
        let session = match next.take() {
            Some(session) => session,
            None => {
                let session = new_session(1 + random.below(1000));
                store.create(session.clone()).await.unwrap();
                session
            }
        };
        upload(&store, session, &mut random).await;
    }
}

async fn upload(store: &EmbeddedStore, session: Session, random: &mut Random) {
    let want = Claim {
        session,
        want: Want::append(None),
    };
    let ClaimOutcome::Granted(grant) = store.claim(want).await.unwrap() else {
        panic!("granted")
    };
    let session = grant.session;
    let id = session.id.to_string();
    let mut offset = session.offset.get();
    while offset < session.size {
        offset = session.size.min(offset + 1 + random.below(300));
        say(&["try", &id, &offset.to_string()]);
        store
            .advance(session.id, grant.holder, Offset::new(offset))
            .await
            .unwrap();
        say(&["ack", &id, &offset.to_string()]);
    }
    say(&["finish", &id, &session.size.to_string()]);
    let finish = store.finish(session.id, grant.holder, Offset::ZERO, session.relpath);
    finish.await.unwrap();
    say(&["finished", &id, &session.size.to_string()]);
}

async fn run_tasks_for_ever(store: Arc<EmbeddedStore>) {
    loop {
        let task = TaskRecord::new("crash", json!({"what": "ever"}), "local", 1);
        let id = task.id;
        store.register(task).await.unwrap();
        say(&["registered", &id.to_string()]);
        store.begin(id).await.unwrap();
        say(&["begun", &id.to_string()]);
        store.end(id, TaskState::Done, "fine").await.unwrap();
        say(&["ended", &id.to_string()]);
    }
}

/// One line, in one write: a killed child never leaves a half that looks like a whole.
fn say(words: &[&str]) {
    let line = format!("\n@ {}\n", words.join(" "));
    let mut out = std::io::stdout().lock();
    // The parent may have enough of us.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

fn new_session(size: u64) -> Session {
    Session {
        id: SessionId::random(),
        volume: "local".into(),
        vfid: VFolderId::parse("aabbccddeeff00112233445566778899").unwrap(),
        relpath: RelPath::parse("file.bin").unwrap(),
        size,
        offset: Offset::ZERO,
        ranges: Extents::default(),
        pieces: Default::default(),
        metadata: None,
        ino: 7,
        dev: 8,
        exp: 1_000,
        state: SessionState::Open,
    }
}

// ---- the parent ----

/// What is known of all rounds so far.
#[derive(Default)]
struct Known {
    /// Per session: the highest offset acknowledged, and the highest asked for.
    offsets: HashMap<SessionId, (u64, u64)>,
    finish_asked: HashMap<SessionId, bool>,
    tasks: HashMap<TaskId, TaskState>,
}

impl Known {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let verb = words.next().unwrap();
        let Some(name) = words.next() else { return };
        let task = || TaskId::parse(name).unwrap();
        let state = match verb {
            "registered" => TaskState::Registered,
            "begun" => TaskState::Running,
            "ended" => TaskState::Done,
            _ => return self.hear_session(verb, name, words.next().unwrap()),
        };
        self.tasks.insert(task(), state);
    }

    fn hear_session(&mut self, verb: &str, id: &str, offset: &str) {
        let (id, offset) = (SessionId::parse(id).unwrap(), offset.parse().unwrap());
        let (acknowledged, asked) = self.offsets.entry(id).or_default();
        *asked = offset;
        match verb {
            "try" => {}
            "ack" => *acknowledged = offset,
            "finish" => _ = self.finish_asked.entry(id).or_insert(false),
            "finished" => _ = self.finish_asked.insert(id, true),
            other => panic!("{other}"),
        }
    }

    async fn check(&self, store: &EmbeddedStore, context: &str) {
        for (id, (acknowledged, asked)) in &self.offsets {
            let seen = store.look(*id).await.unwrap();
            let Some(seen) = seen else {
                // Only a session of which nothing was acknowledged may be forgotten.
                assert_eq!(*acknowledged, 0, "{context}: session {id} is lost");
                continue;
            };
            let offset = seen.offset.get();
            assert!(
                *acknowledged <= offset,
                "{context}: {id} at {offset} < {acknowledged}"
            );
            assert!(offset <= *asked, "{context}: {id} at {offset} > {asked}");
            match self.finish_asked.get(id) {
                Some(true) => assert!(seen.is_finished(), "{context}: {id} is not finished"),
                Some(false) => {}
                None => assert!(!seen.is_finished(), "{context}: {id} is finished"),
            }
        }
        for (id, told) in &self.tasks {
            let task = store.get(*id).await.unwrap();
            let state = task
                .unwrap_or_else(|| panic!("{context}: task {id} is lost"))
                .state;
            let rank = |state| match state {
                TaskState::Registered => 0,
                TaskState::Running => 1,
                _ => 2,
            };
            assert!(
                rank(*told) <= rank(state),
                "{context}: task {id}: {state:?} after {told:?}"
            );
        }
    }
}

fn parent() {
    let seed = random::seed();
    let rounds = std::env::var(ROUNDS).map_or(40, |text| text.parse().expect("a number"));
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut known = Known::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        let mut child = start(dir.path(), random.below(1 << 32));
        let lines = listen(&mut child);
        let end = match random.below(4) {
            // During the start, or shortly after.
            0 => End::At(Instant::now() + Duration::from_micros(random.below(30_000))),
            _ => End::After(1 + random.below(400)),
        };
        hear(&lines, end, |line| known.hear(line));
        child.kill().unwrap();
        child.wait().unwrap();
        // What the child said before it died is still in the pipe.
        for line in lines.iter() {
            known.hear(&line);
        }
        let store = EmbeddedStore::open(&dir.path().join("state.redb"), StoreOptions::default());
        let store = store.unwrap_or_else(|error| panic!("{context}: {error}"));
        runtime.block_on(known.check(&store, &context));
    }
    eprintln!(
        "{} sessions, {} tasks",
        known.offsets.len(),
        known.tasks.len()
    );
    assert!(rounds < 10 || !known.tasks.is_empty());
}

enum End {
    At(Instant),
    After(u64),
}

fn hear(lines: &Receiver<String>, end: End, mut hear: impl FnMut(&str)) {
    let mut left = match end {
        End::At(_) => u64::MAX,
        End::After(lines) => lines,
    };
    while left > 0 {
        let wait = match end {
            End::At(moment) => moment.saturating_duration_since(Instant::now()),
            End::After(_) => LINE_WAIT,
        };
        match (lines.recv_timeout(wait), &end) {
            (Ok(line), _) => hear(&line),
            (Err(RecvTimeoutError::Timeout), End::At(_)) => return,
            (Err(error), _) => panic!("the child says nothing: {error}"),
        }
        left -= 1;
    }
}

fn start(dir: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", THIS_TEST, "--nocapture"])
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// The lines that the child means for us, until it is gone.
fn listen(child: &mut Child) -> Receiver<String> {
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if let Some(line) = line.strip_prefix("@ ") {
                let _ = sender.send(line.to_owned());
            }
        }
    });
    receiver
}
