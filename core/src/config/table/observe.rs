//! Keys of artifact transfers.

use super::super::keys::Key;
use super::super::keys::Kind::Float;

pub(super) const KEYS: &[Key] = &[
    Key::later(
        "reservoir-client.timeout-total",
        Float(0.0),
        "artifact import",
    )
    .default("300.0"),
    Key::later(
        "reservoir-client.timeout-connect",
        Float(0.0),
        "artifact import",
    ),
    Key::later(
        "reservoir-client.timeout-sock-connect",
        Float(0.0),
        "artifact import",
    )
    .default("30.0"),
    Key::later(
        "reservoir-client.timeout-sock-read",
        Float(0.0),
        "artifact import",
    ),
];
