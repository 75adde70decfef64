//! Goal: a cached fact saves work and is never older than a change that was told.
//! Method: a real Redis; facts are numbers that count how often they were found out.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proxy_core::id::VFolderId;
use proxy_fleet::cache::{About, Cache, Fact};
use proxy_fleet::link::{Address, Link, Target};
use proxy_testkit::redis::RedisServer;
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(60);

async fn cache(redis: &RedisServer) -> Cache {
    let link = Link::open(
        Target::plain(Address {
            host: redis.addr().ip().to_string(),
            port: redis.port(),
        }),
        0,
        "cache",
    );
    let mut state = link.watch();
    let up = state.wait_for(|state| state.up);
    let up = tokio::time::timeout(Duration::from_secs(20), up).await;
    up.expect("in time").expect("the link lives");
    drop(state);
    Cache::new(link)
}

fn folder() -> About {
    let id = VFolderId::parse("f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0");
    About::VFolder(id.expect("an id"))
}

async fn count(counter: &AtomicU64) -> Result<u64, Infallible> {
    Ok(counter.fetch_add(1, Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_found_out_once_until_something_changes() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let (cache, found) = (cache(&redis).await, AtomicU64::new(0));
    let ask = |about, fact| cache.fact(about, fact, TTL, count(&found));
    let all = (0..8).map(|_| ask(folder(), Fact::Usage));
    let all = futures_util::future::join_all(all).await;
    assert_eq!(all, vec![Ok(0); 8]);
    let user = About::User(Uuid::nil());
    assert_eq!(ask(user, Fact::Permissions).await, Ok(1));
    let keys = [
        format!("user:{}:perms", Uuid::nil()),
        "vfolder:f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0:usage".to_owned(),
    ];
    assert_eq!(redis.keys(0, "*"), keys);
    cache.changed(folder()).await;
    assert_eq!(ask(folder(), Fact::Usage).await, Ok(2));
    assert_eq!(ask(user, Fact::Permissions).await, Ok(1));
    // Nonsense is found out again.
    redis.command(0, &["SET", &keys[1], "{"]);
    assert_eq!(ask(folder(), Fact::Usage).await, Ok(3));
    redis.kill();
    assert_eq!(ask(folder(), Fact::Usage).await, Ok(4));
    assert_eq!(ask(folder(), Fact::Usage).await, Ok(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_a_change_is_not_kept_after_it() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let cache = cache(&redis).await;
    let finding = async {
        cache.changed(folder()).await;
        Ok::<u64, Infallible>(1)
    };
    assert_eq!(cache.fact(folder(), Fact::Usage, TTL, finding).await, Ok(1));
    let found = cache.fact(folder(), Fact::Usage, TTL, async {
        Ok::<u64, Infallible>(2)
    });
    assert_eq!(found.await, Ok(2));
}
