//! Goal: keys and values are where the original puts and looks for them.
//! Method: tables; what stands in them was seen with the original.

use serde_json::json;

use super::*;

#[test]
fn keys_stand_below_the_namespace_and_the_scope() {
    let layout = Layout::new("local", "i-a b");
    for (key, global, node) in [
        (
            "config/redis/addr",
            "/sorna/local/config/redis/addr",
            "/sorna/local/nodes/storage/i-a b/config/redis/addr",
        ),
        (
            "/config/redis/addr",
            "/sorna/local/config/redis/addr",
            "/sorna/local/nodes/storage/i-a b/config/redis/addr",
        ),
        (
            "//x",
            "/sorna/local//x",
            "/sorna/local/nodes/storage/i-a b//x",
        ),
        ("_", "/sorna/local/_", "/sorna/local/nodes/storage/i-a b/_"),
        ("", "/sorna/local/", "/sorna/local/nodes/storage/i-a b/"),
    ] {
        assert_eq!(layout.global(key), global);
        assert_eq!(layout.node(key), node);
    }
}

#[test]
fn components_are_quoted_and_read_back() {
    for (bare, quoted) in [
        ("a/b c:é~_.-", "a%2Fb%20c%3A%C3%A9~_.-"),
        ("", ""),
        ("plain-Name_1.2~", "plain-Name_1.2~"),
        ("100%", "100%25"),
        ("a+b&c=d", "a%2Bb%26c%3Dd"),
        ("한글", "%ED%95%9C%EA%B8%80"),
    ] {
        assert_eq!(quote(bare), quoted);
        assert_eq!(unquote(quoted), bare);
    }
    for (quoted, bare) in [
        ("a%2fb", "a/b"),
        ("%zz", "%zz"),
        ("a+b", "a+b"),
        ("%FF", "\u{fffd}"),
    ] {
        assert_eq!(unquote(quoted), bare);
    }
}

#[test]
fn keys_become_maps() {
    for (pairs, want) in [
        (vec![], json!({})),
        (vec![("a", "1")], json!({"a": "1"})),
        (
            vec![("a/b", "1"), ("a/c", "2")],
            json!({"a": {"b": "1", "c": "2"}}),
        ),
        (
            vec![("n", "self"), ("n/k", "2")],
            json!({"n": {"": "self", "k": "2"}}),
        ),
        (
            vec![("n/k", "2"), ("n", "self")],
            json!({"n": {"k": "2", "": "self"}}),
        ),
        (vec![("a%2Fb/c%3A", "x")], json!({"a/b": {"c:": "x"}})),
        (vec![("a", "")], json!({"a": ""})),
        (vec![("a//b", "x")], json!({"a": {"": {"b": "x"}}})),
        (vec![("a", "1"), ("a", "2")], json!({"a": "2"})),
    ] {
        assert_eq!(Value::from(nest(pairs.iter().copied())), want, "{pairs:?}");
    }
}

#[test]
fn maps_become_keys_with_values_as_python_writes_them() {
    for (map, want) in [
        (json!({}), vec![]),
        (json!({"a": {}}), vec![]),
        (
            json!({"a": true, "b": false}),
            vec![("p/a", "True"), ("p/b", "False")],
        ),
        (
            json!({"a": null, "b": 1.5, "c": 7}),
            vec![("p/a", "None"), ("p/b", "1.5"), ("p/c", "7")],
        ),
        (
            json!({"n": {"": "self", "k": "2"}}),
            vec![("p/n", "self"), ("p/n/k", "2")],
        ),
        (json!({"": "self"}), vec![("p", "self")]),
        (
            json!({"a/b c:é~_.-": "x"}),
            vec![("p/a%2Fb%20c%3A%C3%A9~_.-", "x")],
        ),
    ] {
        let map = map.as_object().cloned().unwrap_or_default();
        let got = flatten("p/", &map);
        let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(got, want, "{map:?}");
    }
}

#[test]
fn a_node_hides_whole_first_level_names() {
    let global = json!({"redis_helper_config": {"socket_timeout": "9"}, "addr": "h:1"});
    for (node, want) in [
        (json!({}), global.clone()),
        (
            json!({"redis_helper_config": {"socket_connect_timeout": "8"}}),
            json!({"redis_helper_config": {"socket_connect_timeout": "8"}, "addr": "h:1"}),
        ),
        (
            json!({"addr": ""}),
            json!({"redis_helper_config": {"socket_timeout": "9"}, "addr": ""}),
        ),
    ] {
        let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
        assert_eq!(
            Value::from(overlay(map(&global), map(&node))),
            want,
            "{node}"
        );
    }
}

#[test]
fn booleans_are_read_in_any_letter_case() {
    for text in ["True", "true", "TRUE", " yes ", "1", "On", "t", "Y"] {
        assert!(is_true(text), "{text}");
    }
    for text in ["False", "false", "", "0", "no", "None", "2"] {
        assert!(!is_true(text), "{text}");
    }
}
