//! The program's own client: the public APIs, as anybody else would use them.

pub mod body;
pub mod download;
pub mod folders;
pub mod http;
pub mod patience;
pub mod progress;
pub mod tls;
pub mod transfers;
pub mod upload;

use std::future::Future;

use crate::failure::Failure;

/// Runs one command's conversation to its end.
///
/// # Errors
/// Whatever the conversation ends with.
pub fn block_on<T>(talk: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("start client: {error}")))?
        .block_on(talk)
}
