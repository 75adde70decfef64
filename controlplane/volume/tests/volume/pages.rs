//! Listing page by page.
//!
//! Source: `docs/semantics.md#pages`.

use proxy_volume::{Order, Page, PageWish, VolumeError};

use crate::scene::{Scene, rel};

fn ask(
    scene: &Scene,
    order: Order,
    len_max: usize,
    cursor: Option<String>,
) -> Result<Page, VolumeError> {
    let wish = PageWish {
        dir: rel("."),
        order,
        len_max,
        cursor,
    };
    scene.run(scene.volume.page(scene.vfid, wish))
}

/// All paths, gathered by pages of `len_max`.
#[track_caller]
fn gather(scene: &Scene, order: Order, len_max: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = ask(scene, order, len_max, cursor).unwrap();
        assert!(page.entries.len() <= len_max);
        all.extend(page.entries.into_iter().map(|(path, _)| path));
        cursor = page.next;
        if cursor.is_none() {
            return all;
        }
    }
}

const PLAN: [&str; 10] = [
    "a/1=x",
    "a/2/x=y",
    "a/2/y=z",
    "a/3/",
    "a.b=x",
    "b=x",
    "c/d/e/f=x",
    "l->a",
    "z/9=x",
    "A=x",
];
const TREE: [&str; 16] = [
    "A", "a", "a/1", "a/2", "a/2/x", "a/2/y", "a/3", "a.b", "b", "c", "c/d", "c/d/e", "c/d/e/f",
    "l", "z", "z/9",
];

#[test]
fn pages_of_any_length_make_the_same_whole() {
    let scene = Scene::new();
    scene.arrange(&PLAN);
    for len_max in 1..=TREE.len() + 2 {
        assert_eq!(gather(&scene, Order::Tree, len_max), TREE, "{len_max}");
        let names = ["A", "a", "a.b", "b", "c", "l", "z"];
        assert_eq!(gather(&scene, Order::Name, len_max), names, "{len_max}");
        let mut raw = gather(&scene, Order::Raw, len_max);
        raw.sort();
        assert_eq!(raw, names, "{len_max}");
    }
}

#[test]
fn what_goes_between_two_pages_is_no_error() {
    let scene = Scene::new();
    scene.arrange(&PLAN);
    let first = ask(&scene, Order::Tree, 5, None).unwrap();
    assert_eq!(first.entries.len(), 5);
    std::fs::remove_dir_all(scene.at("a")).unwrap();
    std::fs::remove_file(scene.at("b")).unwrap();
    let rest = ask(&scene, Order::Tree, 100, first.next).unwrap();
    let rest: Vec<_> = rest.entries.iter().map(|(path, _)| path.as_str()).collect();
    let want = ["a.b", "c", "c/d", "c/d/e", "c/d/e/f", "l", "z", "z/9"];
    assert_eq!(rest, want);
}

#[test]
fn a_large_directory_is_paged_in_any_order() {
    let scene = Scene::new();
    let want: Vec<String> = (0..5_000).map(|number| format!("f{number:05}")).collect();
    for name in &want {
        std::fs::write(scene.at(name), "").unwrap();
    }
    for order in [Order::Name, Order::Tree, Order::Raw] {
        let mut all = gather(&scene, order, 1_300);
        if order == Order::Raw {
            all.sort();
        }
        assert_eq!(all, want, "{order:?}");
    }
}

#[test]
fn a_cursor_that_no_page_gave_is_refused() {
    let scene = Scene::new();
    for (order, cursor) in [
        (Order::Raw, "p"),
        (Order::Raw, "o-1"),
        (Order::Raw, ""),
        (Order::Name, "o1"),
        (Order::Tree, "p!!"),
    ] {
        let refused = ask(&scene, order, 1, Some(cursor.to_owned()));
        assert!(
            matches!(refused, Err(VolumeError::Refused(_))),
            "{order:?} {cursor:?} {refused:?}"
        );
    }
}
