//! Goal: the table is whole and consistent, so that what is made from it can be trusted.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::super::keys::{Status, WhenAbsent};
use super::super::raw::parse_value;
use super::super::{Document, page, parse, sample};
use super::*;

#[test]
fn every_row_is_named_once_and_documented() {
    let mut seen = BTreeSet::new();
    for key in keys() {
        assert!(seen.insert(key.path), "{} stands twice", key.path);
        assert!(key.path.contains('.'), "{} has no section", key.path);
        assert!(!key.path.contains('_'), "{} is not in kebab case", key.path);
        assert_eq!(
            key.doc.is_empty(),
            key.status != Status::Used,
            "{} lacks words",
            key.path
        );
        let section = key.path.rsplit_once('.').unwrap().0;
        assert!(
            SECTIONS.iter().any(|(name, _)| *name == section),
            "{section} is not explained"
        );
    }
}

#[test]
fn sections_stand_together() {
    let mut seen: Vec<&str> = Vec::new();
    for key in keys() {
        let section = key.path.rsplit_once('.').unwrap().0;
        if seen.last() != Some(&section) {
            assert!(
                !seen.contains(&section),
                "{section} is split at {}",
                key.path
            );
            seen.push(section);
        }
    }
}

#[test]
fn every_default_fits_its_own_grammar() {
    for key in keys() {
        if let WhenAbsent::Toml(toml) = key.default {
            let raw = parse_value(toml).unwrap_or_else(|| panic!("{}: {toml}", key.path));
            key.kind
                .read(&raw, false)
                .unwrap_or_else(|why| panic!("{}: {why}", key.path));
        }
    }
}

#[test]
fn the_sample_is_a_valid_file_that_changes_nothing() {
    let document = parse(&sample(), &[]).unwrap();
    assert!(document.entries.is_empty());
    assert_eq!(document.notes, []);
    let empty = Document::default();
    assert_eq!(
        super::super::show_toml(&document),
        super::super::show_toml(&empty)
    );
}

#[test]
fn the_page_has_every_key() {
    let page = page();
    for key in keys() {
        assert!(
            page.contains(&format!("| `{}` |", key.name())),
            "{}",
            key.path
        );
    }
}
