//! How many events the stream can take before its consumers lose some.
//!
//! The stream keeps little more than [`STREAM_LEN_MAX`] entries. What the Manager has not read,
//! or has read and not acknowledged, must not be pushed out.
//!
//! Laws
//! - Half of the room that is seen is used before it is looked at again: others send as well.
//! - A consumer that does not make room is waited for, for a bounded time; then events go out
//!   slowly all the same.
//! - Without the Manager's group there is nobody to wait for.

use std::collections::HashMap;
use std::time::Duration;

use redis::{FromRedisValue as _, Value};
use tokio::time::Instant;

use super::BusOptions;
use crate::frame::{STREAM, STREAM_LEN_MAX};
use crate::link::{Link, LinkError};

/// The consumer group of the Manager.
const GROUP: &str = "manager";
/// How long what was seen is believed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a full stream is looked at.
const WAIT_STEP: Duration = Duration::from_millis(100);
/// How slowly events go out that nobody makes room for.
const FORCED_STEP: Duration = Duration::from_millis(250);

/// What to do with the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Send it.
    Send,
    /// Send it although there is no room, and take a rest.
    Force,
    /// Ask again after this time.
    Wait(Duration),
}

/// What the group has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) unread: usize,
    pub(super) unacknowledged: usize,
}

/// See the module.
pub(super) struct Pace {
    left: usize,
    looked: Option<Instant>,
    full_since: Option<Instant>,
    forced: Option<Instant>,
    is_told: bool,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self {
            left: 0,
            looked: None,
            full_since: None,
            forced: None,
            is_told: false,
        }
    }

    /// Asks whether an event may go into the stream now.
    ///
    /// # Errors
    /// The stream could not be looked at.
    pub(super) async fn turn(
        &mut self,
        link: &Link,
        options: &BusOptions,
    ) -> Result<Turn, LinkError> {
        let now = Instant::now();
        let is_fresh = self.looked.is_some_and(|at| now < at + LOOK_EVERY);
        if 0 < self.left && is_fresh {
            self.left -= 1;
            return Ok(Turn::Send);
        }
        let backlog = look(link).await?;
        Ok(self.decide(now, backlog, options))
    }

    fn decide(&mut self, now: Instant, backlog: Option<Backlog>, options: &BusOptions) -> Turn {
        self.looked = Some(now);
        let Backlog {
            unread,
            unacknowledged,
        } = backlog.unwrap_or_default();
        let room = STREAM_LEN_MAX.saturating_sub(unread + unacknowledged);
        if 0 < room {
            if std::mem::take(&mut self.is_told) {
                tracing::info!("events have room in the stream again");
            }
            (self.full_since, self.forced) = (None, None);
            self.left = room.div_ceil(2) - 1;
            return Turn::Send;
        }
        self.left = 0;
        let since = *self.full_since.get_or_insert(now);
        let bound = match unread {
            0 => options.pending_wait,
            _ => options.lag_wait,
        };
        if now < since + bound {
            return Turn::Wait(WAIT_STEP.min(bound));
        }
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                unread,
                unacknowledged,
                "events are sent that may be lost: no room"
            );
        }
        match self.forced {
            Some(at) if now < at + FORCED_STEP => Turn::Wait(at + FORCED_STEP - now),
            Some(_) | None => {
                self.forced = Some(now);
                Turn::Force
            }
        }
    }
}

/// What the Manager's group has before it; `None`: there is no such group.
async fn look(link: &Link) -> Result<Option<Backlog>, LinkError> {
    let mut cmd = redis::cmd("XINFO");
    cmd.arg("GROUPS").arg(STREAM);
    let groups: Vec<Value> = match link.query(&cmd).await {
        Ok(groups) => groups,
        // There is no stream yet.
        Err(LinkError::Refused { code, .. }) if code == "ERR" => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut groups = groups
        .into_iter()
        .filter_map(|group| HashMap::<String, Value>::from_redis_value(group).ok());
    let is_managers =
        |group: &HashMap<String, Value>| text(group, "name").as_deref() == Some(GROUP);
    let Some(group) = groups.find(is_managers) else {
        return Ok(None);
    };
    let unread = match number(&group, "lag") {
        Some(lag) => lag,
        None => count_after(link, text(&group, "last-delivered-id")).await?,
    };
    let unacknowledged = number(&group, "pending").unwrap_or(0);
    Ok(Some(Backlog {
        unread,
        unacknowledged,
    }))
}

/// Servers before 7.0 do not say the lag, and later ones not always: the entries are counted.
async fn count_after(link: &Link, id: Option<String>) -> Result<usize, LinkError> {
    let from = format!("({}", id.unwrap_or_else(|| "0-0".to_owned()));
    let mut cmd = redis::cmd("XRANGE");
    cmd.arg(STREAM)
        .arg(from)
        .arg("+")
        .arg("COUNT")
        .arg(STREAM_LEN_MAX);
    let entries: Vec<Value> = link.query(&cmd).await?;
    Ok(entries.len())
}

fn text(group: &HashMap<String, Value>, name: &str) -> Option<String> {
    String::from_redis_value(group.get(name)?.clone()).ok()
}

fn number(group: &HashMap<String, Value>, name: &str) -> Option<usize> {
    Option::<usize>::from_redis_value(group.get(name)?.clone()).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(unread: usize, unacknowledged: usize) -> Option<Backlog> {
        Some(Backlog {
            unread,
            unacknowledged,
        })
    }

    #[test]
    fn half_of_the_room_is_used_before_the_next_look() {
        let options = BusOptions::default();
        for (seen, left) in [
            (None, 63),
            (backlog(0, 0), 63),
            (backlog(64, 0), 31),
            (backlog(100, 20), 3),
            (backlog(127, 0), 0),
        ] {
            let mut pace = Pace::new();
            assert_eq!(pace.decide(Instant::now(), seen, &options), Turn::Send);
            assert_eq!(pace.left, left, "{seen:?}");
        }
    }

    #[test]
    fn a_full_stream_is_waited_for_and_then_fed_slowly() {
        let options = BusOptions::default();
        for (seen, bound) in [
            (backlog(128, 0), options.lag_wait),
            (backlog(900, 900), options.lag_wait),
            (backlog(0, 128), options.pending_wait),
        ] {
            let mut pace = Pace::new();
            let start = Instant::now();
            let mut at = |after: Duration, seen| pace.decide(start + after, seen, &options);
            assert_eq!(at(Duration::ZERO, seen), Turn::Wait(WAIT_STEP));
            assert_eq!(at(bound - WAIT_STEP, seen), Turn::Wait(WAIT_STEP));
            assert_eq!(at(bound, seen), Turn::Force);
            assert_eq!(at(bound, seen), Turn::Wait(FORCED_STEP));
            assert_eq!(at(bound + FORCED_STEP, seen), Turn::Force);
            assert_eq!(at(bound * 2, backlog(1, 1)), Turn::Send);
            assert_eq!(at(bound * 3, seen), Turn::Wait(WAIT_STEP));
        }
    }
}
