//! Goal: kill -9 at any moment of an upload loses no acknowledged byte, shows no partial file,
//! and leaves nothing behind once expired sessions are collected.
//! Method: rounds of uploads cut by a kill at a random moment, from a printed seed; then HEAD,
//! resume, compare. `STORAGE_TEST_CRASH_ROUNDS` sets the number of rounds (25).
//!
//! Source: `docs/semantics.md#durability`.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proxy_testkit::data::{Pattern, Random};
use proxy_testkit::folder::names;
use proxy_testkit::testbed::Testbed;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Connection, Folder, Request, Server, Settings, env_number, skip, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// One upload that a kill will meet.
struct Victim {
    upload: Upload,
    name: String,
    pattern: Pattern,
    /// The highest offset that any answer has acknowledged.
    acknowledged: AtomicU64,
    /// How many bytes may have left the client.
    sent: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Victim {
    fn new(server: &Server, folder: &Folder, name: String, size: u64, seed: u64) -> Self {
        Self {
            upload: Upload::begin(server, folder, &name, size),
            name,
            pattern: Pattern(seed),
            acknowledged: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    /// PATCHes of random lengths, sent in random pieces, until the end or the kill.
    fn send_all(&self, mut random: Random) {
        let size = self.upload.size;
        let mut at = 0;
        while at < size {
            let want = (1 + random.below(6 << 20)).min(size - at);
            match self.patch(at, want, &mut random) {
                Some(next) => at = next,
                None => return,
            }
        }
    }

    /// `None` when the connection broke: the server is dead.
    fn patch(&self, at: u64, length: u64, random: &mut Random) -> Option<u64> {
        let mut connection = self.upload.begin_patch(at, length, b"").ok()?;
        let mut done = 0;
        while done < length {
            let n = (1 + random.below(300_000)).min(length - done);
            self.sent.fetch_max(at + done + n, Ordering::SeqCst);
            connection.write(&self.pattern.bytes(at + done, n)).ok()?;
            done += n;
        }
        let answer = connection.answer(false).ok()?;
        if answer.status != 204 || offset(&answer) != at + length {
            let failure = format!("{}: {answer}", self.name);
            *self.failure.lock().expect("no panic inside") = Some(failure);
            return None;
        }
        self.acknowledged.fetch_max(at + length, Ordering::SeqCst);
        Some(at + length)
    }

    /// What must hold after the crash, before anything is sent again.
    fn check_after_crash(&self, folder: &Folder) -> u64 {
        if let Some(failure) = self.failure.lock().expect("no panic inside").take() {
            panic!("{failure}");
        }
        let (name, size) = (&self.name, self.upload.size);
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let sent = self.sent.load(Ordering::SeqCst);
        let head = self.upload.head();
        let there = folder.at(name).exists();
        assert_eq!(
            head.status, 200,
            "{name} of {size}, {sent} sent, target {there}: {head}"
        );
        let at = offset(&head);
        assert!(
            acknowledged <= at,
            "{name}: {acknowledged} acknowledged, HEAD says {at}"
        );
        assert!(at <= sent, "{name}: HEAD says {at}, only {sent} were sent");
        let target = std::fs::read(folder.at(name)).ok();
        if let Some(bytes) = &target {
            assert_eq!(bytes.len() as u64, size, "{name}: a partial target");
            assert_eq!(self.pattern.mismatch(0, bytes), None, "{name}: wrong bytes");
        }
        let token = self.upload.token.clone();
        let claims = proxy_testkit::token::claims(proxy_testkit::server::TOKEN_SECRET, &token);
        let session = claims["session"].as_str().expect("a session").to_owned();
        if let Ok(staged) = std::fs::read(folder.at(".upload").join(session)) {
            assert!(
                at <= staged.len() as u64,
                "{name}: HEAD says {at}, {} staged",
                staged.len()
            );
            assert_eq!(
                self.pattern.mismatch(0, &staged[..at as usize]),
                None,
                "{name}: staged"
            );
        } else {
            assert!(target.is_some(), "{name}: neither staged nor there");
        }
        at
    }

    /// Goes on from HEAD to the end, and compares.
    fn resume(&self, folder: &Folder, mut at: u64) {
        let size = self.upload.size;
        // HEAD may say "all" while the rename is still owed: an empty PATCH asks for it.
        loop {
            let bytes = self.pattern.bytes(at, (size - at).min(5 << 20));
            let answer = self.upload.patch(at, &bytes);
            assert_eq!(answer.status, 204, "{}: at {at}: {answer}", self.name);
            at = offset(&answer);
            if at == size {
                break;
            }
        }
        assert_eq!(self.upload.offset(), size);
        let bytes = std::fs::read(folder.at(&self.name)).expect("the target");
        assert_eq!(bytes.len() as u64, size, "{}", self.name);
        assert_eq!(self.pattern.mismatch(0, &bytes), None, "{}", self.name);
    }
}

fn round(server: &mut Server, folder: &Folder, random: &mut Random, number: u64) {
    let mut victims: Vec<Victim> = (0..3)
        .map(|n| {
            let size = *random.pick(&[1, 4095, 70_000, 1 << 20, 9_000_001, 24 << 20]);
            let name = format!("r{number}/f{n}");
            Victim::new(server, folder, name, size, random.draw())
        })
        .collect();
    let delay = Duration::from_micros(random.below(250_000));
    std::thread::scope(|scope| {
        for victim in &victims {
            let random = Random::seeded(random.draw());
            scope.spawn(move || victim.send_all(random));
        }
        let start = Instant::now();
        wait::until("the moment", Duration::from_secs(5), || {
            (delay <= start.elapsed()).then_some(())
        });
        server.kill();
    });
    server.restart();
    for victim in &mut victims {
        victim.upload.to = server.client();
    }
    let offsets: Vec<u64> = victims
        .iter()
        .map(|v| v.check_after_crash(folder))
        .collect();
    for (victim, at) in victims.iter().zip(offsets) {
        victim.resume(folder, at);
    }
}

fn rounds_on(root: Option<&Path>, rounds: u64) {
    let settings = Settings {
        root: root.map(Path::to_path_buf),
        ..Default::default()
    };
    let mut server = Server::start_with(PROGRAM, settings);
    let folder = Folder::empty(&server);
    let mut random = Random::printed("crash rounds");
    for number in 0..rounds {
        round(&mut server, &folder, &mut random, number);
        // The targets of a round are large, and done with.
        std::fs::remove_dir_all(folder.at(&format!("r{number}"))).expect("removed");
    }
    assert_eq!(names(&folder.path), [""; 0], "left behind");
    server.finish();
}

#[test]
fn a_kill_at_any_moment_of_an_upload_loses_nothing_acknowledged() {
    rounds_on(None, env_number("STORAGE_TEST_CRASH_ROUNDS", 25));
}

#[test]
fn a_kill_at_any_moment_loses_nothing_on_xfs() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    match Testbed::up(&tests, "xfs", &[]) {
        Ok(bed) => rounds_on(
            Some(bed.mount()),
            env_number("STORAGE_TEST_CRASH_ROUNDS", 25) / 4,
        ),
        Err(reason) => skip(reason),
    }
}

/// Sends parts of random places from several connections until the kill. Gives the places that
/// were acknowledged.
fn send_parts(upload: &Upload, pattern: Pattern, mut random: Random) -> Vec<(u64, u64)> {
    let mut acknowledged = Vec::new();
    loop {
        let at = random.below(upload.size);
        let length = (1 + random.below(2 << 20)).min(upload.size - at);
        let bytes = pattern.bytes(at, length);
        let sent = upload.begin_part(at, length, &bytes);
        let Some(answer) = sent.ok().and_then(|mut open| open.answer(false).ok()) else {
            return acknowledged;
        };
        match answer.status {
            204 => acknowledged.push((at, at + length)),
            // Another one that overlaps was newer.
            409 => {}
            _ => panic!("{at}..{}: {answer}", at + length),
        }
    }
}

/// Fills the gaps that HEAD tells, and compares.
fn fill_gaps(upload: &Upload, folder: &Folder, name: &str, pattern: Pattern) {
    let mut at = 0;
    for (from, to) in upload
        .ranges()
        .into_iter()
        .chain([(upload.size, upload.size)])
    {
        if at < from {
            let answer = upload.part(at, &pattern.bytes(at, from - at));
            assert_eq!(answer.status, 204, "{answer}");
        }
        at = to;
    }
    let bytes = std::fs::read(folder.at(name)).expect("the target");
    assert_eq!(bytes.len() as u64, upload.size);
    assert_eq!(pattern.mismatch(0, &bytes), None, "{name}");
}

#[test]
fn a_kill_among_parallel_parts_loses_none_that_was_acknowledged() {
    // docs/semantics.md#parts
    let mut server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let mut random = Random::printed("crash of parts");
    for round in 0..env_number("STORAGE_TEST_CRASH_ROUNDS", 25) / 2 {
        let (name, pattern) = (format!("f{round}"), Pattern(round));
        let mut upload = Upload::begin(&server, &folder, &name, 24 << 20);
        let delay = Duration::from_micros(random.below(150_000));
        let acknowledged: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..4)
                .map(|_| {
                    let (upload, random) = (&upload, Random::seeded(random.draw()));
                    scope.spawn(move || send_parts(upload, pattern, random))
                })
                .collect();
            let start = Instant::now();
            wait::until("the moment", Duration::from_secs(5), || {
                (delay <= start.elapsed()).then_some(())
            });
            server.kill();
            lanes
                .into_iter()
                .flat_map(|lane| lane.join().expect("a lane"))
                .collect()
        });
        server.restart();
        upload.to = server.client();
        let ranges = upload.ranges();
        for (from, to) in &acknowledged {
            let there = ranges.iter().any(|(first, end)| first <= from && to <= end);
            assert!(there, "{from}..{to} was acknowledged, HEAD says {ranges:?}");
        }
        let claims =
            proxy_testkit::token::claims(proxy_testkit::server::TOKEN_SECRET, &upload.token);
        let session = claims["session"].as_str().expect("a session").to_owned();
        if let Ok(staged) = std::fs::read(folder.at(".upload").join(session)) {
            for (from, to) in ranges {
                let bytes = &staged[from as usize..to as usize];
                assert_eq!(
                    pattern.mismatch(from, bytes),
                    None,
                    "{from}..{to} is durable"
                );
            }
        }
        fill_gaps(&upload, &folder, &name, pattern);
        std::fs::remove_file(folder.at(&name)).expect("removed");
    }
    assert_eq!(names(&folder.path), [""; 0], "left behind");
    server.finish();
}

#[test]
fn a_kill_among_partial_uploads_loses_no_piece() {
    // docs/semantics.md#concatenation
    const PIECE: u64 = 3_000_001;
    let mut server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let mut random = Random::printed("crash of pieces");
    for round in 0..4 {
        let (name, pattern) = (format!("f{round}"), Pattern(round));
        let upload = Upload::begin(&server, &folder, &name, 4 * PIECE);
        let length = PIECE.to_string();
        let targets: Vec<String> = (0..4)
            .map(|_| {
                let answer = Request::new("POST", &upload.target())
                    .header("Upload-Concat", "partial")
                    .header("Upload-Length", &length)
                    .send(server.client())
                    .expect(201);
                answer.header("Location").expect("a Location").to_owned()
            })
            .collect();
        let patch = |server: &Server, n: u64, at: u64, to: u64| {
            Request::new("PATCH", &targets[n as usize])
                .header("Upload-Offset", &at.to_string())
                .body(&pattern.bytes(n * PIECE + at, to - at))
                .send(server.client())
                .expect(204)
        };
        let cuts: Vec<u64> = (0..4).map(|_| random.below(PIECE)).collect();
        for n in 0..4 {
            let _ = patch(&server, n, 0, cuts[n as usize]);
        }
        server.kill();
        server.restart();
        for n in 0..4 {
            let head = Request::new("HEAD", &targets[n as usize]).send(server.client());
            let at = offset(&head.expect(200));
            assert_eq!(at, cuts[n as usize], "{name}: piece {n}");
            let _ = patch(&server, n, at, PIECE);
        }
        let concat = format!("final;{}", targets.join(" "));
        let finish = Request::new("POST", &upload.target()).header("Upload-Concat", &concat);
        let _ = finish.send(server.client()).expect(201);
        let bytes = std::fs::read(folder.at(&name)).expect("the target");
        assert_eq!(bytes.len() as u64, 4 * PIECE);
        assert_eq!(pattern.mismatch(0, &bytes), None, "{name}");
    }
    server.finish();
}

#[test]
fn sessions_that_a_crash_left_are_collected_when_they_expire() {
    let tables = "[server.uploads]\ncollect-interval = \"1s\"\ncollect-grace = \"0s\"\n";
    let mut settings = Settings {
        tables: tables.to_owned(),
        ..Default::default()
    };
    settings.session_expire = "2s".to_owned();
    let mut server = Server::start_with(PROGRAM, settings);
    let folder = Folder::empty(&server);
    let mut random = Random::printed("crash and collect");
    for number in 0..5 {
        let upload = Upload::begin(&server, &folder, &format!("f{number}"), 1 << 20);
        let part = random.below(1 << 20);
        let open: Option<Connection> = upload
            .begin_patch(0, 1 << 20, &Pattern(1).bytes(0, part))
            .ok();
        server.kill();
        drop(open);
        server.restart();
    }
    wait::until(
        "all staging files are gone",
        Duration::from_secs(60),
        || names(&folder.path).is_empty().then_some(()),
    );
    server.finish();
}

#[test]
fn tasks_that_a_crash_interrupted_are_finished_after_the_restart() {
    use proxy_testkit::server::VOLUME;
    use serde_json::json;
    let mut server = Server::start(PROGRAM);
    let mut random = Random::printed("crash of tasks");
    for _ in 0..5 {
        let doomed = Folder::empty(&server);
        for n in 0..300 {
            doomed.write(&format!("d{}/f{n}", n % 20), b"x");
        }
        let source = Folder::empty(&server);
        for n in 0..300 {
            source.write(&format!("d{}/f{n}", n % 20), b"content");
        }
        let copy = Folder::unmade(&server);
        let body = json!({"volume": VOLUME, "vfid": doomed.vfid});
        let _ = server.ask("POST", "/folder/delete", &body).expect(202);
        let body = json!({
            "src_volume": VOLUME, "src_vfid": source.vfid, "dst_volume": null,
            "dst_vfid": copy.vfid,
        });
        let _ = server.ask("POST", "/folder/clone", &body).expect(200);
        let (start, delay) = (Instant::now(), Duration::from_micros(random.below(30_000)));
        wait::until("the moment", Duration::from_secs(1), || {
            (delay <= start.elapsed()).then_some(())
        });
        server.kill();
        if copy.path.exists() {
            assert_eq!(
                names(&copy.path).len(),
                20,
                "a clone appears whole or not at all"
            );
        }
        server.restart();
        wait::until("the deletion is finished", Duration::from_secs(30), || {
            (!doomed.path.exists()).then_some(())
        });
        wait::until("the clone is finished", Duration::from_secs(30), || {
            copy.at("d19/f299").is_file().then_some(())
        });
        assert_eq!(names(&copy.path).len(), 20);
        wait::until("nothing hidden is left", Duration::from_secs(30), || {
            let scope = doomed.path.ancestors().nth(3)?;
            names(scope).is_empty().then_some(())
        });
    }
    server.finish();
}
