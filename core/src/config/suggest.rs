//! The key that was probably meant.

/// The nearest of `known` to `got`, if it is near enough to be a misspelling.
///
/// Near enough is a third of the length, at least two edits: `secert` finds `secret`, `foo` finds
/// nothing. Dashes and underscores, and letter case, cost nothing.
pub fn nearest<'a>(got: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let got = plain(got);
    let edits_max = (got.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|name| (distance(&got, &plain(name)), name))
        .filter(|(edits, name)| *edits <= edits_max && *edits < name.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Edits (insert, delete, replace, swap of neighbours) from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_the_nearest() {
        let known = [
            "secret",
            "session-expire",
            "scandir-limit",
            "num-proc",
            "user",
            "group",
        ];
        for (got, want) in [
            ("secert", Some("secret")),
            ("session_expires", Some("session-expire")),
            ("Scandir-Limit", Some("scandir-limit")),
            ("numproc", Some("num-proc")),
            ("nproc", None),
            ("usr", Some("user")),
            ("", None),
            ("zzzzzz", None),
            ("completely-different", None),
        ] {
            assert_eq!(nearest(got, known), want, "{got:?}");
        }
    }
}
