//! What can go wrong with etcd.

use std::time::Duration;

use thiserror::Error;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// There is no connection. The call was not sent.
    #[error("etcd is not connected")]
    Down,
    /// No answer in time; a change may have been made.
    #[error("no answer of etcd within {bound:?}")]
    Late {
        /// The time it had.
        bound: Duration,
    },
    /// The connection broke; a change may have been made.
    #[error("the connection to etcd broke: {text}")]
    Broken {
        /// How.
        text: String,
    },
    /// etcd does not let us in, or not there.
    #[error("etcd refused: {text}")]
    Refused {
        /// What it said.
        text: String,
    },
    /// Others change the same key all the time.
    #[error("{key} is changed by others all the time")]
    Contended {
        /// Which key.
        key: String,
    },
    /// A value that is not what it should be.
    #[error("{key} is not {wanted}")]
    Unexpected {
        /// Which key.
        key: String,
        /// What it should be.
        wanted: &'static str,
    },
}

impl EtcdError {
    /// Whether the same call can succeed later without anybody changing it.
    pub const fn may_retry(&self) -> bool {
        match self {
            Self::Down | Self::Late { .. } | Self::Broken { .. } | Self::Contended { .. } => true,
            Self::Refused { .. } | Self::Unexpected { .. } => false,
        }
    }
}

/// What the client library says, in our words.
pub(super) fn told(error: &etcd_client::Error) -> EtcdError {
    match error {
        etcd_client::Error::GRpcStatus(status) => {
            // Codes of gRPC: 14 UNAVAILABLE, 1 CANCELLED, 4 DEADLINE_EXCEEDED, 2 UNKNOWN and
            // 13 INTERNAL come from the transport; the others are etcd's own words.
            let text = status.message().to_owned();
            match i32::from(status.code()) {
                1 | 2 | 4 | 13 | 14 => EtcdError::Broken { text },
                _ => EtcdError::Refused { text },
            }
        }
        other => EtcdError::Broken {
            text: other.to_string(),
        },
    }
}

/// Whether a call failed for a token that is no good any more.
pub(super) fn is_stale_login(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return false;
    };
    let text = status.message();
    [
        "invalid auth token",
        "revision of auth store is old",
        "user name is empty",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// Whether etcd does not ask for a login.
pub(super) fn needs_no_login(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else {
        return false;
    };
    status.message().contains("authentication is not enabled")
}
