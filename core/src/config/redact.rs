//! Keeping secrets out of everything that is shown.

use super::keys::{Key, Kind};
use super::raw::{Member, Node, Raw};

/// What stands in place of a secret.
pub(super) const MASK: &str = "***";

/// A value as it may be shown.
pub(super) fn value(key: &Key, raw: &Raw) -> Raw {
    if key.secret {
        // An empty password is no secret, and telling it from a set one helps.
        return match raw {
            Raw::Text(text) if text.is_empty() => raw.clone(),
            _ => Raw::Text(MASK.into()),
        };
    }
    match key.kind {
        Kind::Free | Kind::TextMap => free(raw),
        _ => plain(raw),
    }
}

/// Inside a free table nobody says which keys are secret, so their names decide.
fn free(raw: &Raw) -> Raw {
    match raw {
        Raw::Table(members) => Raw::Table(members.iter().map(free_member).collect()),
        Raw::List(items) => Raw::List(items.iter().map(|item| node(item, free)).collect()),
        other => plain(other),
    }
}

fn free_member(member: &Member) -> Member {
    let masked = |_: &Raw| Raw::Text(MASK.into());
    let hide = is_secret_name(&member.name) && !matches!(member.node.value, Raw::Bool(_));
    let node = if hide {
        node(&member.node, masked)
    } else {
        node(&member.node, free)
    };
    Member {
        name: member.name.clone(),
        line: member.line,
        node,
    }
}

fn node(node: &Node, with: fn(&Raw) -> Raw) -> Node {
    Node {
        value: with(&node.value),
        line: node.line,
    }
}

fn plain(raw: &Raw) -> Raw {
    match raw {
        Raw::Text(found) => Raw::Text(text(found)),
        Raw::List(items) => Raw::List(items.iter().map(|item| node(item, plain)).collect()),
        other => other.clone(),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let tells = [
        "secret",
        "password",
        "passwd",
        "passphrase",
        "token",
        "credential",
        "private",
    ];
    tells.iter().any(|tell| name.contains(tell)) || name == "key" || name.ends_with("-key")
}

/// A text without the password of a URL in it: `http://***@host`.
pub(super) fn text(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.find(['/', '?', '#', '"', ' ']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://{MASK}{}", &rest[at..]),
        None => text.to_owned(),
    }
}
