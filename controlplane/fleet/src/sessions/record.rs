//! What Redis holds of one upload session, and the scripts that change it.
//!
//! | key | what | since |
//! |---|---|---|
//! | `tus.upload.offset:S` | bytes durable without a gap, as text | the original's 26.8.1 |
//! | `tus.upload.lease:S` | who writes: `<node>:<32 hex>`, or one word for all of us | the same |
//! | `upload:S` | a hash, see below | us |
//!
//! Fields of the hash: `doc`, our record; `rev`, how often it changed; `store`, who changed it
//! last; `h:<holder>`, who writes what until when; `park` and `gone`, see the laws.
//!
//! Laws
//! - The original moves the offset and knows nothing of `upload:S`: the durable prefix is what the
//!   offset key says.
//! - `upload:S` and the offset change together, and only from the state that was read.
//! - While bytes behind a gap are durable, the lease stays (`park`): the original would cut them
//!   off. It answers 409 meanwhile, as for any writer.
//! - What was abandoned is remembered (`gone`), longer than anybody can ask for it.

use std::sync::LazyLock;
use std::time::Duration;

use proxy_core::extent::Want;
use proxy_core::id::SessionId;
use proxy_core::units::Offset;
use proxy_state::{Holder, Session};
use redis::Script;
use uuid::Uuid;

use crate::link::{Link, LinkError};

/// How long an untouched session is kept, as in the original.
const KEEP_S: u64 = 86_400;
/// How long a lease lives that is not renewed, as in the original.
const LEASE_S: u64 = 30;
/// How long one of our writers is believed to write that is not heard of.
const HOLD: Duration = Duration::from_secs(9);

/// Lines that several scripts begin with.
const CLOCK: &str = "
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function lease_ttl(upload, keep, lease)
  if redis.call('HGET', upload, 'park') == '1' then return keep end
  return lease
end
local function state(kind, offset, upload)
  local h = redis.call('HMGET', upload, 'rev', 'doc', 'store')
  local word = redis.call('GET', 'storage-proxy:epoch') or ''
  return {kind, redis.call('GET', offset) or '', h[1] or '', h[2] or '', h[3] or '', word}
end
";

const TAKE: &str = "
if redis.call('HEXISTS', KEYS[3], 'gone') == 1 then return {'gone'} end
local lease = redis.call('GET', KEYS[2])
if lease and lease ~= ARGV[1] then return {'foreign'} end
local from, to, kind = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local others, beside = {}, {}
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'h:' then
    local f, e, k, s, u = string.match(all[i + 1], '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
    f, e = tonumber(f), tonumber(e)
    local both = from < e and f < to and from < to and f < e
    if tonumber(u) < now then
      redis.call('HDEL', KEYS[3], all[i])
    elseif both or (kind == 'a' and k == 'a') then
      if s == ARGV[6] then redis.call('HDEL', KEYS[3], all[i])
      else others[#others + 1] = string.sub(all[i], 3) end
    elseif s ~= ARGV[6] then
      beside[#beside + 1] = s
    end
  end
end
if #others > 0 then return {'busy', unpack(others)} end
local until_ms = string.format('%d', now + ARGV[7])
local held = table.concat({ARGV[3], ARGV[4], kind, ARGV[6], until_ms}, ' ')
redis.call('HSET', KEYS[3], 'h:' .. ARGV[2], held)
redis.call('EXPIRE', KEYS[3], ARGV[9])
redis.call('SET', KEYS[2], ARGV[1], 'EX', lease_ttl(KEYS[3], ARGV[9], ARGV[8]))
return state('ok ' .. table.concat(beside, ' '), KEYS[1], KEYS[3])
";

const COMMIT: &str = "
if redis.call('HEXISTS', KEYS[3], 'gone') == 1 then return {'gone'} end
local field = 'h:' .. ARGV[2]
local held = ARGV[2] ~= '' and redis.call('HGET', KEYS[3], field)
if ARGV[2] ~= '' and not held then return state('lost', KEYS[1], KEYS[3]) end
local rev = redis.call('HGET', KEYS[3], 'rev') or ''
local offset = redis.call('GET', KEYS[1]) or ''
if rev ~= ARGV[3] or offset ~= ARGV[4] then return state('stale', KEYS[1], KEYS[3]) end
local new = string.format('%d', (tonumber(rev) or 0) + 1)
redis.call('HSET', KEYS[3], 'rev', new, 'doc', ARGV[5], 'store', ARGV[7], 'park', ARGV[11])
redis.call('SET', KEYS[1], ARGV[6], 'EX', ARGV[10])
redis.call('EXPIRE', KEYS[3], ARGV[10])
if held then
  local until_ms = string.format('%d', now + ARGV[8])
  redis.call('HSET', KEYS[3], field, (string.gsub(held, '%S+$', until_ms)))
  redis.call('SET', KEYS[2], ARGV[1], 'EX', lease_ttl(KEYS[3], ARGV[10], ARGV[9]))
end
return {'ok', ARGV[6], new, ARGV[5], ARGV[7]}
";

const RENEW: &str = "
local lease = redis.call('GET', KEYS[1])
local held = redis.call('HGET', KEYS[2], 'h:' .. ARGV[2])
if not held or (lease and lease ~= ARGV[1]) then return 0 end
local until_ms = string.format('%d', now + ARGV[3])
redis.call('HSET', KEYS[2], 'h:' .. ARGV[2], (string.gsub(held, '%S+$', until_ms)))
redis.call('SET', KEYS[1], ARGV[1], 'EX', lease_ttl(KEYS[2], ARGV[5], ARGV[4]))
return 1
";

const RELEASE: &str = "
redis.call('HDEL', KEYS[2], 'h:' .. ARGV[2])
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'h:' then
    local u = string.match(all[i + 1], '(%S+)$')
    if now <= tonumber(u) then return 0 end
  end
end
if redis.call('HGET', KEYS[2], 'park') == '1' then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
return 1
";

const CREATE: &str = "
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[4])
redis.call('HSET', KEYS[3], 'rev', '1', 'doc', ARGV[2], 'store', ARGV[3], 'park', '0')
redis.call('EXPIRE', KEYS[3], ARGV[4])
return 1
";

const ABANDON: &str = "
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[3], 'gone', '1')
redis.call('EXPIRE', KEYS[3], ARGV[1])
return 1
";

const LOOK: &str = "
if redis.call('HEXISTS', KEYS[2], 'gone') == 1 then return {'gone'} end
local kind = 'ok'
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  if string.sub(field, 1, 2) == 'h:' then kind = 'held' end
end
return state(kind, KEYS[1], KEYS[2])
";

struct Scripts {
    take: Script,
    commit: Script,
    renew: Script,
    release: Script,
    create: Script,
    abandon: Script,
    look: Script,
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let timed = |text: &str| Script::new(&format!("{CLOCK}{text}"));
    Scripts {
        take: timed(TAKE),
        commit: timed(COMMIT),
        renew: timed(RENEW),
        release: timed(RELEASE),
        create: Script::new(CREATE),
        abandon: Script::new(ABANDON),
        look: timed(LOOK),
    }
});

/// What is there of a session, as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The offset key; empty where there is none.
    offset: String,
    /// Which change of ours was the last; empty where there was none.
    rev: String,
    doc: String,
    /// Who made the last change of ours.
    store: String,
    /// The word that is lost with everything else, see [`Records::epoch`].
    pub(super) word: String,
    /// Whether somebody of us writes.
    pub(super) is_held: bool,
    /// Who writes other bytes of it, as far as a claim found.
    pub(super) beside: Vec<Uuid>,
}

/// The stores behind the first word.
fn stores(kind: &str) -> Vec<Uuid> {
    let words = kind.split(' ').skip(1);
    words
        .filter_map(|word| Uuid::parse_str(word).ok())
        .collect()
}

impl Record {
    fn of(mut said: Vec<String>) -> Self {
        let mut next = || match said.is_empty() {
            true => String::new(),
            false => said.remove(0),
        };
        let kind = next();
        Self {
            offset: next(),
            rev: next(),
            doc: next(),
            store: next(),
            word: next(),
            is_held: kind == "held",
            beside: stores(&kind),
        }
    }

    /// The server that made the last change of ours.
    pub(super) fn last(&self) -> Option<Uuid> {
        Uuid::parse_str(&self.store).ok()
    }

    /// Whether nothing at all is known.
    pub(super) fn is_empty(&self) -> bool {
        self.offset.is_empty() && self.rev.is_empty()
    }

    /// Whether none of us has changed it.
    pub(super) fn is_without_ours(&self) -> bool {
        self.rev.is_empty()
    }

    /// The offset key.
    pub(super) fn offset(&self) -> Option<u64> {
        self.offset.parse().ok()
    }

    /// The session; `like` says what only a token knows where the original has made it.
    pub(super) fn session(&self, like: Option<&Session>) -> Option<Session> {
        let mut session: Session = match serde_json::from_str(&self.doc) {
            Ok(session) => session,
            Err(_) => {
                let mut session = like?.clone();
                session.set_durable(&Default::default());
                session.pieces = Default::default();
                session
            }
        };
        if let Some(offset) = self.offset().map(|offset| offset.min(session.size))
            && offset != session.offset.get()
            && !session.is_finished()
        {
            let behind = session.durable().after(offset);
            session.offset = Offset::new(offset);
            let mut durable = behind;
            durable.insert(proxy_core::extent::Extent::new(0, offset));
            session.set_durable(&durable);
        }
        (!self.is_empty()).then_some(session)
    }
}

/// What became of a wish to write.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is granted.
    Ok(Record),
    /// These writers of ours are in the way.
    Busy(Vec<String>),
    /// A writer of the original is in the way.
    Foreign,
    /// The session was abandoned.
    Gone,
}

/// What became of a change.
#[derive(Debug)]
pub(super) enum Committed {
    /// It is made.
    Ok(Record),
    /// The state is another one.
    Stale(Record),
    /// The writer is none any more.
    Lost(Record),
    /// The session was abandoned.
    Gone,
}

/// What a look found.
#[derive(Debug)]
pub(super) enum Looked {
    /// This, or nothing.
    Record(Record),
    /// The session was abandoned.
    Gone,
}

/// All sessions in Redis.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) link: Link,
    /// Who we are: the same as long as the local store is.
    pub(super) store: Uuid,
}

/// The value of the lease while one of us has it: the scripts know which.
fn shared(id: SessionId) -> String {
    format!("storage-proxy-fleet:{id}")
}

fn offset_key(id: SessionId) -> String {
    format!("tus.upload.offset:{id}")
}

fn lease_key(id: SessionId) -> String {
    format!("tus.upload.lease:{id}")
}

fn upload_key(id: SessionId) -> String {
    format!("upload:{id}")
}

/// Whether the original would cut off durable bytes.
fn park(session: &Session) -> &'static str {
    let at_risk = !session.ranges.is_empty() || !session.pieces.all.is_empty();
    if at_risk && !session.is_finished() {
        "1"
    } else {
        "0"
    }
}

impl Records {
    pub(super) async fn take(
        &self,
        id: SessionId,
        holder: Holder,
        want: Want,
    ) -> Result<Taken, LinkError> {
        let extent = want.extent();
        let kind = match want {
            Want::Append { .. } => "a",
            Want::Part(_) => "p",
        };
        let mut call = SCRIPTS.take.prepare_invoke();
        call.key(offset_key(id))
            .key(lease_key(id))
            .key(upload_key(id));
        call.arg(shared(id)).arg(holder.to_string());
        call.arg(extent.from).arg(extent.to).arg(kind);
        call.arg(self.store.simple().to_string());
        call.arg(HOLD.as_millis().to_string())
            .arg(LEASE_S)
            .arg(KEEP_S);
        let said: Vec<String> = self.link.script(&call).await?;
        Ok(match said.first().map(String::as_str) {
            Some("busy") => Taken::Busy(said[1..].to_vec()),
            Some("foreign") => Taken::Foreign,
            Some("gone") => Taken::Gone,
            _ => Taken::Ok(Record::of(said)),
        })
    }

    /// Puts `session` in the place of what was read, as written by `store`. Of `holder`, if
    /// somebody writes.
    pub(super) async fn commit(
        &self,
        session: &Session,
        store: Option<Uuid>,
        holder: Option<Holder>,
        read: &Record,
    ) -> Result<Committed, LinkError> {
        let id = session.id;
        let mut call = SCRIPTS.commit.prepare_invoke();
        call.key(offset_key(id))
            .key(lease_key(id))
            .key(upload_key(id));
        call.arg(shared(id));
        call.arg(holder.map_or_else(String::new, |holder| holder.to_string()));
        call.arg(&read.rev).arg(&read.offset);
        call.arg(document(session)).arg(session.offset.get());
        call.arg(store.map_or_else(String::new, |store| store.simple().to_string()));
        call.arg(HOLD.as_millis().to_string())
            .arg(LEASE_S)
            .arg(KEEP_S);
        call.arg(park(session));
        let said: Vec<String> = self.link.script(&call).await?;
        Ok(match said.first().map(String::as_str) {
            Some("stale") => Committed::Stale(Record::of(said)),
            Some("lost") => Committed::Lost(Record::of(said)),
            Some("gone") => Committed::Gone,
            _ => Committed::Ok(Record::of(said)),
        })
    }

    /// Whether the writer still is one.
    pub(super) async fn renew(&self, id: SessionId, holder: Holder) -> Result<bool, LinkError> {
        let mut call = SCRIPTS.renew.prepare_invoke();
        call.key(lease_key(id)).key(upload_key(id));
        call.arg(shared(id)).arg(holder.to_string());
        call.arg(HOLD.as_millis().to_string())
            .arg(LEASE_S)
            .arg(KEEP_S);
        self.link.script(&call).await
    }

    pub(super) async fn release(&self, id: SessionId, holder: Holder) -> Result<(), LinkError> {
        let mut call = SCRIPTS.release.prepare_invoke();
        call.key(lease_key(id)).key(upload_key(id));
        call.arg(shared(id)).arg(holder.to_string()).arg(KEEP_S);
        self.link.script(&call).await
    }

    pub(super) async fn create(&self, session: &Session) -> Result<(), LinkError> {
        let id = session.id;
        let mut call = SCRIPTS.create.prepare_invoke();
        call.key(offset_key(id))
            .key(lease_key(id))
            .key(upload_key(id));
        call.arg(session.offset.get()).arg(document(session));
        call.arg(self.store.simple().to_string()).arg(KEEP_S);
        self.link.script(&call).await
    }

    pub(super) async fn abandon(&self, id: SessionId) -> Result<(), LinkError> {
        let mut call = SCRIPTS.abandon.prepare_invoke();
        call.key(offset_key(id))
            .key(lease_key(id))
            .key(upload_key(id));
        self.link.script(call.arg(KEEP_S)).await
    }

    pub(super) async fn look(&self, id: SessionId) -> Result<Looked, LinkError> {
        let mut call = SCRIPTS.look.prepare_invoke();
        call.key(offset_key(id)).key(upload_key(id));
        let said: Vec<String> = self.link.script(&call).await?;
        Ok(match said.first().map(String::as_str) {
            Some("gone") => Looked::Gone,
            _ => Looked::Record(Record::of(said)),
        })
    }

    /// A word that is lost with everything else.
    pub(super) async fn epoch(&self) -> Result<String, LinkError> {
        let mut pipe = redis::pipe();
        let word = Uuid::new_v4().simple().to_string();
        pipe.cmd("SET").arg(EPOCH).arg(word).arg("NX").ignore();
        pipe.cmd("GET").arg(EPOCH);
        let (word,): (String,) = self.link.pipe(&pipe).await?;
        Ok(word)
    }
}

const EPOCH: &str = "storage-proxy:epoch";

fn document(session: &Session) -> String {
    serde_json::to_string(session).expect("records have text keys only and no failing serializer")
}
