//! Storage systems that are managed over an interface of their own.
//!
//! Each vendor's client lives beside its backend; what they share is here: how a call fails.
//!
//! Laws
//! - The vendor's own words reach the operator and the client; its secrets and addresses do not.
//! - A call that may have had an effect is repeated only where a repetition does no harm.

#[allow(dead_code, reason = "what a vendor needs of it differs")]
pub(crate) mod auth;
#[allow(dead_code, reason = "what a vendor needs of it differs")]
pub(crate) mod call;
#[allow(dead_code, reason = "what a vendor needs of it differs")]
pub(crate) mod options;
#[allow(dead_code, reason = "what a vendor needs of it differs")]
pub(crate) mod pace;
pub(crate) mod program;
#[allow(dead_code, reason = "what a vendor needs of it differs")]
pub(crate) mod rest;
#[cfg(test)]
mod rest_tests;

use std::fmt;

use proxy_core::problem::{Answer, Kind as Class, Problem};
use thiserror::Error;

/// A call to a storage system that did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct VendorError {
    /// The product, as people call it.
    pub system: &'static str,
    /// What was tried, a verb phrase.
    pub operation: &'static str,
    /// What kind of failure it was.
    pub cause: Cause,
    /// The vendor's own number or word for it.
    pub code: Option<String>,
    /// The vendor's own words, without secrets; bounded.
    pub text: String,
}

/// What kind of failure a vendor's call had, whatever the vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time, or a job that did not end in time.
    Late,
    /// Many calls failed before: this one was not sent.
    Suspended,
    /// The credentials are wrong.
    Unauthorized,
    /// The account may not do this.
    Forbidden,
    /// The object is not there.
    NotFound,
    /// The object is there already, or is in the wrong state.
    Conflict,
    /// Too many calls: it asks us to wait.
    Throttled,
    /// It takes the request for wrong.
    Refused,
    /// It failed by its own fault.
    Failed,
    /// A job was accepted, and failed later.
    JobFailed,
    /// The answer makes no sense.
    Malformed,
}

impl Cause {
    /// Whether the same call may succeed later, with nobody doing anything here.
    pub const fn may_retry(self) -> bool {
        match self {
            Self::Unreachable | Self::Late | Self::Suspended | Self::Throttled | Self::Failed => {
                true
            }
            Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict
            | Self::Refused
            | Self::JobFailed
            | Self::Malformed => false,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Unreachable => "can not be reached",
            Self::Late => "did not answer in time",
            Self::Suspended => "is not asked for a while, since it failed repeatedly",
            Self::Unauthorized => "refuses the credentials",
            Self::Forbidden => "forbids it to this account",
            Self::NotFound => "does not find it",
            Self::Conflict => "has a conflict",
            Self::Throttled => "asks to be left alone for a while",
            Self::Refused => "refuses the request",
            Self::Failed => "failed",
            Self::JobFailed => "began the job and failed",
            Self::Malformed => "gave an answer that makes no sense",
        }
    }
}

impl fmt::Display for VendorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            system, operation, ..
        } = self;
        write!(f, "{operation}: {system} {}", self.cause.words())?;
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        match &self.code {
            Some(code) => write!(f, " (code {code})"),
            None => Ok(()),
        }
    }
}

/// What a volume asked of its storage system since the start, and how it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VendorStats {
    /// Operations begun.
    pub calls: u64,
    /// Requests sent for them; more than the calls where some were repeated.
    pub tries: u64,
    /// Operations that failed in the end.
    pub failures: u64,
    /// Answers that asked to wait.
    pub throttled: u64,
    /// Requests that were not sent, since too many had failed.
    pub suspended: u64,
    /// Times that credentials were asked for.
    pub logins: u64,
    /// Bytes of all answers.
    pub bytes_received: u64,
    /// Microseconds of all tries together.
    pub elapsed_us: u64,
    /// Requests under way now.
    pub in_flight: u64,
    /// Nothing is sent now.
    pub is_suspended: bool,
}

impl VendorError {
    /// The answer of an endpoint that has no envelope of its own for this error.
    pub(crate) fn answer(&self) -> Answer {
        let class = match self.system {
            "NetApp ONTAP" => Class::NetAppClient,
            "EXAScaler" => Class::DDNCommandFailed,
            _ => Class::ExternalStorageService,
        };
        Problem::new(class).msg(self.to_string()).answer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_the_vendors_words() {
        let mut error = VendorError {
            system: "NetApp ONTAP",
            operation: "create qtree",
            cause: Cause::Refused,
            code: Some("5242886".to_owned()),
            text: "name in use".to_owned(),
        };
        let whole = "create qtree: NetApp ONTAP refuses the request: name in use (code 5242886)";
        assert_eq!(error.to_string(), whole);
        (error.code, error.text, error.cause) = (None, String::new(), Cause::Late);
        let short = "create qtree: NetApp ONTAP did not answer in time";
        assert_eq!(error.to_string(), short);
        assert!(error.cause.may_retry());
    }
}
