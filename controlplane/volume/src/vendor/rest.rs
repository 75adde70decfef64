//! The client of a vendor's REST interface: one per volume, with its own connections.
//!
//! A backend describes calls, this sends them: with credentials, in turn, in time, again where
//! that is safe; and says in one [`VendorError`] what became of them.
//!
//! Laws
//! - A call is sent again only if it was not sent at all, if the storage system asked for that, or
//!   if a repetition does no harm ([`Call::repeatable`]).
//! - Nothing is unbounded: connections, calls at once and per second, bytes of an answer, pages of
//!   a list, time per try and in all.
//! - Credentials go to the configured address only: redirects are not followed, links in answers
//!   are reduced to their path.
//! - The log shows what was called and how it went, never what a call carried.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::auth::{Auth, Grant};
use super::call::{Answer, Call, Content, Next};
use super::ledger::{Ledger, add};
use super::options::{BackendOption, OptionKind, Options, optional};
use super::pace::{Breaker, Gate, Pace, spread};
use super::{Cause, VendorError};
use crate::volumes::{Spec, SpecError};

/// Longest text of a vendor that is repeated to anyone, in bytes.
const TEXT_BYTES_MAX: usize = 400;

/// Options that every backend with a REST interface has, beside its own.
pub(crate) const REST_OPTIONS: &[BackendOption] = &[
    optional(
        "api_timeout",
        OptionKind::Seconds,
        "60",
        "how long one operation of the interface may take, repetitions included",
    ),
    optional(
        "api_job_timeout",
        OptionKind::Seconds,
        "300",
        "how long a job that the storage system works on by itself is waited for",
    ),
    optional(
        "api_calls_at_once",
        OptionKind::Number,
        "8",
        "calls under way at the same time",
    ),
    optional(
        "api_calls_per_second",
        OptionKind::Number,
        "50",
        "calls begun per second",
    ),
];

/// Bounds of one client.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) connect_time: Duration,
    /// One try, from the first byte sent to the last one received.
    pub(crate) try_time: Duration,
    /// All tries of a call.
    pub(crate) call_time: Duration,
    pub(crate) tries_max: u32,
    /// Before the second try; it doubles.
    pub(crate) retry_wait: Duration,
    pub(crate) retry_wait_max: Duration,
    pub(crate) calls_at_once: usize,
    pub(crate) calls_per_second: u32,
    pub(crate) answer_bytes_max: usize,
    pub(crate) pages_max: usize,
    /// Failures in a row after which nothing is sent for a while.
    pub(crate) failures_max: u32,
    pub(crate) pause_min: Duration,
    pub(crate) pause_max: Duration,
    /// How long a refused login is not repeated.
    pub(crate) refusal_time: Duration,
    pub(crate) job_wait: Duration,
    pub(crate) job_wait_max: Duration,
    pub(crate) job_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            connect_time: s(5),
            try_time: s(30),
            call_time: s(60),
            tries_max: 4,
            retry_wait: ms(200),
            retry_wait_max: s(10),
            calls_at_once: 8,
            calls_per_second: 50,
            answer_bytes_max: 16 << 20,
            pages_max: 1000,
            failures_max: 8,
            pause_min: s(2),
            pause_max: s(60),
            refusal_time: s(10),
            job_wait: ms(100),
            job_wait_max: s(2),
            job_time: s(300),
        }
    }
}

impl Bounds {
    /// The defaults, and what [`REST_OPTIONS`] say.
    ///
    /// # Errors
    /// Never, once the options were checked.
    pub(crate) fn of(options: &Options<'_>) -> Result<Self, SpecError> {
        let bounds = Self::default();
        let call_time = options.seconds("api_timeout")?;
        Ok(Self {
            call_time,
            try_time: bounds.try_time.min(call_time),
            job_time: options.seconds("api_job_timeout")?,
            calls_at_once: options.number("api_calls_at_once")? as usize,
            calls_per_second: options.number("api_calls_per_second")?,
            ..bounds
        })
    }
}

/// How the storage system's certificate is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    verify: bool,
    authorities: Vec<Certificate>,
    ca_key: &'static str,
}

impl Tls {
    /// From a backend's two options: whether to verify, and the file of authorities.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub(crate) fn of(
        options: &Options<'_>,
        verify_key: &'static str,
        ca_key: &'static str,
    ) -> Result<Self, SpecError> {
        let verify = options.flag(verify_key);
        if !verify {
            tracing::warn!(
                option = verify_key,
                "the storage system's certificate is not verified: anyone on the way can read \
                 and change what is said"
            );
        }
        let authorities = match options.path(ca_key) {
            None => Vec::new(),
            Some(path) => {
                let pem = std::fs::read(&path)
                    .map_err(|error| options.fault(ca_key, format!("cannot be read: {error}")))?;
                let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
                if found.is_empty() {
                    return Err(options.fault(ca_key, "holds no certificate (PEM)"));
                }
                found
            }
        };
        Ok(Self {
            verify,
            authorities,
            ca_key,
        })
    }
}

/// What a vendor's error answer says.
#[derive(Debug, Default)]
pub(crate) struct Explained {
    /// The vendor's number or word for it.
    pub(crate) code: Option<String>,
    /// The vendor's words.
    pub(crate) text: Option<String>,
    /// What it means, where the status alone does not tell.
    pub(crate) cause: Option<Cause>,
}

/// Who is called, and how.
pub(crate) struct Vendor {
    /// The product, as people call it.
    pub(crate) system: &'static str,
    /// The kind of backend, for the log.
    pub(crate) backend: &'static str,
    /// The volume, for the log.
    pub(crate) volume: String,
    /// Every path is below it.
    pub(crate) base: String,
    /// Reads the vendor's error answers.
    pub(crate) explain: fn(&Answer) -> Explained,
    /// On every call.
    pub(crate) headers: HeaderMap,
}

/// What a backend says of its vendor, whatever the volume.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// The product, as people call it.
    pub(crate) system: &'static str,
    /// The kind of backend.
    pub(crate) backend: &'static str,
    /// What every path begins with, below the configured address.
    pub(crate) below: String,
    /// The option that says whether certificates are verified.
    pub(crate) verify_key: &'static str,
    /// The option that names the file of authorities.
    pub(crate) ca_key: &'static str,
    /// Reads the vendor's error answers.
    pub(crate) explain: fn(&Answer) -> Explained,
}

/// Why one try failed, and what that means for another one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: VendorError,
    again: Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It had no effect: any call may be repeated, after this time if one is given.
    Any(Option<Duration>),
    /// It may have had an effect.
    Repeatable,
    Never,
}

impl From<VendorError> for Failure {
    fn from(error: VendorError) -> Self {
        Self {
            error,
            again: Again::Never,
        }
    }
}

/// Credentials, and what became of the last try to get some.
#[derive(Default)]
struct Held {
    grant: Option<Arc<Grant>>,
    stale: Option<Arc<Grant>>,
    refused: Option<(Instant, VendorError)>,
}

/// See the module.
pub(crate) struct Rest {
    vendor: Vendor,
    client: Client,
    base: Url,
    ca_key: &'static str,
    bounds: Bounds,
    auth: Box<dyn Auth>,
    held: Mutex<Held>,
    gate: Gate,
    breaker: Breaker,
    ledger: Ledger,
}

impl Rest {
    /// A client that has sent nothing yet.
    ///
    /// # Errors
    /// Why there can be none: the base is no URL, or there is no list of authorities.
    pub(crate) fn new(
        vendor: Vendor,
        tls: &Tls,
        bounds: Bounds,
        auth: Box<dyn Auth>,
    ) -> Result<Self, String> {
        // Whoever is first sets it for the process; a second time is no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = Url::parse(&vendor.base).map_err(|error| error.to_string())?;
        let mut client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(bounds.connect_time)
            .pool_max_idle_per_host(bounds.calls_at_once)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .tls_danger_accept_invalid_certs(!tls.verify)
            .default_headers(vendor.headers.clone())
            .user_agent(concat!("storage-proxy/", env!("CARGO_PKG_VERSION")));
        if !tls.authorities.is_empty() {
            client = client.tls_certs_only(tls.authorities.clone());
        }
        Ok(Self {
            client: client.build().map_err(|error| deepest(&error))?,
            base,
            ca_key: tls.ca_key,
            auth,
            held: Mutex::default(),
            gate: Gate::new(bounds.calls_at_once, bounds.calls_per_second),
            breaker: Breaker::new(bounds.failures_max, bounds.pause_min, bounds.pause_max),
            ledger: Ledger::default(),
            vendor,
            bounds,
        })
    }

    /// A client by the options of a volume, at the address that the option `at` names.
    ///
    /// # Errors
    /// [`SpecError::Option`].
    pub(crate) fn of(
        spec: &Spec,
        options: &Options<'_>,
        at: &'static str,
        about: About,
        auth: impl Auth + 'static,
    ) -> Result<Self, SpecError> {
        let base = options.need(at)?;
        let vendor = Vendor {
            system: about.system,
            backend: about.backend,
            volume: spec.name.clone(),
            base: format!("{}{}", base.trim_end_matches('/'), about.below),
            explain: about.explain,
            headers: HeaderMap::new(),
        };
        let tls = Tls::of(options, about.verify_key, about.ca_key)?;
        Self::new(vendor, &tls, Bounds::of(options)?, Box::new(auth))
            .map_err(|fault| options.fault(at, fault))
    }

    /// The product, as people call it.
    pub(crate) fn system(&self) -> &'static str {
        self.vendor.system
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// What was called so far, and how it went.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// An error of this storage system that no answer told.
    pub(crate) fn error(
        &self,
        operation: &'static str,
        cause: Cause,
        text: impl Into<String>,
    ) -> VendorError {
        VendorError {
            system: self.vendor.system,
            operation,
            cause,
            code: None,
            text: bounded(&text.into()),
        }
    }

    /// Sends a call, as often as is safe and within the bounds; the answer is a good one.
    ///
    /// # Errors
    /// [`VendorError`], with the vendor's own words where it had some.
    ///
    /// # Cancellation
    /// Dropping the future drops the connection; the storage system may have done what it was
    /// asked for.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, VendorError> {
        let begin = Instant::now();
        add(&self.ledger.calls, 1);
        let done = self.tried(&call, begin + self.bounds.call_time).await;
        self.ledger.ended(call.operation, &done, begin.elapsed());
        done
    }

    /// Sends a call until that is done, hopeless or too late.
    async fn tried(&self, call: &Call, end: Instant) -> Result<Answer, VendorError> {
        let mut renewed = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.grant(call.operation).await {
                Ok(grant) => match self.once(call, &grant.headers).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => {
                        let refused = failure.error.cause == Cause::Unauthorized;
                        if refused && !renewed && self.auth.renews() {
                            renewed = true;
                            self.drop_grant(&grant).await;
                            continue;
                        }
                        failure
                    }
                },
                Err(failure) => failure,
            };
            match self.wait(call, &failure, tries, end) {
                Some(wait) => sleep(wait).await,
                None => return Err(failure.error),
            }
            add(&self.ledger.retries, 1);
        }
    }

    /// As [`Self::call`]; what is not there is `None`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn find(&self, call: Call) -> Result<Option<Answer>, VendorError> {
        match self.call(call).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All items of a list that comes in pages: `items` is the JSON pointer of a page's items,
    /// `next` finds where the rest is.
    ///
    /// # Errors
    /// As [`Self::call`]; [`Cause::Malformed`] for a list without end.
    pub(crate) async fn list(
        &self,
        mut call: Call,
        items: &str,
        next: impl Fn(&Answer) -> Option<Next> + Send,
    ) -> Result<Vec<Value>, VendorError> {
        let mut all = Vec::new();
        for _ in 0..self.bounds.pages_max {
            let mut answer = self.call(call.clone()).await?;
            let rest = next(&answer);
            if let Some(Value::Array(page)) = answer.body.pointer_mut(items) {
                all.append(page);
            }
            match rest {
                Some(rest) => call = rest.after(&call, self.base.path()),
                None => return Ok(all),
            }
        }
        Err(self.error(call.operation, Cause::Malformed, "a list without end"))
    }

    /// How often to look after a job, until it takes too long.
    pub(crate) fn pace(&self) -> Pace {
        let bounds = &self.bounds;
        Pace::new(bounds.job_wait, bounds.job_wait_max, bounds.job_time)
    }

    /// The error of a job that [`Self::pace`] gave up.
    pub(crate) fn late(&self, operation: &'static str) -> VendorError {
        let seconds = self.bounds.job_time.as_secs_f64();
        let text = format!("the job is not done after {seconds} s");
        self.error(operation, Cause::Late, text)
    }

    /// Looks after a job until it is over: `read` says of each answer whether it is, and how it
    /// went; it gets `None` while the job is not known.
    ///
    /// # Errors
    /// As [`Self::call`], the one of the job, and [`Cause::Late`].
    pub(crate) async fn job(
        &self,
        look: Call,
        mut read: impl FnMut(Option<&Answer>) -> Option<Result<(), VendorError>> + Send,
    ) -> Result<(), VendorError> {
        let mut pace = self.pace();
        loop {
            let answer = self.find(look.clone()).await?;
            if let Some(over) = read(answer.as_ref()) {
                return over;
            }
            if !pace.next().await {
                return Err(self.late(look.operation));
            }
        }
    }

    /// Sends a call once and without credentials: for logins.
    ///
    /// # Errors
    /// [`Failure`], which knows whether another try may help.
    pub(crate) async fn bare(&self, call: &Call) -> Result<Answer, Failure> {
        self.once(call, &HeaderMap::new()).await
    }

    /// Credentials that are fresh, got by a login if need be: one at a time.
    async fn grant(&self, operation: &'static str) -> Result<Arc<Grant>, Failure> {
        let mut held = self.held.lock().await;
        if let Some(grant) = &held.grant {
            if grant.fresh_until.is_none_or(|until| Instant::now() < until) {
                return Ok(Arc::clone(grant));
            }
            held.stale = held.grant.take();
        }
        if let Some((until, error)) = &held.refused
            && Instant::now() < *until
        {
            let mut error = error.clone();
            error.operation = operation;
            return Err(error.into());
        }
        if self.auth.renews() {
            add(&self.ledger.logins, 1);
        }
        let stale = held.stale.clone();
        match self.auth.login(self, stale.as_deref()).await {
            Ok(grant) => {
                let grant = Arc::new(grant);
                *held = Held::default();
                held.grant = Some(Arc::clone(&grant));
                Ok(grant)
            }
            Err(mut failure) => {
                let wrong = matches!(
                    failure.error.cause,
                    Cause::Unauthorized | Cause::Forbidden | Cause::Refused
                );
                if wrong {
                    failure.error.cause = Cause::Unauthorized;
                    failure.again = Again::Never;
                    let until = Instant::now() + self.bounds.refusal_time;
                    held.refused = Some((until, failure.error.clone()));
                } else if failure.again == Again::Repeatable {
                    // Nothing of the call itself was sent.
                    failure.again = Again::Any(None);
                }
                failure.error.operation = operation;
                Err(failure)
            }
        }
    }

    /// Forgets credentials that were refused, unless there are newer ones already.
    async fn drop_grant(&self, grant: &Arc<Grant>) {
        let mut held = self.held.lock().await;
        if held
            .grant
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, grant))
        {
            held.stale = held.grant.take();
        }
    }

    /// How long to wait before the next try; `None` for no further one.
    fn wait(&self, call: &Call, failure: &Failure, tries: u32, end: Instant) -> Option<Duration> {
        let asked = match failure.again {
            Again::Any(asked) => asked,
            Again::Repeatable if call.repeatable => None,
            Again::Repeatable | Again::Never => return None,
        };
        if self.bounds.tries_max <= tries {
            return None;
        }
        let grown = self
            .bounds
            .retry_wait
            .saturating_mul(1 << (tries - 1).min(16));
        let wait = asked.unwrap_or_else(|| spread(grown.min(self.bounds.retry_wait_max)));
        (Instant::now() + wait < end).then_some(wait)
    }

    /// Sends a call once, in turn.
    async fn once(&self, call: &Call, credentials: &HeaderMap) -> Result<Answer, Failure> {
        let Ok(turn) = timeout(self.bounds.call_time, self.gate.turn()).await else {
            let text = "too many calls wait for their turn";
            return Err(self.error(call.operation, Cause::Late, text).into());
        };
        let admission = match self.breaker.admit() {
            Ok(admission) => admission,
            Err(last) => {
                add(&self.ledger.suspended, 1);
                return Err(self.error(call.operation, Cause::Suspended, last).into());
            }
        };
        let _flying = self.ledger.flying();
        let begin = Instant::now();
        let request_id = request_id();
        let sent = timeout(
            self.bounds.try_time,
            self.send(call, credentials, &request_id),
        )
        .await;
        drop(turn);
        let done = match sent {
            Ok(done) => done,
            Err(_) => Err(Failure {
                error: self.error(call.operation, Cause::Late, ""),
                again: Again::Repeatable,
            }),
        };
        let elapsed = begin.elapsed();
        add(&self.ledger.elapsed_us, elapsed.as_micros() as u64);
        let status = match &done {
            Ok(answer) => answer.status,
            Err(_) => 0,
        };
        tracing::debug!(
            backend = self.vendor.backend,
            volume = self.vendor.volume,
            operation = call.operation,
            method = %call.method,
            path = call.path.split('?').next(),
            status,
            elapsed_ms = elapsed.as_millis() as u64,
            request_id,
            "call to the storage system"
        );
        let done = done.and_then(|answer| self.judge(call, answer));
        self.note(admission, &done, &request_id);
        done
    }

    /// Tells the breaker, and people when calls stop or go on.
    fn note(
        &self,
        admission: super::pace::Admission<'_>,
        done: &Result<Answer, Failure>,
        request_id: &str,
    ) {
        let (backend, volume) = (self.vendor.backend, self.vendor.volume.as_str());
        let broken = done.as_ref().err().filter(|failure| {
            let cause = failure.error.cause;
            matches!(cause, Cause::Unreachable | Cause::Late | Cause::Failed)
        });
        let Some(failure) = broken else {
            if admission.answered() {
                self.ledger.is_suspended.store(false, Ordering::Relaxed);
                tracing::info!(backend, volume, "the storage system answers again");
            }
            return;
        };
        let error = &failure.error;
        if let Some(pause) = admission.failed(&error.text) {
            self.ledger.is_suspended.store(true, Ordering::Relaxed);
            let pause_ms = pause.as_millis() as u64;
            tracing::warn!(
                backend, volume, request_id, %error, pause_ms,
                "the storage system fails repeatedly, it is not called for a while"
            );
        }
    }

    async fn send(
        &self,
        call: &Call,
        credentials: &HeaderMap,
        request_id: &str,
    ) -> Result<Answer, Failure> {
        let base = self.base.as_str().trim_end_matches('/');
        let mut url = Url::parse(&format!("{base}{}", call.path)).map_err(|error| {
            Failure::from(self.error(call.operation, Cause::Malformed, error.to_string()))
        })?;
        for (key, value) in &call.query {
            url.query_pairs_mut().append_pair(key, value);
        }
        let mut request = self.client.request(call.method.clone(), url);
        request = match &call.content {
            Content::Empty => request,
            Content::Json(value) => request.json(value),
            Content::Form(pairs) => request.form(pairs),
        };
        request = request
            .headers(credentials.clone())
            .headers(call.headers.clone());
        if let Ok(value) = HeaderValue::from_str(request_id) {
            request = request.header("x-request-id", value);
        }
        let mut response = request
            .send()
            .await
            .map_err(|error| self.broken(call, &error))?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let mut bytes = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| self.broken(call, &error))?
        {
            if self.bounds.answer_bytes_max < bytes.len() + piece.len() {
                let text = format!("more than {} bytes", self.bounds.answer_bytes_max);
                return Err(self.error(call.operation, Cause::Malformed, text).into());
            }
            bytes.extend_from_slice(&piece);
        }
        add(&self.ledger.bytes, bytes.len() as u64);
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8_lossy(&bytes).into_owned()),
        };
        let is_text = body.is_string() && serde_json::from_slice::<Value>(&bytes).is_err();
        if is_text && !call.takes_text && (200..300).contains(&status) {
            let text = "what should be JSON is not";
            return Err(self.error(call.operation, Cause::Malformed, text).into());
        }
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// No answer, or not a whole one.
    fn broken(&self, call: &Call, error: &reqwest::Error) -> Failure {
        let text = deepest(error);
        if error.is_connect() && is_about_certificates(error) {
            let hint = format!(
                "its certificate is not trusted: {text}; the option {} names a file with the \
                 authorities to trust",
                self.ca_key
            );
            let error = self.error(call.operation, Cause::Unreachable, hint);
            return error.into();
        }
        let again = if error.is_connect() {
            Again::Any(None)
        } else {
            Again::Repeatable
        };
        let cause = if error.is_timeout() {
            Cause::Late
        } else {
            Cause::Unreachable
        };
        Failure {
            error: self.error(call.operation, cause, text),
            again,
        }
    }

    /// Whether an answer is a good one.
    fn judge(&self, call: &Call, answer: Answer) -> Result<Answer, Failure> {
        let status = answer.status;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let explained = (self.vendor.explain)(&answer);
        let cause = explained.cause.unwrap_or_else(|| cause_of(status));
        let plain = match &answer.body {
            // A page for people is of no use in a log.
            Value::String(text) if !text.trim_start().starts_with('<') => text.as_str(),
            _ => "",
        };
        let text = explained.text.unwrap_or_else(|| plain.to_owned());
        let again = match cause {
            Cause::Throttled => {
                add(&self.ledger.throttled, 1);
                let asked = answer.header(RETRY_AFTER.as_str()).and_then(retry_after);
                // A gateway says 503 also for what it has passed on.
                if status == 503 && asked.is_none() {
                    Again::Repeatable
                } else {
                    Again::Any(asked)
                }
            }
            Cause::Failed | Cause::Late => Again::Repeatable,
            _ => Again::Never,
        };
        let text = if text.is_empty() {
            format!("status {status}")
        } else {
            text
        };
        let mut error = self.error(call.operation, cause, text);
        error.code = explained.code;
        Err(Failure { error, again })
    }
}

/// What a status means that the vendor does not explain.
fn cause_of(status: u16) -> Cause {
    match status {
        401 => Cause::Unauthorized,
        403 => Cause::Forbidden,
        404 | 410 => Cause::NotFound,
        409 => Cause::Conflict,
        429 | 503 => Cause::Throttled,
        408 | 504 => Cause::Late,
        400..500 => Cause::Refused,
        500.. => Cause::Failed,
        _ => Cause::Malformed,
    }
}

fn retry_after(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Without control characters, cut where it gets long.
fn bounded(text: &str) -> String {
    let mut text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

/// The innermost cause: the layers around it repeat the address.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

fn is_about_certificates(error: &dyn std::error::Error) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error.to_string().contains("certificate") {
            return true;
        }
        at = error.source();
    }
    false
}

/// Tells calls of this process apart, here and in the storage system's own log.
fn request_id() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{number:x}", std::process::id())
}
