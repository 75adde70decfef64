//! How a vendor knows who calls: four usual flows, and a trait for the unusual ones.
//!
//! Laws
//! - Credentials are asked for once and shared by all calls; they are asked for again when they
//!   expire, or when the storage system refuses them, once per call.
//! - A refused login is remembered for a while: repeating it would lock the account.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, SET_COOKIE};
use tokio::time::Instant;

use super::call::{Answer, Call, secret_value};
use super::options::Secret;
use super::rest::{Failure, Rest};
use super::{Cause, VendorError};

/// What every call carries to show who it is.
#[derive(Clone, Default)]
pub(crate) struct Grant {
    /// Put on every call.
    pub(crate) headers: HeaderMap,
    /// After this it is renewed before it is used.
    pub(crate) fresh_until: Option<Instant>,
    /// Renews it without the password.
    pub(crate) refresh: Option<Secret>,
}

/// A way to get credentials.
#[async_trait]
pub(crate) trait Auth: Send + Sync {
    /// Gets credentials; `old` are the ones before. Calls go out by [`Rest::bare`].
    async fn login(&self, rest: &Rest, old: Option<&Grant>) -> Result<Grant, Failure>;

    /// Whether a new login can help when the old one is refused.
    fn renews(&self) -> bool {
        true
    }
}

/// Name and password with every call.
pub(crate) struct Basic(HeaderMap);

impl Basic {
    /// For HTTP basic authentication.
    pub(crate) fn new(user: &str, password: &Secret) -> Self {
        let text = STANDARD.encode(format!("{user}:{}", password.expose()));
        Self(headers(AUTHORIZATION, &format!("Basic {text}")))
    }
}

#[async_trait]
impl Auth for Basic {
    async fn login(&self, _: &Rest, _: Option<&Grant>) -> Result<Grant, Failure> {
        Ok(Grant {
            headers: self.0.clone(),
            ..Grant::default()
        })
    }

    fn renews(&self) -> bool {
        false
    }
}

/// One login; the answer has a token in a header, and calls carry it in a header.
pub(crate) struct HeaderToken {
    /// Has the credentials, and may be repeated.
    pub(crate) login: Call,
    /// The header of the answer, and of the calls.
    pub(crate) header: &'static str,
}

#[async_trait]
impl Auth for HeaderToken {
    async fn login(&self, rest: &Rest, _: Option<&Grant>) -> Result<Grant, Failure> {
        let answer = rest.bare(&self.login).await?;
        let Some(token) = answer.header(self.header) else {
            return Err(senseless(rest, &self.login, "no token in the answer"));
        };
        Ok(Grant {
            headers: headers(HeaderName::from_static(self.header), token),
            ..Grant::default()
        })
    }
}

/// One login; the answer sets cookies, and calls carry them, with one of them in a header as well
/// where that guards against forged requests.
pub(crate) struct SessionCookie {
    /// Has the credentials, and may be repeated.
    pub(crate) login: Call,
    /// The cookie that is the session; empty: whichever is set.
    pub(crate) session: &'static str,
    /// The cookie that guards, and the header that repeats it.
    pub(crate) guard: Option<(&'static str, &'static str)>,
    /// How long it is used before a new login; the server may end it earlier.
    pub(crate) life: Option<Duration>,
}

#[async_trait]
impl Auth for SessionCookie {
    async fn login(&self, rest: &Rest, _: Option<&Grant>) -> Result<Grant, Failure> {
        let answer = rest.bare(&self.login).await?;
        let cookies = cookies(&answer);
        let value = |name: &str| cookies.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let opened = match self.session {
            "" => !cookies.is_empty(),
            name => value(name).is_some(),
        };
        if !opened {
            return Err(senseless(rest, &self.login, "no session in the answer"));
        }
        let all = cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let mut carried = headers(COOKIE, &all.collect::<Vec<_>>().join("; "));
        if let Some((cookie, header)) = self.guard
            && let Some(guard) = value(cookie).and_then(|text| secret_value(text))
        {
            carried.insert(HeaderName::from_static(header), guard);
            // Servers that guard want to see where the request comes from.
            if let Some(origin) = secret_value(&rest.origin()) {
                carried.insert(http::header::REFERER, origin);
            }
        }
        Ok(Grant {
            headers: carried,
            fresh_until: self.life.map(|life| Instant::now() + life),
            refresh: None,
        })
    }
}

/// One login; the answer's body has a token, and perhaps another one to renew it with.
pub(crate) struct BearerToken {
    /// Has the credentials, and may be repeated.
    pub(crate) login: Call,
    /// The call that renews, from the token for it.
    pub(crate) renew: Option<fn(&str) -> Call>,
    /// Where the token is in the body: a JSON pointer.
    pub(crate) access: &'static str,
    /// Where the token to renew with is.
    pub(crate) refresh: Option<&'static str>,
    /// Where the seconds are that it lasts.
    pub(crate) seconds: Option<&'static str>,
    /// How long it lasts if the answer does not say.
    pub(crate) life: Option<Duration>,
}

impl BearerToken {
    fn grant(&self, rest: &Rest, call: &Call, answer: &Answer) -> Result<Grant, Failure> {
        let Some(token) = answer.text(self.access) else {
            return Err(senseless(rest, call, "no token in the answer"));
        };
        let told = self
            .seconds
            .and_then(|at| answer.body.pointer(at)?.as_f64());
        let told = told.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        // Renewed a little early: the clocks and the way take their time.
        let life = told.or(self.life).map(|life| life.mul_f64(0.8));
        let refresh = self.refresh.and_then(|at| answer.text(at));
        Ok(Grant {
            headers: headers(AUTHORIZATION, &format!("Bearer {token}")),
            fresh_until: life.map(|life| Instant::now() + life),
            refresh: refresh.map(Secret::new),
        })
    }
}

#[async_trait]
impl Auth for BearerToken {
    async fn login(&self, rest: &Rest, old: Option<&Grant>) -> Result<Grant, Failure> {
        let token = old.and_then(|old| old.refresh.clone());
        if let (Some(renew), Some(token)) = (self.renew, token) {
            let call = renew(token.expose());
            match rest.bare(&call).await {
                Ok(answer) => {
                    let mut grant = self.grant(rest, &call, &answer)?;
                    // Not every server gives a new one.
                    grant.refresh = grant.refresh.or(Some(token));
                    return Ok(grant);
                }
                // It is too old: then with the password.
                Err(failure) if !failure.error.cause.may_retry() => {}
                Err(failure) => return Err(failure),
            }
        }
        let answer = rest.bare(&self.login).await?;
        self.grant(rest, &self.login, &answer)
    }
}

fn headers(name: HeaderName, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(value) = secret_value(value) {
        headers.insert(name, value);
    }
    headers
}

/// Names and values of the cookies that an answer sets.
fn cookies(answer: &Answer) -> Vec<(String, String)> {
    let lines = answer.headers.get_all(SET_COOKIE).iter();
    lines
        .filter_map(|line| {
            let pair = line.to_str().ok()?.split(';').next()?;
            let (name, value) = pair.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

fn senseless(rest: &Rest, call: &Call, text: &str) -> Failure {
    Failure::from(VendorError {
        system: rest.system(),
        operation: call.operation,
        cause: Cause::Malformed,
        code: None,
        text: text.to_owned(),
    })
}
