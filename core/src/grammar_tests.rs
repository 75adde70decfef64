//! Goal: every value grammar accepts and refuses what the contract lists, with its texts.
//! Method: tables of JSON values per check, then whole documents through [`Checked`].
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

#[track_caller]
fn check<T: std::fmt::Debug + PartialEq>(
    check: impl Fn(&Value) -> Check<T>,
    rows: impl IntoIterator<Item = (Value, Result<T, &'static str>)>,
) {
    for (value, want) in rows {
        assert_eq!(check(&value), want.map_err(failure), "{value}");
    }
}

#[test]
fn booleans_are_words_and_numbers() {
    const BAD: Result<bool, &str> = Err("value can't be converted to Bool");
    for word in ["t", "true", " True ", "y", "YES", "on", "1", "1.0"] {
        check(to_bool, [(json!(word), Ok(true))]);
    }
    for word in ["false", "n", "no", "off", "0", "none", "None", "0.0"] {
        check(to_bool, [(json!(word), Ok(false))]);
    }
    let rows = [
        (json!(true), Ok(true)),
        (json!(false), Ok(false)),
        (json!(1), Ok(true)),
        (json!(0), Ok(false)),
        (json!(1.0), Ok(true)),
        (json!(null), Ok(false)),
        (json!("f"), BAD),
        (json!(""), BAD),
        (json!(2), BAD),
        (json!([]), BAD),
        (json!({}), BAD),
    ];
    check(to_bool, rows);
    const NOT: Result<bool, &str> = Err("value is not a valid boolean");
    check(
        bool_lenient,
        [
            (json!("f"), Ok(false)),
            (json!("yes"), Ok(true)),
            (json!(2), NOT),
        ],
    );
    let strict = [
        (json!(true), Ok(true)),
        (json!(1), Err("value should be True or False")),
    ];
    check(bool_strict, strict);
}

#[test]
fn integers_are_strict_or_coerced() {
    const CONVERT: &str = "value can't be converted to int";
    let rows = [
        (json!(5), Ok(5)),
        (json!(-5), Ok(-5)),
        (json!(2.0), Ok(2)),
        (json!(" +7 "), Ok(7)),
        (json!("3_0"), Ok(30)),
        (json!("-1"), Ok(-1)),
        (json!(true), Ok(1)),
        (json!(1.5), Err("value is not int")),
        (json!(1e300), Err("value is not int")),
        (json!(u64::MAX), Err("value is not int")),
        (json!("abc"), Err(CONVERT)),
        (json!("1g"), Err(CONVERT)),
        (json!("_1"), Err(CONVERT)),
        (json!("99999999999999999999"), Err(CONVERT)),
        (json!(""), Err(CONVERT)),
        (json!(null), Err("value is not int")),
        (json!([1]), Err("value is not int")),
    ];
    check(to_int, rows);
    const STRICT: Result<i64, &str> = Err("value is not int");
    check(
        int,
        [
            (json!(493), Ok(493)),
            (json!("511"), STRICT),
            (json!(511.0), STRICT),
        ],
    );
    check(int, [(json!(true), STRICT), (json!(null), STRICT)]);
}

#[test]
fn strings_paths_and_sizes() {
    check(string, [(json!("a"), Ok("a".to_owned()))]);
    check(string, [(json!(""), Err("blank value is not allowed"))]);
    check(string, [(json!(5), Err("value is not a string"))]);
    check(exactly("download"), [(json!("download"), Ok(()))]);
    check(
        exactly("download"),
        [(json!("x"), Err("value is not exactly 'download'"))],
    );
    check(
        rel_path,
        [(json!("a//b/"), Ok(RelPath::parse("a/b").unwrap()))],
    );
    check(
        rel_path,
        [(
            json!("/a"),
            Err("expected relative path but the value is absolute"),
        )],
    );
    check(rel_path, [(json!(5), Err("cannot parse value as a path"))]);
    check(binary_size, [(json!(5), Ok(BinarySize::Bytes(5)))]);
    check(binary_size, [(json!("1.5k"), Ok(BinarySize::Bytes(1536)))]);
    check(
        binary_size,
        [(json!("x"), Err("value is not a valid binary size"))],
    );
    check(
        vfolder_id,
        [(json!(5), Err("cannot convert value to VFolderID"))],
    );
    check(
        vfolder_id,
        [(json!("zz"), Err("cannot convert value to UUID"))],
    );
    check(
        quota_scope_id,
        [(json!(null), Err("value is not a string"))],
    );
}

#[test]
fn failures_in_lists_are_keyed_by_position() {
    let paths = list(rel_path);
    assert_eq!(paths(&json!(["a", "b/"])).unwrap().len(), 2);
    assert_eq!(paths(&json!("a")), Err(failure("value is not a list")));
    let failed = paths(&json!(["a", "/x", 5])).unwrap_err();
    let want = json!({
        "1": "expected relative path but the value is absolute",
        "2": "cannot parse value as a path",
    });
    assert_eq!(failed, want);
    assert_eq!(nullable(string)(&json!(null)), Ok(None));
    assert_eq!(nullable(string)(&json!("a")), Ok(Some("a".to_owned())));
}

#[test]
fn query_strings_decode_like_forms() {
    for (query, want) in [
        ("", vec![]),
        ("&&", vec![]),
        ("a=1&b=2&a=3", vec![("a", "1"), ("b", "2"), ("a", "3")]),
        ("a+b=c%20d", vec![("a b", "c d")]),
        ("a", vec![("a", "")]),
        ("a=b=c", vec![("a", "b=c")]),
        ("a=%", vec![("a", "%")]),
        ("a=%4", vec![("a", "%4")]),
        ("a=%zz%41", vec![("a", "%zzA")]),
        ("a=%ff", vec![("a", "\u{fffd}")]),
        ("k=%ED%95%9C", vec![("k", "한")]),
    ] {
        let got = parse_query(query);
        let got: Vec<_> = got
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(got, want, "{query:?}");
    }
}

/// A schema with every kind of field: required, optional, defaulted.
fn sample(document: Value, extras: bool) -> Check<(String, Option<i64>, bool)> {
    let mut fields = Checked::from_json(document)?;
    if extras {
        fields = fields.allow_extras();
    }
    let volume = fields.required("volume", string);
    let limit = fields.optional("limit", to_int);
    let deep = fields.defaulted("deep", true, to_bool);
    fields.finish((volume, limit, deep))
}

#[test]
fn documents_report_all_failures_at_once() {
    let passed = |limit, deep| Ok(("v".to_owned(), limit, deep));
    for (document, want) in [
        (json!({"volume": "v"}), passed(None, true)),
        (
            json!({"volume": "v", "limit": "5", "deep": null}),
            passed(Some(5), false),
        ),
        (json!({}), Err(json!({"volume": "is required"}))),
        (
            json!({"volume": "", "limit": "x", "z": 1}),
            Err(json!({
                "volume": "blank value is not allowed",
                "limit": "value can't be converted to int",
                "z": "z is not allowed key",
            })),
        ),
        (json!(null), Err(json!("value is not a dict"))),
        (json!([]), Err(json!("value is not a dict"))),
        (json!(1), Err(json!("value is not a dict"))),
    ] {
        assert_eq!(sample(document.clone(), false), want, "{document}");
    }
    assert_eq!(
        sample(json!({"volume": "v", "z": 1}), true),
        passed(None, true)
    );
    let pairs = parse_query("a=1&a=2");
    let mut fields = Checked::from_pairs(pairs);
    let first = fields.required("a", string);
    assert_eq!(fields.finish((first,)), Ok(("1".to_owned(),)));
}
