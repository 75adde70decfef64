//! The Manager as a client sees it: who a user is, and what they may do with a folder.
//!
//! Laws
//! - Every call has a time limit, and an answer has a largest size.
//! - Only calls that change nothing are tried again, a bounded number of times, after a random
//!   pause. Every call here changes nothing.
//! - A Manager that fails again and again is left alone for a while: callers hear so at once.
//! - Keys are in no text of this module.
//!
//! Source: `ai.backend.client` 26.9.6, its requests and the Manager's answers.

mod breaker;
mod calls;
mod sign;

use std::fmt;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use proxy_core::token::Secret;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;
use thiserror::Error;

use self::breaker::Breaker;
pub use self::calls::{FolderAccess, Keypair, Share, User, Version};
pub use self::sign::signature;

/// The version of the API that is spoken; every Manager since 24.09 knows it.
pub const API_VERSION: &str = "v8.20240915";
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest pause before a call is tried again.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Who we are to the Manager, and how long we wait.
#[derive(Clone)]
pub struct ManagerSettings {
    /// URL of the API, such as `http://10.0.0.1:8091`.
    pub endpoint: Url,
    /// Public half of the keypair.
    pub access_key: String,
    /// The other half.
    pub secret_key: Secret,
    /// Until a connection is there.
    pub connect_time_max: Duration,
    /// For a whole call.
    pub call_time_max: Duration,
    /// How often a call is tried again.
    pub retries_max: u32,
    /// Failures in a row after which the Manager is left alone.
    pub failures_max: u32,
    /// For how long.
    pub rest: Duration,
}

impl ManagerSettings {
    /// Usual times: 2 s to connect, 10 s for a call, two more tries, a rest of 10 s after five
    /// failures.
    pub fn new(endpoint: Url, access_key: impl Into<String>, secret_key: Secret) -> Self {
        Self {
            endpoint,
            access_key: access_key.into(),
            secret_key,
            connect_time_max: Duration::from_secs(2),
            call_time_max: Duration::from_secs(10),
            retries_max: 2,
            failures_max: 5,
            rest: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for ManagerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerSettings")
            .field("endpoint", &self.endpoint.as_str())
            .finish_non_exhaustive()
    }
}

/// What the Manager says of an error: its problem document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Status of HTTP.
    pub status: u16,
    /// Its `type`.
    pub kind: String,
    /// Its `title`, or the first words of a text.
    pub title: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.title)
    }
}

/// Why a call has no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// No connection, or it broke.
    #[error("the Manager can not be reached: {0}")]
    Down(String),
    /// No answer within the time limit.
    #[error("the Manager does not answer in time")]
    Late,
    /// It failed again and again, and is left alone.
    #[error("the Manager is left alone for {} s more", .0.as_secs())]
    Resting(Duration),
    /// It failed: 5xx.
    #[error("the Manager failed: {0}")]
    Failed(Box<Told>),
    /// The keypair is not right, or may not do this: 401, 403.
    #[error("the Manager denies: {0}")]
    Denied(Box<Told>),
    /// What is asked for is not there: 404, or nothing in the answer.
    #[error("the Manager does not know {0}")]
    Unknown(String),
    /// It says no in another way.
    #[error("the Manager refuses: {0}")]
    Refused(Box<Told>),
    /// The answer is not what was asked for.
    #[error("the Manager's answer is not understood: {0}")]
    Strange(String),
}

impl ManagerError {
    /// Whether the same call may work soon.
    pub fn may_retry(&self) -> bool {
        matches!(
            self,
            Self::Down(_) | Self::Late | Self::Failed(_) | Self::Resting(_)
        )
    }
}

/// See the module. Its connections are pooled; share it.
#[derive(Debug)]
pub struct Manager {
    http: Client,
    settings: ManagerSettings,
    breaker: Mutex<Breaker>,
}

impl Manager {
    /// A client, which connects when it is asked. A provider for rustls must be installed.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(settings: ManagerSettings) -> Result<Self, ManagerError> {
        let http = Client::builder()
            .connect_timeout(settings.connect_time_max)
            .timeout(settings.call_time_max)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("storage-proxy/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ManagerError::Down(plain(&error)))?;
        let breaker = Mutex::new(Breaker::new(settings.failures_max, settings.rest));
        Ok(Self {
            http,
            settings,
            breaker,
        })
    }

    /// One call that changes nothing, with tries and breaker.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ManagerError> {
        let mut tries = 0;
        loop {
            if let Some(left) = self.breaker.lock().is_resting() {
                return Err(ManagerError::Resting(left));
            }
            let outcome = self.once(&method, path, body).await;
            let failed = outcome.as_ref().is_err_and(ManagerError::may_retry);
            self.breaker.lock().tell(failed);
            if !failed || self.settings.retries_max <= tries {
                return outcome;
            }
            tries += 1;
            tokio::time::sleep(random_pause(tries)).await;
        }
    }

    async fn once(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ManagerError> {
        let strange = |error: &dyn fmt::Display| ManagerError::Strange(error.to_string());
        let base = self.settings.endpoint.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}{path}")).map_err(|error| strange(&error))?;
        let date = sign::date(SystemTime::now());
        let headers = sign::Signed {
            method: method.as_str(),
            url: &url,
            date: &date,
            content_type: "application/json",
            version: API_VERSION,
        };
        let keys = (&*self.settings.access_key, &self.settings.secret_key);
        let authorization = headers.authorization(keys.0, keys.1);
        let mut authorization =
            HeaderValue::from_str(&authorization).map_err(|error| strange(&error))?;
        authorization.set_sensitive(true);
        let mut request = self
            .http
            .request(method.clone(), url)
            .header(DATE, date)
            .header(CONTENT_TYPE, "application/json")
            .header("X-BackendAI-Version", API_VERSION)
            .header("Authorization", authorization);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let bytes = read(answer).await?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| strange(&error));
        }
        Err(told(status, &bytes, path))
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Vec<u8>, ManagerError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| failed(&error))? {
        if ANSWER_BYTES_MAX < bytes.len() + chunk.len() {
            return Err(ManagerError::Strange("it is too long".into()));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn failed(error: &reqwest::Error) -> ManagerError {
    if error.is_timeout() {
        ManagerError::Late
    } else {
        ManagerError::Down(plain(error))
    }
}

/// The innermost cause: the outer ones name the URL, and with it what was asked for.
fn plain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn told(status: StatusCode, body: &[u8], path: &str) -> ManagerError {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| problem.get(key).and_then(Value::as_str).map(str::to_owned);
    let told = Box::new(Told {
        status: status.as_u16(),
        kind: text("type").unwrap_or_default(),
        title: text("title").unwrap_or_else(|| {
            let words = String::from_utf8_lossy(body);
            words.chars().filter(|c| !c.is_control()).take(80).collect()
        }),
    });
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ManagerError::Denied(told),
        StatusCode::NOT_FOUND => {
            let path = path.split('?').next().unwrap_or_default();
            ManagerError::Unknown(path.to_owned())
        }
        StatusCode::TOO_MANY_REQUESTS => ManagerError::Failed(told),
        status if status.is_server_error() => ManagerError::Failed(told),
        _ => ManagerError::Refused(told),
    }
}

/// Up to twice as long with every try.
fn random_pause(tries: u32) -> Duration {
    let limit = (PAUSE_MAX / 8)
        .saturating_mul(1 << tries.min(6))
        .min(PAUSE_MAX);
    // The random part of an identifier is as good as any other.
    let random = uuid::Uuid::new_v4().as_u64_pair().1 as u32;
    limit.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
