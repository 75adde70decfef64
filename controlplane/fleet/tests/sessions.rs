//! Goal: upload sessions are one for all servers of a fleet, an original among them; Redis may be
//! away, empty or behind without an offset that goes back.
//! Method: two stores behind one real Redis; what an original does is done by hand with its own
//! commands.
//!
//! Source: docs/semantics.md#fleet-uploads; the original's keys as seen in a command trace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proxy_core::extent::{Extent, Extents, Want};
use proxy_core::id::{SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use proxy_fleet::link::{Address, Link, Target};
use proxy_fleet::sessions::SharedSessions;
use proxy_state::{
    Change, Claim, ClaimError, ClaimOutcome, EmbeddedStore, Grant, LeaseError, Session,
    SessionState, Sessions, StateError, StoreOptions,
};
use proxy_testkit::redis::RedisServer;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(20);
const SIZE: u64 = 1000;

struct Node {
    sessions: SharedSessions,
    link: Link,
    local: Arc<EmbeddedStore>,
    _dir: TempDir,
}

async fn node(redis: &RedisServer) -> Node {
    node_by(redis.addr()).await
}

async fn node_by(way: SocketAddr) -> Node {
    let dir = tempfile::tempdir().expect("a directory");
    let local = EmbeddedStore::open(&dir.path().join("state"), StoreOptions::default());
    let local = Arc::new(local.expect("opens"));
    let target = Target {
        response_bound: Duration::from_millis(300),
        ..Target::plain(Address {
            host: way.ip().to_string(),
            port: way.port(),
        })
    };
    let link = Link::open(target, 8, "uploads");
    let sessions = SharedSessions::start(Arc::clone(&local), link.clone(), Uuid::new_v4());
    let node = Node {
        sessions,
        link,
        local,
        _dir: dir,
    };
    node.until_up(true).await;
    node
}

impl Node {
    async fn until_up(&self, up: bool) {
        let mut state = self.link.watch();
        let found = tokio::time::timeout(SOON, state.wait_for(|state| state.up == up));
        found.await.expect("in time").expect("the link lives");
    }

    async fn claim(&self, session: &Session, want: Want) -> Result<Grant, ClaimError> {
        let session = session.clone();
        match self.sessions.claim(Claim { session, want }).await? {
            ClaimOutcome::Granted(grant) => Ok(*grant),
            ClaimOutcome::Finished(session) => panic!("finished: {session:?}"),
        }
    }

    async fn offset(&self, id: SessionId) -> Option<u64> {
        let found = self.sessions.look(id).await.expect("a look");
        found.map(|session| session.offset.get())
    }

    async fn advance(&self, grant: &Grant, to: u64) -> Result<Extents, LeaseError> {
        let (id, holder) = (grant.session.id, grant.holder);
        let recorded = self.sessions.advance(id, holder, Offset::new(to)).await?;
        Ok(recorded.durable)
    }
}

/// A way to Redis that can be closed and opened again.
struct Road {
    addr: SocketAddr,
    is_closed: Arc<AtomicBool>,
    cut: Arc<Notify>,
}

impl Road {
    async fn to(redis: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let road = Self {
            addr: listener.local_addr().expect("an address"),
            is_closed: Arc::default(),
            cut: Arc::default(),
        };
        let (is_closed, cut) = (Arc::clone(&road.is_closed), Arc::clone(&road.cut));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if is_closed.load(Ordering::SeqCst) {
                    continue;
                }
                let cut = Arc::clone(&cut);
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(redis).await.expect("redis is there");
                    tokio::select! {
                        () = cut.notified() => {}
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        road
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.cut.notify_waiters();
    }

    fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }
}

fn session() -> Session {
    Session {
        id: SessionId::random(),
        volume: "volume1".into(),
        vfid: VFolderId::parse("f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0").expect("an id"),
        relpath: RelPath::parse("dir/file").expect("a path"),
        size: SIZE,
        offset: Offset::ZERO,
        ranges: Extents::default(),
        pieces: Default::default(),
        metadata: None,
        ino: 1,
        dev: 1,
        exp: u64::from(u32::MAX),
        state: SessionState::Open,
    }
}

fn offset_key(session: &Session) -> String {
    format!("tus.upload.offset:{}", session.id)
}

fn lease_key(session: &Session) -> String {
    format!("tus.upload.lease:{}", session.id)
}

fn text(redis: &RedisServer, words: &[&str]) -> Option<String> {
    redis.command(8, words).text()
}

fn number(redis: &RedisServer, words: &[&str]) -> i64 {
    text(redis, words)
        .and_then(|text| text.parse().ok())
        .unwrap_or(i64::MIN)
}

/// Asks again until it is so; what happens in the background takes a moment.
async fn until<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let end = Instant::now() + SOON;
    while !ask().await {
        assert!(Instant::now() < end, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_are_those_of_the_original() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (node, session) = (node(&redis).await, session());
    let (offset, lease) = (offset_key(&session), lease_key(&session));
    node.sessions
        .create(session.clone())
        .await
        .expect("created");
    assert_eq!(text(&redis, &["GET", &offset]).as_deref(), Some("0"));
    let ttl = number(&redis, &["TTL", &offset]);
    assert!((86_390..=86_400).contains(&ttl), "{ttl}");

    let grant = node.claim(&session, Want::alone()).await.expect("granted");
    // An original can not claim now: its way is SET NX.
    let words = ["SET", &lease, "i-other:00", "NX", "EX", "30"];
    assert_eq!(text(&redis, &words), None);
    let ttl = number(&redis, &["TTL", &lease]);
    assert!((25..=30).contains(&ttl), "{ttl}");
    redis.command(8, &["EXPIRE", &offset, "100"]);
    node.advance(&grant, 400).await.expect("advanced");
    assert_eq!(text(&redis, &["GET", &offset]).as_deref(), Some("400"));
    assert!(80_000 < number(&redis, &["TTL", &offset]));
    drop(grant);
    until("the lease ends", || async {
        text(&redis, &["GET", &lease]).is_none()
    })
    .await;

    // An original writes 200 bytes: its claim, and its advance.
    assert!(text(&redis, &["SET", &lease, "i-other:00", "NX", "EX", "30"]).is_some());
    redis.command(8, &["INCRBY", &offset, "200"]);
    redis.command(8, &["DEL", &lease]);
    assert_eq!(node.offset(session.id).await, Some(600));
    let grant = node.claim(&session, Want::alone()).await.expect("granted");
    assert_eq!(grant.session.offset.get(), 600);
    node.advance(&grant, SIZE).await.expect("advanced");
    let target = session.relpath.clone();
    let finish = node
        .sessions
        .finish(session.id, grant.holder, Offset::new(600), target);
    finish.await.expect("finished");
    drop(grant);
    until("the lease ends", || async {
        text(&redis, &["GET", &lease]).is_none()
    })
    .await;
    assert_eq!(text(&redis, &["GET", &offset]).as_deref(), Some("1000"));
    assert!(80_000 < number(&redis, &["TTL", &offset]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_original_goes_on_here() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (node, session) = (node(&redis).await, session());
    assert_eq!(node.offset(session.id).await, None);
    redis.command(8, &["SET", &offset_key(&session), "300", "EX", "86400"]);
    assert_eq!(node.offset(session.id).await, Some(300));
    redis.command(
        8,
        &["SET", &lease_key(&session), "i-other:00", "NX", "EX", "30"],
    );
    let waiting = node.claim(&session, Want::alone());
    let ending = async {
        until("the claim waits", || async {
            let counters = node.sessions.counters();
            0 < counters
                .conflicts
                .load(std::sync::atomic::Ordering::Relaxed)
        })
        .await;
        redis.command(8, &["DEL", &lease_key(&session)]);
    };
    let (grant, ()) = tokio::join!(waiting, ending);
    let grant = grant.expect("granted");
    assert_eq!(grant.session.offset.get(), 300);
    assert_eq!(
        node.advance(&grant, 301).await.map(|all| all.prefix()),
        Ok(301)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_claim_wins_also_across_servers() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (a, b, session) = (node(&redis).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let mut first = a.claim(&session, Want::alone()).await.expect("granted");
    a.advance(&first, 100).await.expect("advanced");
    assert_eq!(b.offset(session.id).await, Some(100));
    let older = async {
        let newcomer = (&mut first.revoked).await.expect("told").newcomer;
        assert_eq!(newcomer, Want::append(Some(Offset::new(100))));
        a.advance(&first, 150).await.expect("advanced");
        drop(first);
    };
    let wish = Want::append(Some(Offset::new(100)));
    let ((), second) = tokio::join!(older, b.claim(&session, wish));
    let second = second.expect("granted");
    assert_eq!(second.session.offset.get(), 150);
    b.advance(&second, 500).await.expect("advanced");
    assert_eq!(a.offset(session.id).await, Some(500));
    drop(second);
    let again = a.claim(&session, Want::alone()).await.expect("granted");
    assert_eq!(again.session.offset.get(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_written_on_several_servers_at_a_time() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let nodes = [node(&redis).await, node(&redis).await];
    let session = session();
    nodes[0]
        .sessions
        .create(session.clone())
        .await
        .expect("created");
    let part = |n: u64| Extent::new(n * 100, n * 100 + 100);
    let mut grants = Vec::new();
    for n in 0..10 {
        let node = &nodes[n as usize % 2];
        let grant = node.claim(&session, Want::Part(part(n))).await;
        grants.push(grant.expect("granted"));
    }
    let reports = (0..10_u64).map(|n| {
        let (node, grant) = (&nodes[n as usize % 2], &grants[n as usize]);
        node.sessions.record(session.id, grant.holder, part(n))
    });
    let reports = futures_util::future::join_all(reports).await;
    let whole: Vec<usize> = (0..10)
        .filter(|n| reports[*n].as_ref().expect("recorded").whole)
        .collect();
    assert_eq!(whole.len(), 1, "{reports:?}");
    // The bytes that make it whole are not on record before the file is in its place.
    let look = nodes[1].sessions.look(session.id).await.expect("a look");
    let durable = look.expect("on record").durable();
    let sum: u64 = durable.iter().map(Extent::len).sum();
    assert_eq!(sum, 900);
    // Bytes behind a gap: an original has to keep away, also when nobody writes.
    let (n, finisher) = (whole[0], &grants[whole[0]]);
    let finish = nodes[n % 2].sessions.finish(
        session.id,
        finisher.holder,
        Offset::new(part(n as u64).from),
        session.relpath.clone(),
    );
    finish.await.expect("finished");
    for node in &nodes {
        let look = node.sessions.look(session.id).await.expect("a look");
        assert!(look.expect("on record").is_finished());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_keeps_away_from_bytes_behind_a_gap() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (node, session) = (node(&redis).await, session());
    let lease = lease_key(&session);
    node.sessions
        .create(session.clone())
        .await
        .expect("created");
    let extent = Extent::new(500, 600);
    let grant = node
        .claim(&session, Want::Part(extent))
        .await
        .expect("granted");
    let (id, holder) = (session.id, grant.holder);
    node.sessions
        .record(id, holder, extent)
        .await
        .expect("recorded");
    drop(grant);
    until("it is parked", || async {
        80_000 < number(&redis, &["TTL", &lease])
    })
    .await;
    let rest = node.claim(&session, Want::alone()).await.expect("granted");
    let durable = node.advance(&rest, 500).await.expect("advanced");
    assert_eq!(durable.prefix(), 600);
    drop(rest);
    until("the lease ends", || async {
        text(&redis, &["GET", &lease]).is_none()
    })
    .await;
    assert_eq!(
        text(&redis, &["GET", &offset_key(&session)]).as_deref(),
        Some("600")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_get_their_numbers_in_one_place() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (a, b, session) = (node(&redis).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let nobody = Want::Part(Extent::new(0, 0));
    let on_a = a.claim(&session, nobody).await.expect("granted");
    let on_b = b.claim(&session, nobody).await.expect("granted");
    let add = || Change::AddPartial { length: 100 };
    let (one, other) = tokio::join!(
        a.sessions.change(session.id, on_a.holder, add()),
        b.sessions.change(session.id, on_b.holder, add()),
    );
    let made = [one, other].map(|made| made.expect("made").pieces.made);
    assert!(made.contains(&1) && made.contains(&2), "{made:?}");
    let look = a
        .sessions
        .look(session.id)
        .await
        .expect("a look")
        .expect("there");
    assert_eq!(look.pieces.all.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_killed_and_come_back_empty() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let (a, b, session) = (node(&redis).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let grant = a.claim(&session, Want::alone()).await.expect("granted");
    a.advance(&grant, 100).await.expect("advanced");
    let counters = b.sessions.counters();
    until("two servers", || async {
        counters.servers.load(Ordering::Relaxed) == 2
    })
    .await;
    redis.kill();
    a.until_up(false).await;
    b.until_up(false).await;
    let asked = Instant::now();
    a.advance(&grant, 200).await.expect("advanced");
    assert_eq!(a.offset(session.id).await, Some(200));
    drop(grant);
    let again = a.claim(&session, Want::alone()).await.expect("granted");
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    a.advance(&again, 300).await.expect("advanced");
    assert!(a.sessions.degraded().is_some());
    // The other one does not know the session, and does not say that it is new.
    assert_eq!(b.sessions.look(session.id).await, Err(StateError::Away));
    let refused = b.claim(&session, Want::alone()).await.map(|_| ());
    assert_eq!(refused, Err(ClaimError::Store(StateError::Away)));
    redis.restart();
    a.until_up(true).await;
    b.until_up(true).await;
    // Not before the other one can be asked, but then also while Redis is not told yet.
    until("it is known", || async {
        match b.sessions.look(session.id).await {
            Err(StateError::Away) => false,
            found => {
                let offset = found.expect("a look").map(|session| session.offset.get());
                assert_eq!(offset, Some(300));
                true
            }
        }
    })
    .await;
    a.advance(&again, 400)
        .await
        .expect("the lease is taken again");
    assert_eq!(
        text(&redis, &["GET", &offset_key(&session)]).as_deref(),
        Some("400")
    );
    until("in health", || async { a.sessions.degraded().is_none() }).await;
    drop(again);
    let taken = b.claim(&session, Want::alone()).await.expect("granted");
    assert_eq!(taken.session.offset.get(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_frozen() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (node, session) = (node(&redis).await, session());
    node.sessions
        .create(session.clone())
        .await
        .expect("created");
    let grant = node.claim(&session, Want::alone()).await.expect("granted");
    redis.freeze();
    let asked = Instant::now();
    for to in 1..=100 {
        node.advance(&grant, to).await.expect("advanced");
    }
    // One of them waits for the bound, and no other does.
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    redis.thaw();
    node.until_up(true).await;
    until("it is merged", || async {
        text(&redis, &["GET", &offset_key(&session)]).as_deref() == Some("100")
    })
    .await;
    node.advance(&grant, 101).await.expect("advanced");
    assert_eq!(
        text(&redis, &["GET", &offset_key(&session)]).as_deref(),
        Some("101")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_emptied() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (a, b, session) = (node(&redis).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let grant = a.claim(&session, Want::alone()).await.expect("granted");
    a.advance(&grant, 100).await.expect("advanced");
    redis.flush();
    assert_eq!(b.offset(session.id).await, Some(100));
    a.advance(&grant, 200).await.expect("advanced");
    assert_eq!(b.offset(session.id).await, Some(200));
    drop(grant);
    redis.flush();
    until("it is told again", || async {
        text(&redis, &["GET", &offset_key(&session)]).as_deref() == Some("200")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wrote_last_and_can_not_be_asked_may_know_more() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let road = Road::to(redis.addr()).await;
    let (a, b, session) = (node_by(road.addr).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let grant = a.claim(&session, Want::alone()).await.expect("granted");
    a.advance(&grant, 100).await.expect("advanced");
    // Longer than anybody waits after a start or a return of Redis.
    let begun = Instant::now();
    until("nothing is new any more", || async {
        b.offset(session.id).await == Some(100) && Duration::from_secs(9) < begun.elapsed()
    })
    .await;
    road.close();
    a.until_up(false).await;
    let asked = Instant::now();
    a.advance(&grant, 600).await.expect("advanced alone");
    while asked.elapsed() < Duration::from_secs(4) {
        let looked = b.sessions.look(session.id).await;
        assert_eq!(looked, Err(StateError::Away));
    }
    a.advance(&grant, 700).await.expect("advanced alone");
    road.open();
    until("the other one can be asked", || async {
        match b.sessions.look(session.id).await {
            Err(StateError::Away) => false,
            found => {
                let offset = found.expect("a look").map(|session| session.offset.get());
                assert_eq!(offset, Some(700));
                true
            }
        }
    })
    .await;
    drop(grant);
    let taken = b.claim(&session, Want::alone()).await.expect("granted");
    assert_eq!(taken.session.offset.get(), 700);
    b.advance(&taken, 800).await.expect("advanced");
    // At once, and for both kinds of asking: it is not its own any more.
    redis.freeze();
    assert_eq!(a.sessions.look(session.id).await, Err(StateError::Away));
    let refused = a.claim(&session, Want::alone()).await.map(|_| ());
    assert_eq!(refused, Err(ClaimError::Store(StateError::Away)));
    b.advance(&taken, 900).await.expect("advanced alone");
    redis.thaw();
    until("it goes on there", || async {
        a.sessions.look(session.id).await.is_ok()
    })
    .await;
    assert_eq!(a.offset(session.id).await, Some(900));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_not_asked_for_ever() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (a, b, session) = (node(&redis).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let grant = a.claim(&session, Want::alone()).await.expect("granted");
    a.advance(&grant, 100).await.expect("advanced");
    drop(grant);
    drop(a);
    let begun = Instant::now();
    until("it is gone", || async {
        b.sessions.look(session.id).await.is_ok()
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(12));
    assert_eq!(b.offset(session.id).await, Some(100));
    let taken = b.claim(&session, Want::alone()).await.expect("granted");
    b.advance(&taken, 200).await.expect("advanced");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moved_on_elsewhere_is_not_served_from_an_old_record() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let (a, b, session) = (node(&redis).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let grant = a.claim(&session, Want::alone()).await.expect("granted");
    a.advance(&grant, 100).await.expect("advanced");
    drop(grant);
    let grant = b.claim(&session, Want::alone()).await.expect("granted");
    b.advance(&grant, 500).await.expect("advanced");
    redis.kill();
    a.until_up(false).await;
    b.until_up(false).await;
    assert_eq!(a.sessions.look(session.id).await, Err(StateError::Away));
    b.advance(&grant, 600).await.expect("advanced");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_abandoned_stays_so() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (a, b, session) = (node(&redis).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let grant = a.claim(&session, Want::alone()).await.expect("granted");
    a.advance(&grant, 100).await.expect("advanced");
    b.local
        .adopt(grant.session.clone())
        .await
        .expect("an old record");
    b.sessions.abandon(session.id).await.expect("abandoned");
    assert_eq!(a.advance(&grant, 200).await, Err(LeaseError::Lost));
    assert_eq!(a.offset(session.id).await, None);
    // A record that comes late does not bring it back.
    b.local
        .adopt(grant.session.clone())
        .await
        .expect("an old record");
    assert_eq!(b.offset(session.id).await, None);
    assert_eq!(b.local.look(session.id).await, Ok(None));
    assert_eq!(text(&redis, &["GET", &offset_key(&session)]), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_died_is_waited_for_a_few_seconds() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let (a, b, session) = (node(&redis).await, node(&redis).await, session());
    a.sessions.create(session.clone()).await.expect("created");
    let grant = a.claim(&session, Want::alone()).await.expect("granted");
    a.advance(&grant, 100).await.expect("advanced");
    // As after kill -9: nobody renews, nobody listens, nobody releases.
    let Node { sessions, link, .. } = a;
    drop(sessions);
    drop(link);
    let taken = b.claim(&session, Want::alone()).await.expect("granted");
    assert_eq!(taken.session.offset.get(), 100);
    drop(grant);
}
