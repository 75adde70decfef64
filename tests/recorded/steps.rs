//! The requests, read from `steps.txt`, which says how they are written.

use std::path::Path;

use proxy_testkit::server::VOLUME;

/// What is done.
pub enum Item {
    /// Asks: name of the step, method and path, body (none when empty).
    Ask(&'static str, &'static str, String),
    /// Asks for long work, and waits for its effect.
    Task(&'static str, &'static str, String, Effect),
    /// Puts a file of so many bytes past the server.
    Put(String, usize),
    /// A scope, in which so many bytes are counted some time.
    Counted(String, u64),
}

/// What shows that long work is over.
pub enum Effect {
    /// Something is at a path.
    There(String),
    /// Nothing is there any more.
    Gone(String),
    /// Nothing happens.
    Quiet,
}

impl Effect {
    fn read(text: &str) -> Self {
        match text.split_once(' ') {
            Some(("there", path)) => Self::There(fill(path)),
            Some(("gone", path)) => Self::Gone(fill(path)),
            _ => Self::Quiet,
        }
    }

    /// Whether it shows.
    pub fn is_so(&self, mount: &Path) -> bool {
        match self {
            Self::There(path) => mount.join(path).exists(),
            Self::Gone(path) => !mount.join(path).exists(),
            Self::Quiet => true,
        }
    }
}

/// A text with its words replaced.
fn fill(text: &str) -> String {
    let mut text = text.replace("$v", &format!("\"volume\":\"{VOLUME}\""));
    for n in 1..=9 {
        let scope = format!("aaaaaaaa-2222-3333-4444-00000000000{n}");
        text = text.replace(&format!("$S{n}"), &scope.replace('-', ""));
        text = text.replace(&format!("$s{n}"), &format!("user:{scope}"));
        text = text.replace(&format!("$p{n}"), &format!("project:{scope}"));
    }
    for (letter, digit) in "abcdexz".chars().zip("abcde01".chars()) {
        let rest = format!("cc{digit}deeff00112233445566778899");
        let capital = letter.to_ascii_uppercase();
        text = text.replace(&format!("${letter}"), &format!("aabb{rest}"));
        text = text.replace(&format!("${capital}"), &format!("aa/bb/{rest}"));
    }
    text
}

/// All of them.
pub fn all() -> Vec<Item> {
    let lines = include_str!("steps.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(item).collect()
}

fn item(line: &'static str) -> Item {
    let parts: Vec<&str> = line.split(" | ").collect();
    let number = |text: &str| text.parse().expect("a number of bytes");
    match parts[..] {
        ["put", path, bytes] => Item::Put(fill(path), number(bytes)),
        ["counted", scope, bytes] => Item::Counted(fill(scope), number(bytes) as u64),
        [name, call] => Item::Ask(name, call, String::new()),
        [name, call, body] => Item::Ask(name, call, fill(body)),
        [name, call, body, until] => Item::Task(name, call, fill(body), Effect::read(until)),
        _ => panic!("no step: {line}"),
    }
}
