//! Where every kind of name leads. Goal: links inside work, nothing else does. Method: one
//! tree, one table; each line is looked up by every read-like operation, with `openat2` and
//! without.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::io::Read;

use bed::{Bed, SECRET, WAYS, Way, rel, words};
use proxy_anchor::{AnchorError, Opened};

const LONG: usize = 255;

fn tree(way: Way) -> Bed {
    let bed = Bed::new(way);
    bed.file("a/file", "inside")
        .file("a/b/c/deep", "deep")
        .file("top", "top");
    bed.file("a/.upload/x", "not reserved")
        .file(".upload/staged", "staged");
    let parent = bed.host.parent().unwrap();
    std::fs::create_dir(parent.join("sibling")).unwrap();
    std::fs::write(parent.join("sibling/secret"), SECRET).unwrap();
    let evil = format!("{}-evil", bed.host.to_str().unwrap());
    std::fs::create_dir(&evil).unwrap();
    std::fs::write(format!("{evil}/secret"), SECRET).unwrap();

    bed.link("rel", "a/file")
        .link("rel_dot", "./a/./file")
        .link("rel_dir", "a");
    bed.link("dots", "a/b/../../a/file")
        .link("a/back", "../rel")
        .link("a/self_dir", ".");
    bed.link("a/b/up2", "../../top")
        .link("root_link", ".")
        .link("slashes", "a///b//c//deep");
    bed.link("abs", "{host}/a/file")
        .link("abs_dir", "{host}/a")
        .link("abs_root", "{host}");
    bed.link("abs_slash", "{host}/")
        .link("abs_dots", "{host}/../{own}/a/file");
    bed.link("abs_inner_dots", "{host}/a/../a/file")
        .link("own", "../{own}/a/file");
    bed.link(
        "far_up",
        "../../../../../../../../../../../../../../../..{host}/top",
    );
    bed.link("chain1", "chain2")
        .link("chain2", "abs_dir/../chain3")
        .link("chain3", "rel");

    bed.link("out_up", "..")
        .link("out_sibling", "../sibling/secret");
    bed.link("out_abs", "{outside}/secret")
        .link("out_dir", "{outside}");
    bed.link("out_prefix", "{host}-evil/secret")
        .link("out_slash", "/");
    bed.link("out_passwd", "/etc/passwd")
        .link("out_proc", "/proc/self/root/etc/passwd");
    bed.link("out_cwd", "/proc/self/cwd")
        .link("out_fd", "/proc/self/fd/0");
    bed.link("out_deep", "a/b/c/../../../../sibling")
        .link("out_abs_up", "{host}/..");
    bed.link("out_and_back", "../sibling/../{own}/top")
        .link("a/out", "../..");
    bed.link("chain_out", "out_chain2")
        .link("out_chain2", "a/../out_abs");

    add_odd_names(&bed);
    bed
}

fn add_odd_names(bed: &Bed) {
    bed.link("dangling", "nowhere")
        .link("dangling_abs", "{host}/nowhere/x");
    bed.link("dangling_deep", "a/nowhere/x")
        .link("to_dangling", "dangling");
    bed.link("self", "self")
        .link("loop1", "loop2")
        .link("loop2", "a/../loop1");
    bed.link("via_file", "a/file/")
        .link("via_file_dot", "a/file/.")
        .link("in_file", "a/file/x");
    bed.link("dir_slash", "a/")
        .link("to_upload", ".upload")
        .link("up_staged", ".upload/staged");
    bed.link("abs_upload", "{host}/.upload/staged")
        .link("a/up_upload", "../.upload");
    bed.link("past_upload", ".upload/../top");

    bed.link("l0", "top");
    for n in 1..=40 {
        bed.link(&format!("l{n}"), &format!("l{}", n - 1));
    }
    for name in [
        "%2e%2e", "..%2ftop", "..\\top", " ", "a\nb", "한글", "...", "~", "-rf", "*",
    ] {
        bed.file(name, name);
    }
    bed.file(&"n".repeat(LONG), "long");
}

/// Path, what opening it says, where it is: content, `dir`, or the word of the error.
const TABLE: &[(&str, &str, &str)] = &[
    // plain
    (".", "dir", ""),
    ("top", "top", "top"),
    ("a", "dir", "a"),
    ("a/file", "inside", "a/file"),
    ("a/b/c/deep", "deep", "a/b/c/deep"),
    ("a//b/./c/deep", "deep", "a/b/c/deep"),
    ("missing", "ENOENT", "missing"),
    ("missing/x/y", "ENOENT", "missing/x/y"),
    ("a/missing", "ENOENT", "a/missing"),
    ("a/file/x", "ENOTDIR", ""),
    // dots
    ("a/..", "dir", ""),
    ("a/../top", "top", "top"),
    ("a/b/../../top", "top", "top"),
    ("a/b/c/../../../a/file", "inside", "a/file"),
    ("missing/../top", "ENOENT", "top"),
    ("a/file/..", "ENOTDIR", ""),
    ("..", "escapes", ""),
    ("../", "escapes", ""),
    ("../x", "escapes", ""),
    ("../../../../../../../../etc/passwd", "escapes", ""),
    ("a/../..", "escapes", ""),
    ("a/../../sibling/secret", "escapes", ""),
    ("../sibling/secret", "escapes", ""),
    ("../456789abcdef0123456789abcdef/top", "top", "top"),
    ("../456789abcdef0123456789abcdef-evil/secret", "escapes", ""),
    // links inside
    ("rel", "inside", "a/file"),
    ("rel_dot", "inside", "a/file"),
    ("rel_dir", "dir", "a"),
    ("rel_dir/file", "inside", "a/file"),
    ("rel_dir/b/c/deep", "deep", "a/b/c/deep"),
    ("rel_dir/../top", "top", "top"),
    ("dots", "inside", "a/file"),
    ("a/back", "inside", "a/file"),
    ("a/self_dir/self_dir/file", "inside", "a/file"),
    ("a/b/up2", "top", "top"),
    ("root_link", "dir", ""),
    ("root_link/root_link/top", "top", "top"),
    ("slashes", "deep", "a/b/c/deep"),
    ("abs", "inside", "a/file"),
    ("abs_dir", "dir", "a"),
    ("abs_dir/file", "inside", "a/file"),
    ("abs_root", "dir", ""),
    ("abs_root/a/file", "inside", "a/file"),
    ("abs_slash/top", "top", "top"),
    ("abs_dots", "inside", "a/file"),
    ("abs_inner_dots", "inside", "a/file"),
    ("own", "inside", "a/file"),
    ("far_up", "top", "top"),
    ("chain1", "inside", "a/file"),
    ("dir_slash/file", "inside", "a/file"),
    // links outside
    ("out_up", "escapes", ""),
    ("out_up/456789abcdef0123456789abcdef/top", "top", "top"),
    ("out_sibling", "escapes", ""),
    ("out_abs", "escapes", ""),
    ("out_dir", "escapes", ""),
    ("out_dir/secret", "escapes", ""),
    ("out_dir/../volume", "escapes", ""),
    ("out_prefix", "escapes", ""),
    ("out_slash", "escapes", ""),
    ("out_slash/etc/passwd", "escapes", ""),
    ("out_passwd", "escapes", ""),
    ("out_proc", "escapes", ""),
    ("out_cwd", "escapes", ""),
    ("out_fd", "escapes", ""),
    ("out_deep", "escapes", ""),
    ("out_abs_up", "escapes", ""),
    ("out_and_back", "escapes", ""),
    ("a/out", "escapes", ""),
    ("chain_out", "escapes", ""),
    // dangling, loops
    ("dangling", "ENOENT", "nowhere"),
    ("dangling/x", "ENOENT", "nowhere/x"),
    ("dangling_abs", "ENOENT", "nowhere/x"),
    ("dangling_deep", "ENOENT", "a/nowhere/x"),
    ("to_dangling", "ENOENT", "nowhere"),
    ("self", "ELOOP", ""),
    ("self/x", "ELOOP", ""),
    ("loop1", "ELOOP", ""),
    ("l39", "top", "top"),
    ("l40", "ELOOP", ""),
    ("via_file", "ENOTDIR", ""),
    ("via_file_dot", "ENOTDIR", ""),
    ("in_file", "ENOTDIR", ""),
    // staging
    (".upload", "reserved", ""),
    (".upload/staged", "reserved", ""),
    ("./.upload//staged", "reserved", ""),
    ("a/../.upload/staged", "reserved", ""),
    (".upload/../top", "reserved", ""),
    ("to_upload", "reserved", ""),
    ("to_upload/staged", "reserved", ""),
    ("up_staged", "reserved", ""),
    ("abs_upload", "reserved", ""),
    ("a/up_upload/staged", "reserved", ""),
    ("root_link/.upload/staged", "reserved", ""),
    ("a/self_dir/../.upload/staged", "reserved", ""),
    ("past_upload", "top", "top"),
    ("a/.upload/x", "not reserved", "a/.upload/x"),
    // names are names
    ("%2e%2e", "%2e%2e", "%2e%2e"),
    ("%2e%2e/top", "ENOTDIR", ""),
    ("..%2ftop", "..%2ftop", "..%2ftop"),
    ("..\\top", "..\\top", "..\\top"),
    (" ", " ", " "),
    ("a\nb", "a\nb", "a\nb"),
    ("한글", "한글", "한글"),
    ("...", "...", "..."),
    ("~", "~", "~"),
    ("-rf", "-rf", "-rf"),
    ("*", "*", "*"),
    ("top\0", "invalid", ""),
    ("top\0/../..", "invalid", ""),
    ("\0", "invalid", ""),
];

fn content(opened: Opened) -> String {
    let stat = opened.stat;
    if stat.is_dir() {
        return "dir".to_owned();
    }
    let mut text = String::new();
    std::fs::File::from(opened.fd)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(stat.size, text.len() as u64);
    text
}

#[track_caller]
fn check(bed: &Bed, way: Way, path: &str, want: &str, place: &str) {
    let (what, rel) = (format!("{path:?} by {way:?}"), rel(path));
    let opened = bed.root.open_read_at(&rel);
    let is_error = opened.is_err();
    if let Ok((_, location)) = &opened {
        assert_eq!(location.to_str().unwrap(), place, "location of {what}");
    }
    assert_eq!(
        words(opened, |(opened, _)| content(opened)),
        want,
        "open {what}"
    );
    assert_eq!(
        words(bed.root.open_read(&rel), content),
        want,
        "open_read {what}"
    );

    let stat = words(bed.root.stat(&rel, true), |stat| {
        if stat.is_dir() {
            "dir".to_owned()
        } else {
            want.to_owned()
        }
    });
    assert_eq!(stat, want, "stat {what}");

    let dir = match want {
        "dir" => "dir",
        _ if is_error => want,
        _ => "ENOTDIR",
    };
    assert_eq!(
        words(bed.root.open_dir(&rel), |_| "dir".to_owned()),
        dir,
        "open_dir {what}"
    );

    // A missing tail is no error for it; everything else is as for opening.
    let resolved = words(bed.root.resolve_path(&rel), |path| format!("={path}"));
    let place = if place.is_empty() { "." } else { place };
    let kept = if is_error && want != "ENOENT" {
        want.to_owned()
    } else {
        format!("={place}")
    };
    assert_eq!(resolved, kept, "resolve {what}");

    if let Some(cached) = bed.root.open_read_cached(&rel) {
        assert_eq!(words(cached, content), want, "cached {what}");
    }
}

#[test]
fn names_lead_where_the_table_says() {
    for way in WAYS {
        let bed = tree(way);
        for (path, want, place) in TABLE {
            check(&bed, way, path, want, place);
        }
        bed.assert_outside_untouched();
    }
}

#[test]
fn no_error_shows_a_server_path() {
    for way in WAYS {
        let bed = tree(way);
        for (path, ..) in TABLE {
            for error in [
                bed.root.open_read(&rel(path)).err(),
                bed.root.rmdir(&rel(path)).err(),
            ] {
                let Some(error) = error else { continue };
                let text = format!("{error} {error:?}");
                assert!(
                    !text.contains(bed.volume.path().to_str().unwrap()),
                    "{text}"
                );
                if let AnchorError::Os { path: shown, .. } = error {
                    assert_eq!(shown, rel(path).as_str());
                }
            }
        }
    }
}

#[test]
fn long_names_end_where_the_file_system_ends() {
    for way in WAYS {
        let bed = tree(way);
        let just = "n".repeat(LONG);
        let over = "n".repeat(LONG + 1);
        check(&bed, way, &just, "long", &just);
        for path in [
            over.clone(),
            format!("a/{over}"),
            format!("{over}/x"),
            format!("rel/../{over}"),
        ] {
            let got = words(bed.root.open_read(&rel(&path)), content);
            let want = if path.starts_with("rel/") {
                "ENOTDIR"
            } else {
                "ENAMETOOLONG"
            };
            assert_eq!(got, want, "{path} by {way:?}");
        }
        let resolved = bed.root.resolve_path(&rel(&format!("missing/{over}")));
        assert_eq!(words(resolved, |path| path.to_string()), "ENAMETOOLONG");
    }
}

#[test]
fn exact_lookups_refuse_every_link() {
    for way in WAYS {
        let bed = tree(way);
        for (path, want) in [
            ("a/file", "inside"),
            ("a/../a/file", "inside"),
            (".", "dir"),
            ("rel", "ELOOP"),
            ("rel_dir/file", "ELOOP"),
            ("abs", "ELOOP"),
            ("out_abs", "ELOOP"),
            ("to_upload/staged", "ELOOP"),
            ("a/../.upload/staged", "reserved"),
            ("../x", "escapes"),
            ("missing", "ENOENT"),
        ] {
            let got = words(bed.root.open_exact(&rel(path)), content);
            assert_eq!(got, want, "{path} by {way:?}");
        }
    }
}

#[test]
fn the_entry_itself_can_be_looked_at_wherever_it_points() {
    for way in WAYS {
        let bed = tree(way);
        for path in [
            "rel",
            "out_abs",
            "dangling",
            "self",
            "to_upload",
            "rel_dir/back",
        ] {
            let stat = bed.root.stat(&rel(path), false).unwrap();
            assert!(stat.is_symlink(), "{path} by {way:?}");
        }
        for (path, want) in [
            ("out_dir/secret", "escapes"),
            ("to_upload/staged", "reserved"),
        ] {
            assert_eq!(
                words(bed.root.stat(&rel(path), false), |_| String::new()),
                want
            );
        }
    }
}

#[test]
fn cached_opens_answer_what_the_caches_know() {
    let bed = tree(Way::Openat2);
    // The first lookup may need the disk, and brings the names into the cache.
    bed.root.open_read(&rel("a/file")).unwrap();
    match bed.root.open_read_cached(&rel("a/file")) {
        Some(opened) => assert_eq!(words(opened, content), "inside"),
        None => eprintln!("skipped: no RESOLVE_CACHED on this kernel or file system"),
    }
    for path in ["rel", "rel_dir/file", "out_abs", "a/../top", "self"] {
        assert!(bed.root.open_read_cached(&rel(path)).is_none(), "{path}");
    }
    let reserved = bed.root.open_read_cached(&rel(".upload/staged")).unwrap();
    assert_eq!(words(reserved, content), "reserved");
    assert!(
        tree(Way::Portable)
            .root
            .open_read_cached(&rel("a/file"))
            .is_none()
    );
}

#[test]
fn links_to_names_that_are_not_utf8_are_followed() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    for way in WAYS {
        let bed = tree(way);
        let odd = OsStr::from_bytes(b"bad\xff\xfe");
        std::fs::write(bed.host.join(odd), "odd").unwrap();
        std::os::unix::fs::symlink(odd, bed.host.join("to_odd")).unwrap();
        let (opened, location) = bed.root.open_read_at(&rel("to_odd")).unwrap();
        assert_eq!(
            (content(opened).as_str(), location.as_os_str()),
            ("odd", odd)
        );
        assert_eq!(bed.root.resolve_os(OsStr::new("to_odd")).unwrap(), odd);
        let lossy = bed.root.resolve_path(&rel("to_odd"));
        assert_eq!(words(lossy, |path| path.to_string()), "invalid");
    }
}

#[test]
fn paths_deeper_than_held_descriptors_are_walked_back() {
    for way in WAYS {
        let bed = Bed::new(way);
        let depth = 300;
        let down = "d/".repeat(depth);
        bed.file(&format!("{down}end"), "end")
            .file("top", "top")
            .link("link", &down);
        let up = "../".repeat(depth);
        check(&bed, way, &format!("{down}{up}top"), "top", "top");
        check(&bed, way, &format!("link/{up}top"), "top", "top");
        // Half the way back, further than descriptors are held.
        let (half, half_up) = ("d/".repeat(depth / 2), "../".repeat(depth / 2));
        bed.file(&format!("{half}half"), "half");
        let place = format!("{half}half");
        check(&bed, way, &format!("{down}{half_up}half"), "half", &place);
        check(&bed, way, &format!("link/{half_up}half"), "half", &place);
        check(&bed, way, &format!("{down}{half_up}../half"), "ENOENT", &{
            format!("{}half", "d/".repeat(depth / 2 - 1))
        });
        check(&bed, way, "link/end", "end", &format!("{down}end"));
        check(&bed, way, &format!("{down}{up}../top"), "escapes", "");
    }
}
