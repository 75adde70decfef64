//! Goal: `docs/backends.md` shows the options that the code reads.
//! Method: each table is made anew and looked for in the page.

use std::path::Path;

use proxy_volume::{Absent, Kind, options_of};

fn table(kind: Kind) -> String {
    let mut lines = vec![
        "| option | value | default | |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for row in options_of(kind) {
        let default = match row.default {
            Absent::Refused => "required".to_owned(),
            Absent::Nothing => "none".to_owned(),
            Absent::Value(text) => format!("`{text}`"),
        };
        let (key, words, text) = (row.key, row.kind.words(), row.text);
        lines.push(format!("| `{key}` | {words} | {default} | {text} |"));
    }
    lines.join("\n")
}

/// Set to write the tables into the page instead of comparing them.
const WRITE: &str = "STORAGE_TEST_WRITE_PAGES";

#[test]
fn the_page_shows_the_options_that_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/backends.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    for kind in Kind::all().filter(|kind| !options_of(*kind).is_empty()) {
        let name = kind.wire();
        let (begin, end) = (
            format!("<!-- options of {name} -->\n"),
            "<!-- end of options -->",
        );
        let from = page.find(&begin).expect("a section of every backend") + begin.len();
        let length = page[from..].find(end).expect("an end of the table");
        let (shown, want) = (page[from..from + length].to_owned(), table(kind) + "\n");
        if std::env::var_os(WRITE).is_some() {
            page.replace_range(from..from + length, &want);
        } else {
            assert_eq!(shown, want, "{name}: run this test again with {WRITE}=1");
        }
    }
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path, page).unwrap();
    }
}
