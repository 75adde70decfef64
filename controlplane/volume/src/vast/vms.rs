//! The REST interface of VAST's management service, as far as it is used: quotas by path,
//! snapshots of directories, the cluster.
//!
//! Laws
//! - A token lasts as long as it says, less a minute; the one to renew it with is used first.
//! - What a quota is about is its path: one of another path is never changed, whatever its name.
//! - What the cluster says is kept for a while: capacity, health and metrics come from it.
//!
//! Source: OpenAPI of VMS 5.3; `vastpy` 0.3.22.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderMap};
use proxy_core::id::QuotaScopeId;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::directory_quota::{Found, Limiter};
use crate::error::VolumeError;
use crate::stamp::Stamp;
use crate::vendor::auth::{Auth, Grant};
use crate::vendor::call::{Answer, Call, secret_value, segment};
use crate::vendor::options::{BackendOption, OptionKind, Options, Secret, optional, required};
use crate::vendor::rest::{About, Explained, Failure, Rest};
use crate::vendor::{Cause, VendorError};
use crate::volumes::{Spec, SpecError};

/// The product, as people call it.
pub(super) const SYSTEM: &str = "VAST";
const ENDPOINT: &str = "vast_endpoint";
const USER: &str = "vast_username";
const PASSWORD: &str = "vast_password";
const VERIFY: &str = "vast_verify_ssl";
const CA_FILE: &str = "vast_ca_file";
const FORCE_LOGIN: &str = "vast_force_login";
const VERSION: &str = "vast_api_version";
const CLUSTER_ID: &str = "vast_cluster_id";
const BASE_DIR: &str = "vast_storage_base_dir";
const CACHE_TTL: &str = "vast_cluster_info_cache_ttl";

/// Options beside those of every REST interface.
pub(crate) const OPTIONS: &[BackendOption] = &[
    required(
        ENDPOINT,
        OptionKind::Url,
        "the address of the management service",
    ),
    required(
        USER,
        OptionKind::Text,
        "a manager's account with the rights below",
    ),
    required(PASSWORD, OptionKind::Secret, "its password"),
    optional(
        VERIFY,
        OptionKind::Flag,
        "true",
        "whether certificates are verified",
    ),
    optional(
        CA_FILE,
        OptionKind::Path,
        "",
        "authorities to trust instead of the system's, PEM",
    ),
    optional(
        FORCE_LOGIN,
        OptionKind::Flag,
        "false",
        "log in before every call",
    ),
    optional(
        VERSION,
        OptionKind::Text,
        "v2",
        "the version of the interface: v1 to v9, or latest",
    ),
    optional(
        CLUSTER_ID,
        OptionKind::Number,
        "1",
        "the number of the cluster",
    ),
    optional(
        BASE_DIR,
        OptionKind::Path,
        "/",
        "the directory of the element store that is mounted",
    ),
    optional(
        CACHE_TTL,
        OptionKind::Wait,
        "120",
        "how long capacity and health are remembered; metrics no longer than 10 s",
    ),
];

/// A token is renewed so long before it ends.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// How long a token lasts that does not say.
const TOKEN_LIFE: Duration = Duration::from_secs(240);
/// The observer asks as often.
const METRIC_TTL: Duration = Duration::from_secs(10);
const PAGE: usize = 500;
const PAGES_MAX: usize = 1000;

/// A client for one cluster and one directory of it.
pub(super) struct Vms {
    pub(super) rest: Rest,
    cluster_id: u32,
    base_dir: String,
    /// The mount point: quotas are called by the path of their directory on this host.
    mount: PathBuf,
    ttl: Duration,
    cluster: Mutex<Option<(Instant, Value)>>,
}

struct Tokens {
    user: String,
    password: Secret,
    force: bool,
}

impl Tokens {
    fn grant(&self, rest: &Rest, call: &Call, answer: &Answer) -> Result<Grant, Failure> {
        let value = |text: &str| secret_value(&format!("Bearer {text}"));
        let Some(bearer) = answer.text("/access").and_then(value) else {
            let text = "no token in the answer";
            return Err(rest.error(call.operation, Cause::Malformed, text).into());
        };
        let access = answer.text("/access").unwrap_or_default();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let life = life_of(access, now).unwrap_or(TOKEN_LIFE);
        let life = if self.force { Duration::ZERO } else { life };
        Ok(Grant {
            headers: HeaderMap::from_iter([(AUTHORIZATION, bearer)]),
            fresh_until: Some(Instant::now() + life),
            refresh: answer.text("/refresh").map(Secret::new),
        })
    }
}

#[async_trait]
impl Auth for Tokens {
    async fn login(&self, rest: &Rest, old: Option<&Grant>) -> Result<Grant, Failure> {
        let refresh = old
            .and_then(|old| old.refresh.clone())
            .filter(|_| !self.force);
        if let Some(token) = refresh {
            let told = json!({"refresh": token.expose()});
            let call = Call::post("renew token", "/token/refresh/")
                .json(told)
                .repeatable();
            match rest.bare(&call).await {
                Ok(answer) => {
                    let mut grant = self.grant(rest, &call, &answer)?;
                    // Not every version gives a new one.
                    grant.refresh = grant.refresh.or(Some(token));
                    return Ok(grant);
                }
                Err(failure) if !failure.error.cause.may_retry() => {}
                Err(failure) => return Err(failure),
            }
        }
        let pairs = vec![
            ("username", self.user.clone()),
            ("password", self.password.expose().to_owned()),
        ];
        let call = Call::post("log in", "/token/").form(pairs).repeatable();
        let answer = rest.bare(&call).await?;
        self.grant(rest, &call, &answer)
    }
}

/// How long a JSON web token may be used from `now` on, after 1970; its signature is the
/// server's business. The server's clock is taken for right where the token tells it.
fn life_of(token: &str, now: Duration) -> Option<Duration> {
    let payload = URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1)?.trim_end_matches('='))
        .ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let ends = claims["exp"].as_u64()?;
    let made = claims["iat"].as_u64().unwrap_or(now.as_secs());
    let life = Duration::from_secs(ends.saturating_sub(made));
    Some(life.saturating_sub(TOKEN_MARGIN))
}

fn explain(answer: &Answer) -> Explained {
    let body = &answer.body;
    let text = match (answer.text("/detail"), body.as_object()) {
        (Some(detail), _) => Some(detail.to_owned()),
        (None, Some(fields)) => Some(fields_of(fields)),
        (None, None) => None,
    };
    let expired = body["code"] == "token_not_valid"
        || text
            .as_deref()
            .is_some_and(|text| text.contains("oken is invalid or expired"));
    Explained {
        code: body["code"].as_str().map(str::to_owned),
        text,
        cause: expired.then_some(Cause::Unauthorized),
    }
}

/// `{"name": ["is taken"]}` as people read it.
fn fields_of(fields: &serde_json::Map<String, Value>) -> String {
    let texts = fields.iter().map(|(key, value)| {
        let text = match value {
            Value::Array(all) => {
                let all = all.iter().map(|one| one.as_str().unwrap_or_default());
                all.collect::<Vec<_>>().join(", ")
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!("{key}: {text}")
    });
    texts.collect::<Vec<_>>().join("; ")
}

impl Vms {
    pub(super) fn new(spec: &Spec, options: &Options<'_>) -> Result<Self, SpecError> {
        let version = options.need(VERSION)?;
        let digit = |text: &str| matches!(text.as_bytes(), [b'1'..=b'9']);
        if version != "latest" && !version.strip_prefix('v').is_some_and(digit) {
            return Err(options.fault(VERSION, "must be: v1 to v9, or latest"));
        }
        let base_dir = options.need(BASE_DIR)?;
        if !base_dir.starts_with('/') {
            return Err(options.fault(BASE_DIR, "must be: a path with a slash at its begin"));
        }
        let about = About {
            system: SYSTEM,
            backend: "vast",
            below: format!("/api/{version}"),
            verify_key: VERIFY,
            ca_key: CA_FILE,
            explain,
        };
        let auth = Tokens {
            user: options.need(USER)?,
            password: options.secret(PASSWORD)?,
            force: options.flag(FORCE_LOGIN),
        };
        Ok(Self {
            rest: Rest::of(spec, options, ENDPOINT, about, auth)?,
            cluster_id: options.number(CLUSTER_ID)?,
            base_dir: base_dir.trim_end_matches('/').to_owned(),
            mount: spec.path.clone(),
            ttl: options.seconds(CACHE_TTL)?,
            cluster: Mutex::default(),
        })
    }

    /// A path below the volume as the element store calls it.
    pub(super) fn stored(&self, below: &str) -> String {
        format!("{}{below}", self.base_dir)
    }

    fn scope_path(&self, scope: QuotaScopeId) -> String {
        self.stored(&format!("/{}", scope.dir_name()))
    }

    /// The name by which the original knows it, too.
    fn scope_name(&self, scope: QuotaScopeId) -> String {
        self.mount.join(scope.dir_name()).display().to_string()
    }

    /// What the cluster says of itself, not older than `age_max`.
    async fn cluster_of(&self, age_max: Duration) -> Result<Value, VendorError> {
        let mut kept = self.cluster.lock().await;
        if let Some((at, cluster)) = &*kept
            && at.elapsed() < age_max
        {
            return Ok(cluster.clone());
        }
        let place = format!("/clusters/{}/", self.cluster_id);
        let cluster = self.rest.call(Call::get("read cluster", place)).await?.body;
        *kept = Some((Instant::now(), cluster.clone()));
        Ok(cluster)
    }

    /// For capacity and health.
    pub(super) async fn cluster(&self) -> Result<Value, VendorError> {
        self.cluster_of(self.ttl).await
    }

    /// For metrics.
    pub(super) async fn cluster_now(&self) -> Result<Value, VendorError> {
        self.cluster_of(self.ttl.min(METRIC_TTL)).await
    }

    /// A list in pages, or whole from versions that do not make pages.
    async fn all(&self, call: Call) -> Result<Vec<Value>, VendorError> {
        let (mut all, operation) = (Vec::new(), call.operation);
        let call = call.query("page_size", PAGE.to_string());
        for page in 1..=PAGES_MAX {
            let answer = self.rest.call(call.clone().query("page", page.to_string()));
            let mut body = answer.await?.body;
            if let Value::Array(whole) = body {
                return Ok(whole);
            }
            if let Value::Array(mut items) = body["results"].take() {
                all.append(&mut items);
            }
            if body["next"].is_null() {
                return Ok(all);
            }
        }
        let text = "a list without end";
        Err(self.rest.error(operation, Cause::Malformed, text))
    }

    /// All quotas of the cluster.
    pub(super) async fn quotas(&self) -> Result<Vec<Value>, VendorError> {
        self.all(Call::get("list quotas", "/quotas/")).await
    }

    /// The quota of a path: by its noted number, by its name, or by looking at all of them.
    async fn quota(
        &self,
        scope: QuotaScopeId,
        noted: Option<String>,
    ) -> Result<Option<Value>, VendorError> {
        let path = self.scope_path(scope);
        if let Some(id) = noted {
            let place = format!("/quotas/{}/", segment(&id));
            let answer = self.rest.find(Call::get("read quota", place)).await?;
            let quota = answer.map(|answer| answer.body);
            if let Some(quota) = quota.filter(|quota| is_about(quota, &path)) {
                return Ok(Some(quota));
            }
        }
        let named = Call::get("find quota", "/quotas/").query("name", self.scope_name(scope));
        let named = self.all(named).await?;
        if let Some(quota) = named.into_iter().find(|quota| is_about(quota, &path)) {
            return Ok(Some(quota));
        }
        let all = self.quotas().await?;
        Ok(all.into_iter().find(|quota| is_about(quota, &path)))
    }

    /// Keeps the state of a directory. `false`: there is one of this name.
    pub(super) async fn create_snapshot(
        &self,
        name: &str,
        path: &str,
        expires: Option<Stamp>,
    ) -> Result<bool, VendorError> {
        let named = |all: &[Value]| all.iter().any(|one| one["name"].as_str() == Some(name));
        // Names need not be unique there.
        if named(&self.snapshots_named(name, path).await?) {
            return Ok(false);
        }
        let mut told = json!({"name": name, "path": format!("{path}/")});
        if let Some(at) = expires {
            told["expiration_time"] = json!(second_of(at));
        }
        let call = Call::post("create snapshot", "/snapshots/").json(told);
        match self.rest.call(call).await {
            Ok(_) => Ok(true),
            Err(error) if error.cause == Cause::Conflict => Ok(false),
            Err(error) if error.cause.may_retry() => {
                // The answer may be what was lost.
                match self.snapshots_named(name, path).await {
                    Ok(found) if named(&found) => Ok(true),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Snapshots of a directory whose names hold this text.
    pub(super) async fn snapshots_named(
        &self,
        text: &str,
        path: &str,
    ) -> Result<Vec<Value>, VendorError> {
        let call = Call::get("list snapshots", "/snapshots/")
            .query("path", format!("{path}/"))
            .query("name__contains", text);
        let all = self.all(call).await?;
        // Filters that a version does not know are ignored by it.
        let ours = all.into_iter().filter(|one| {
            let named = one["name"].as_str().is_some_and(|name| name.contains(text));
            named && is_about(one, path)
        });
        Ok(ours.collect())
    }

    pub(super) async fn delete_snapshot(&self, id: &Value) -> Result<(), VendorError> {
        let place = format!("/snapshots/{}/", plain(id));
        self.rest
            .find(Call::delete("delete snapshot", place))
            .await?;
        Ok(())
    }
}

fn is_about(object: &Value, path: &str) -> bool {
    let own = object["path"].as_str();
    own.map(|own| own.trim_end_matches('/')) == Some(path.trim_end_matches('/'))
}

/// A number or a text as text.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// In whole seconds, as ISO 8601.
fn second_of(at: Stamp) -> String {
    let second = i64::try_from(at.seconds_up()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(second)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

fn found(quota: &Value) -> Option<Found> {
    let id = quota.get("id").filter(|id| !id.is_null())?;
    Some(Found {
        id: plain(id),
        used_bytes: quota["used_capacity"].as_u64(),
        limit_bytes: quota["hard_limit"].as_u64().filter(|limit| *limit > 0),
    })
}

#[async_trait]
impl Limiter for Vms {
    fn note(&self) -> Option<&'static str> {
        Some(".vast-quota-id")
    }

    async fn find(
        &self,
        scope: QuotaScopeId,
        noted: Option<String>,
    ) -> Result<Option<Found>, VolumeError> {
        let quota = self.quota(scope, noted).await?;
        Ok(quota.as_ref().and_then(found))
    }

    async fn make(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<String, VolumeError> {
        let path = self.scope_path(scope);
        let name = self.scope_name(scope);
        let mut told = json!({
            "name": name, "path": path, "create_dir": false,
            "soft_limit": limit_bytes, "hard_limit": limit_bytes,
        });
        let create = |told: &Value| Call::post("create quota", "/quotas/").json(told.clone());
        let error = match self.rest.call(create(&told)).await {
            Ok(answer) => match found(&answer.body) {
                Some(made) => return Ok(made.id),
                None => self
                    .rest
                    .error("create quota", Cause::Malformed, "no id in the answer"),
            },
            Err(error) => error,
        };
        let doubtful = matches!(error.cause, Cause::Conflict | Cause::Refused);
        if !doubtful && !error.cause.may_retry() {
            return Err(error.into());
        }
        // Somebody made it meanwhile, or the answer was lost.
        if let Some(there) = self.quota(scope, None).await?.as_ref().and_then(found) {
            self.change(scope, &there.id, limit_bytes).await?;
            return Ok(there.id);
        }
        if !doubtful {
            return Err(error.into());
        }
        // The name may be that of another directory's quota, from a host with the same mounts.
        told["name"] = json!(format!("{name} {path}"));
        match self.rest.call(create(&told)).await {
            Ok(answer) => match found(&answer.body) {
                Some(made) => Ok(made.id),
                None => Err(error.into()),
            },
            Err(_) => Err(error.into()),
        }
    }

    async fn change(&self, _: QuotaScopeId, id: &str, limit_bytes: u64) -> Result<(), VolumeError> {
        let told = json!({"soft_limit": limit_bytes, "hard_limit": limit_bytes});
        let place = format!("/quotas/{}/", segment(id));
        let call = Call::patch("change quota", place).json(told).repeatable();
        self.rest.call(call).await?;
        Ok(())
    }

    async fn remove(&self, _: QuotaScopeId, id: &str) -> Result<(), VolumeError> {
        let place = format!("/quotas/{}/", segment(id));
        self.rest.find(Call::delete("delete quota", place)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_say_how_long_they_last() {
        let token = |claims: Value| {
            let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
            format!("head.{payload}.signature")
        };
        let now = Duration::from_secs(1_000_000);
        for (token, want) in [
            (token(json!({"exp": 1_000_300})), Some(240)),
            (token(json!({"exp": 1_000_030})), Some(0)),
            (token(json!({"exp": 900_000})), Some(0)),
            (
                token(json!({"exp": 5_000_300, "iat": 5_000_000})),
                Some(240),
            ),
            (token(json!({})), None),
            ("opaque".to_owned(), None),
            ("a.!!.c".to_owned(), None),
        ] {
            assert_eq!(
                life_of(&token, now).map(|life| life.as_secs()),
                want,
                "{token}"
            );
        }
    }

    #[test]
    fn errors_are_explained() {
        for (body, text, cause) in [
            (json!({"detail": "Not found."}), "Not found.", None),
            (
                json!({"name": ["is taken", "is long"]}),
                "name: is taken, is long",
                None,
            ),
            (json!({"a": "b", "c": 1}), "a: b; c: 1", None),
            (
                json!({"detail": "Token is invalid or expired"}),
                "Token is invalid or expired",
                Some(Cause::Unauthorized),
            ),
            (
                json!({"detail": "x", "code": "token_not_valid"}),
                "x",
                Some(Cause::Unauthorized),
            ),
        ] {
            let answer = Answer {
                status: 403,
                headers: HeaderMap::new(),
                body,
            };
            let explained = explain(&answer);
            assert_eq!(explained.text.as_deref(), Some(text));
            assert_eq!(explained.cause, cause);
        }
    }

    #[test]
    fn times_do_not_end_early() {
        let at = |unix_ns| second_of(Stamp { unix_ns });
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_795_332_601_500_000_000), "2026-11-22T07:30:02Z");
        assert_eq!(at(i128::MAX), jiff::Timestamp::MAX.to_string());
    }
}
