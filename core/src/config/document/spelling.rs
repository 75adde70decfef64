//! Which row of the table a written name means.
//!
//! Kebab case is canonical, snake case is accepted everywhere, some keys have further aliases. When
//! one key is written in two ways, the canonical spelling wins.

use super::{Note, NoteKind, Origin, Place};
use crate::config::raw::Member;
use crate::config::table;

/// The names that may stand directly below a section, each once.
pub(super) fn children(pattern: &str) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    for key in table::keys() {
        let rest = match pattern {
            "" => Some(key.path),
            _ => key
                .path
                .strip_prefix(pattern)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        let next = rest.and_then(|rest| rest.split('.').next());
        if let Some(next) = next.filter(|next| !found.contains(next)) {
            found.push(next);
        }
    }
    found
}

/// The canonical spelling.
pub(super) fn canonical(name: &str) -> String {
    name.replace('_', "-")
}

/// The child that `name` means: itself, its list, one of its aliases, or any name at all.
pub(super) fn segment(children: &[&'static str], name: &str) -> Option<&'static str> {
    let canonical = canonical(name);
    let is = |child: &&&'static str| child.trim_end_matches("[]") == canonical;
    let alias = || {
        let key = table::keys().find(|key| {
            children.contains(&key.name()) && key.aliases.contains(&canonical.as_str())
        });
        key.map(|key| key.name())
    };
    let any = || children.iter().find(|child| **child == "*");
    children
        .iter()
        .find(is)
        .copied()
        .or_else(alias)
        .or_else(|| any().copied())
}

/// The members to read: of several spellings of one key the canonical one, or else the first.
pub(super) fn chosen<'a>(
    children: &[&'static str],
    members: &'a [Member],
    place: &Place,
    notes: &mut Vec<Note>,
) -> Vec<&'a Member> {
    let mut chosen: Vec<(Option<&'static str>, &Member)> = Vec::new();
    for member in members {
        let segment = segment(children, &member.name).filter(|segment| *segment != "*");
        let twin = chosen
            .iter_mut()
            .find(|(other, _)| segment.is_some() && *other == segment);
        let Some((_, other)) = twin else {
            chosen.push((segment, member));
            continue;
        };
        let wins = segment.map(|segment| segment.trim_end_matches("[]")) == Some(&*member.name);
        let loser = if wins {
            std::mem::replace(other, member)
        } else {
            member
        };
        notes.push(Note {
            kind: NoteKind::Warning,
            path: place.display_member(&loser.name),
            origin: Some(Origin::Line(loser.line)),
            text: format!("also written as {}, which counts", other.name),
        });
    }
    chosen.into_iter().map(|(_, member)| member).collect()
}
