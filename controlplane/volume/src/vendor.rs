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
pub(crate) mod ledger;
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
use serde_json::json;
use thiserror::Error;

/// What performance is asked for, whatever the vendor.
pub(crate) const READ_PERFORMANCE: &str = "read performance";
const SCALE: &str = "IBM Storage Scale";

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

    /// One word for it, for labels of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Late => "late",
            Self::Suspended => "suspended",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::JobFailed => "job-failed",
            Self::Malformed => "malformed",
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

impl VendorError {
    /// Whether it is about numbers that the storage system does not have.
    fn is_about_numbers(&self) -> bool {
        self.cause == Cause::NotFound && self.operation == READ_PERFORMANCE
    }

    /// The original's class for it, where it has one.
    fn class(&self) -> Class {
        use Cause::{
            Conflict, Failed, Forbidden, JobFailed, Malformed, NotFound, Refused, Unauthorized,
        };
        match (self.system, self.cause) {
            ("NetApp ONTAP", _) => Class::NetAppClient,
            ("EXAScaler", _) => Class::DDNCommandFailed,
            ("FlashBlade", Unauthorized) => Class::PurityUnauthorized,
            ("FlashBlade", _) if self.is_about_numbers() => Class::MetricNotFound,
            (SCALE, _) if self.is_about_numbers() => Class::GpfsNoMetric,
            (SCALE, Unauthorized) => Class::GpfsUnauthorized,
            (SCALE, Forbidden) => Class::GpfsForbidden,
            (SCALE, NotFound) => Class::GpfsNotFound,
            (SCALE, Conflict) => Class::GpfsConflict,
            (SCALE, Refused) => Class::GpfsBadRequest,
            (SCALE, Malformed) => Class::GpfsInternal,
            (SCALE, JobFailed) if self.code.as_deref() == Some("CANCELLED") => {
                Class::GpfsJobCancelled
            }
            (SCALE, JobFailed) => Class::GpfsJobFailed,
            ("Weka", _) if self.is_about_numbers() => Class::WekaNoMetric,
            ("Weka", Unauthorized) => Class::WekaUnauthorized,
            ("Weka", NotFound) => Class::WekaNotFound,
            ("Weka", Malformed) => Class::WekaInvalidBody,
            ("Weka", Refused | Forbidden | Conflict | JobFailed) => Class::WekaAPI,
            ("Weka", Failed) => Class::WekaInternal,
            // It is the limit that is refused.
            ("VAST", Refused) if self.operation.ends_with(" quota") => Class::InvalidQuotaConfig,
            ("Hammerspace", Unauthorized) => Class::HammerspaceUnauthorized,
            ("Hammerspace", NotFound) => Class::HammerspaceShareNotFound,
            _ => Class::ExternalStorageService,
        }
    }

    /// The answer of an endpoint that has no envelope of its own for this error: it names the
    /// storage system, and says whether the same may work later.
    pub(crate) fn answer(&self) -> Answer {
        let data = json!({
            "system": self.system,
            "operation": self.operation,
            "cause": self.cause.label(),
            "code": self.code,
            "retry": self.cause.may_retry(),
        });
        let problem = Problem::new(self.class()).msg(self.to_string());
        problem.data(data).answer()
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

    #[test]
    fn answers_have_the_originals_classes_and_say_whether_to_retry() {
        let check = |system, cause, operation, status, class: &str| {
            let error = VendorError {
                system,
                operation,
                cause,
                code: None,
                text: "words".to_owned(),
            };
            let answer = error.answer();
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let kind = body["type"].as_str().unwrap_or_default();
            assert!(kind.ends_with(&format!("/{class}")), "{error}: {kind}");
            assert_eq!(answer.status, status, "{error}");
            let data = &body["data"];
            assert_eq!(data["retry"], cause.may_retry(), "{error}");
            assert_eq!(data["system"], system);
            let text = body["msg"].as_str().unwrap_or_default();
            assert!(text.contains(system) && text.contains("words"), "{text}");
        };
        let (down, metric) = (Cause::Unreachable, READ_PERFORMANCE);
        let external = "storage/external/failed";
        for system in [
            "FlashBlade",
            "IBM Storage Scale",
            "Weka",
            "VAST",
            "Hammerspace",
        ] {
            check(system, down, metric, 500, external);
        }
        check("Dell PowerScale OneFS", down, metric, 500, external);
        check(
            "NetApp ONTAP",
            down,
            metric,
            500,
            "storage/netapp/api-error",
        );
        for (cause, status, class) in [
            (Cause::Refused, 400, "gpfs-bad-request"),
            (Cause::Unauthorized, 401, "gpfs-authentication-failure"),
            (Cause::Forbidden, 403, "gpfs-forbidden"),
            (Cause::NotFound, 404, "gpfs-not-found"),
            (Cause::Conflict, 409, "gpfs-conflict"),
            (Cause::JobFailed, 500, "gpfs-job-failed"),
            (Cause::Failed, 500, external),
        ] {
            check("IBM Storage Scale", cause, "set quota", status, class);
        }
        let none = Cause::NotFound;
        check("IBM Storage Scale", none, metric, 500, "gpfs-no-metric");
        check("FlashBlade", none, metric, 404, "storage/metric-not-found");
        check("Weka", none, metric, 500, "storage/weka/no-metric");
        check("Weka", none, "read quota", 500, "storage/weka/not-found");
        let config = "storage/quota/config/invalid";
        check("VAST", Cause::Refused, "change quota", 400, config);
        check("VAST", Cause::Refused, "create snapshot", 500, external);
        let share = "hammerspace-share-not-found";
        check("Hammerspace", none, "read share", 404, share);
    }
}
