//! Goal: XCP and the RapidFile Toolkit count and remove trees, and nothing is lost without them.
//! Method: small programs that print what the real ones print, and note what they were asked.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::bed::{Scene, reins, write};

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(
        path,
        format!("#!/bin/sh\necho \"$0 $*\" >>\"$(dirname \"$0\")/asked\"\n{text}"),
    )
    .unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What the programs in a directory were asked.
fn asked(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("asked")).unwrap_or_default();
    let begin = format!("{}/", dir.display());
    text.lines().map(|line| line.replace(&begin, "")).collect()
}

/// XCP over the mount of a scene, with this licence.
fn xcp(scene: &mut Scene, licence: &str, scan: &str) -> PathBuf {
    let dir = scene.bed.home.path().join("bin");
    let mount = scene.bed.mount();
    let text = format!(
        r#"path() {{ echo "$1" | sed 's|^127.0.0.1:/vol1|{}|'; }}
case $1 in
license) echo "XCP 1.9"; echo "License status: {licence}" ;;
scan)
    {scan}
    dir=$(path "$3")
    echo "xcp scan"
    echo "Total Count,$(find "$dir" -mindepth 1 | wc -l)"
    sizes() {{ find "$dir" -type f -printf '%s\n'; }}
    echo "Total Space Used,$(sizes | awk '{{s+=$1}} END {{print s}}')" ;;
delete) rm -rf "$(path "$4")" ;;
esac
"#,
        mount.display()
    );
    script(&dir.join("xcp"), &text);
    let command = json!([dir.join("xcp")]);
    scene
        .bed
        .options
        .insert("netapp_xcp_cmd".to_owned(), command);
    scene.restart();
    dir
}

#[test]
fn xcp_counts_and_removes_where_it_has_a_licence() {
    for (licence, scan, uses) in [
        ("ACTIVE", "", true),
        ("EXPIRED", "", false),
        ("ACTIVE", "echo 'xcp: ERROR: no route' >&2; exit 1", true),
        ("ACTIVE", "echo nothing; exit 0", true),
    ] {
        let mut scene = Scene::new(crate::beds::netapp());
        let dir = xcp(&mut scene, licence, scan);
        let (vfid, place) = scene.folder(1);
        write(&place, "a", 1000);
        write(&place, "d/b", 500);
        let usage = scene.run(scene.volume.usage(vfid)).unwrap();
        assert_eq!(usage.file_count, 3, "{licence} {scan}");
        let used = scene.run(scene.volume.used_bytes(vfid)).unwrap();
        assert!(used.used_bytes >= 1500, "{licence} {scan}: {used:?}");
        scene
            .run(scene.volume.delete_folder(vfid, reins()))
            .unwrap();
        assert_eq!(fs::read_dir(scene.scope_dir()).unwrap().count(), 0);
        let asked = asked(&dir);
        let count = |word: &str| asked.iter().filter(|line| line.contains(word)).count();
        assert_eq!(count("xcp license"), 1, "asked once an hour: {asked:?}");
        assert_eq!(
            count("xcp scan -csv 127.0.0.1:/vol1/") > 0,
            uses,
            "{asked:?}"
        );
        assert_eq!(
            count("xcp delete -force -removetopdir 127.0.0.1:/vol1/") > 0,
            uses
        );
        if uses && scan.is_empty() {
            assert_eq!((usage.used_bytes, used.used_bytes), (1500, 1500));
        }
    }
}

#[test]
fn xcp_needs_a_host() {
    let mut scene = Scene::new(crate::beds::netapp());
    scene
        .bed
        .options
        .insert("netapp_xcp_cmd".to_owned(), json!(["xcp"]));
    scene.bed.options.remove("netapp_nfs_host");
    let limits = proxy_volume::Limits::default();
    let fault = proxy_volume::Volumes::new(vec![scene.bed.spec()], &limits)
        .err()
        .unwrap();
    let text = fault.to_string();
    assert!(
        text.starts_with("volume.v1.options.netapp_nfs_host: is missing"),
        "{text}"
    );
}

#[test]
fn the_rapidfile_toolkit_counts_and_removes_where_it_is_installed() {
    for (version, flags) in [
        ("pdu version p1.2 (RapidFile) 2.1.0", Some("pdu -0 -b -a /")),
        (
            "pdu p1.0 (RapidFile Toolkit) 1.0.0",
            Some("pdu -0 -b -a -s /"),
        ),
        ("pdu 0.20.0", None),
    ] {
        let mut scene = Scene::new(crate::beds::purestorage());
        let dir = scene.bed.home.path().join("bin");
        let pdu = format!(
            r#"[ "$1" = --version ] && {{ echo "{version}"; exit 0; }}
for last; do :; done
find "$last" -printf '%s %p\0'
"#
        );
        script(&dir.join("pdu"), &pdu);
        script(&dir.join("prm"), "rm -r \"$2\"\n");
        scene
            .bed
            .options
            .insert("purity_rapidfile_dir".to_owned(), json!(dir));
        scene.restart();
        let (vfid, place) = scene.folder(1);
        write(&place, "a", 1000);
        write(&place, "b c", 500);
        let usage = scene.run(scene.volume.usage(vfid)).unwrap();
        assert_eq!((usage.file_count, usage.used_bytes), (2, 1500), "{version}");
        scene
            .run(scene.volume.delete_folder(vfid, reins()))
            .unwrap();
        assert_eq!(fs::read_dir(scene.scope_dir()).unwrap().count(), 0);
        let asked = asked(&dir);
        let count = |word: &str| asked.iter().filter(|line| line.contains(word)).count();
        assert_eq!(count("pdu --version"), 1, "{asked:?}");
        assert_eq!(count("prm -r /"), usize::from(flags.is_some()), "{asked:?}");
        assert_eq!(
            flags.map_or(0, count),
            usize::from(flags.is_some()),
            "{asked:?}"
        );
    }
}
