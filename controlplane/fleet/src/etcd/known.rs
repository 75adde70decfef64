//! The single keys that a storage server reads or counts with.
//!
//! Source: reference of the original, etcd 3.

use std::time::Duration;

use super::{Etcd, EtcdError, Scope};

impl Etcd {
    /// Where requests to mount are to be mounted below; `None` for the root of the file system.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn mount_prefix(&self) -> Result<Option<String>, EtcdError> {
        let found = self.get("volumes/_mount", Scope::Merged).await?;
        Ok(found.filter(|prefix| !prefix.is_empty()))
    }

    /// How long an unmount may take; `None` for as long as it takes.
    ///
    /// # Errors
    /// See [`EtcdError`]; a value that is no number of seconds is [`EtcdError::Unexpected`].
    pub async fn file_io_timeout(&self) -> Result<Option<Duration>, EtcdError> {
        const KEY: &str = "config/watcher/file-io-timeout";
        let found = self.get(KEY, Scope::Merged).await?;
        let Some(text) = found.filter(|text| !matches!(text.trim(), "" | "None")) else {
            return Ok(None);
        };
        let seconds: Option<f64> = text.trim().parse().ok();
        let bound = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match bound {
            Some(bound) => Ok(Some(bound)),
            None => Err(EtcdError::Unexpected {
                key: KEY.to_owned(),
                wanted: "a number of seconds",
            }),
        }
    }

    /// A project id of an EXAScaler that nobody has; the first of all is `first`.
    ///
    /// # Errors
    /// As [`Self::next_number`].
    pub async fn next_project_id(&self, first: i64) -> Result<i64, EtcdError> {
        self.next_number("ddn/main-project-id", first).await
    }
}
