//! Users and groups of this machine, by name.
//!
//! The databases are read as text, and what is not in them is asked from `getent`, which knows
//! LDAP and its like: the calls of the C library would need unsafe code.

use std::fs;
use std::process::{Command, Stdio};

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name; a number without a name has none.
    pub name: Option<String>,
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

/// Finds a user by name.
pub fn user_by_name(name: &str) -> Option<User> {
    find("/etc/passwd", "passwd", name, |fields| {
        fields.first() == Some(&name)
    })
    .and_then(user)
}

/// Finds a user by number.
pub fn user_by_id(uid: u32) -> Option<User> {
    let id = uid.to_string();
    find("/etc/passwd", "passwd", &id, |fields| {
        fields.get(2) == Some(&id.as_str())
    })
    .and_then(user)
}

/// Finds the number of a group: among the groups first, then among the users (their primary
/// group), where the original looks.
pub fn group_by_name(name: &str) -> Option<u32> {
    let line = find("/etc/group", "group", name, |fields| {
        fields.first() == Some(&name)
    });
    let gid = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
    gid.or_else(|| user_by_name(name).map(|user| user.gid))
}

/// The groups that list a user as a member.
pub fn groups_of(name: &str) -> Vec<u32> {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    memberships(&text, name)
}

fn memberships(groups: &str, name: &str) -> Vec<u32> {
    let gid = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let member = fields.get(3)?.split(',').any(|member| member == name);
        if member {
            fields.get(2)?.parse().ok()
        } else {
            None
        }
    };
    groups.lines().filter_map(gid).collect()
}

fn user(line: String) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(User {
        name: Some(name),
        uid,
        gid,
    })
}

fn find(file: &str, database: &str, key: &str, is: impl Fn(&[&str]) -> bool) -> Option<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let fits = |line: &&str| is(&line.split(':').collect::<Vec<_>>());
    if let Some(line) = text.lines().find(fits) {
        return Some(line.to_owned());
    }
    // A name of the configuration never reaches a shell, and never looks like an option.
    if key.starts_with('-') {
        return None;
    }
    let asked = Command::new("getent")
        .args([database, key])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(asked.stdout).ok()?;
    text.lines().find(fits).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn root_is_known_by_name_and_number() {
        let root = user_by_name("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user_by_id(0), Some(root));
        assert_eq!(group_by_name("root"), Some(0));
        assert_eq!(user_by_name("no such user here"), None);
        assert_eq!(user_by_name("-x"), None);
        assert_eq!(group_by_name("no such group here"), None);
    }

    #[test]
    fn groups_are_those_that_list_the_user() {
        let groups = "a:x:10:\nb:x:11:me,you\nc:x:12:you\nbroken\nd:x:13:me\n";
        assert_eq!(memberships(groups, "me"), [11, 13]);
        assert_eq!(memberships(groups, "nobody"), [0; 0]);
    }
}
