//! Goal: every manager-facing route checks its parameters as the contract says, and tells all
//! failures together, with a 400 where upstream crashed.
//! Method: one table of routes with the kinds of their fields; the requests are made from it.
//!
//! Source: wire contract 2.2, 3.1, 3.2; manager contract. The 500 traps of 3.1 are 400 here:
//! `docs/semantics.md#parameters`.

use proxy_testkit::table::{Report, Want, answers, words};
use proxy_testkit::{Folder, Server};
use serde_json::{Map, Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// The grammar of a field.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    VFolder,
    Scope,
    Path,
    Paths,
    PathOrPaths,
    Bool,
    Int,
    StrictInt,
    Options,
    OptionalText,
}
use Kind::VFolder;
use Kind::{Bool, Int, OptionalText, Options, Path, PathOrPaths, Paths, Scope, StrictInt, Text};

/// One field: name, kind, required.
type Field = (&'static str, Kind, bool);

const HERE: [Field; 2] = [("volume", Text, true), ("vfid", VFolder, true)];
const SCOPED: [Field; 2] = [("volume", Text, true), ("qsid", Scope, true)];

/// One checked route, and a body that it accepts.
struct Route {
    call: &'static str,
    good: &'static str,
    own: &'static [Field],
    base: &'static [Field],
    extras: bool,
}

const fn route(
    call: &'static str,
    good: &'static str,
    base: &'static [Field],
    own: &'static [Field],
) -> Route {
    Route {
        call,
        good,
        base,
        own,
        extras: false,
    }
}

const ROUTES: &[Route] = &[
    route(
        "GET /volume/hwinfo",
        r#"{"volume":"volume1"}"#,
        &[],
        &[("volume", Text, true)],
    ),
    route(
        "GET /volume/performance-metric",
        r#"{"volume":"volume1"}"#,
        &[],
        &[("volume", Text, true)],
    ),
    route(
        "GET /folder/fs-usage",
        r#"{"volume":"volume1"}"#,
        &[],
        &[("volume", Text, true)],
    ),
    route(
        "POST /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid"}"#,
        &SCOPED,
        &[("options", Options, false)],
    ),
    route(
        "GET /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid"}"#,
        &SCOPED,
        &[],
    ),
    route(
        "PATCH /quota-scope",
        r#"{"volume":"volume1","qsid":"$qsid","options":{"limit_bytes":1000}}"#,
        &SCOPED,
        &[("options", Options, true)],
    ),
    route(
        "DELETE /quota-scope/quota",
        r#"{"volume":"volume1","qsid":"$qsid"}"#,
        &SCOPED,
        &[],
    ),
    route(
        "POST /folder/create",
        r#"{"volume":"volume1","vfid":"$new"}"#,
        &HERE,
        &[("mode", StrictInt, false), ("options", Options, false)],
    ),
    route(
        "POST /folder/delete",
        r#"{"volume":"volume1","vfid":"$new"}"#,
        &HERE,
        &[],
    ),
    route(
        "GET /folder/mount",
        "{$here}",
        &HERE,
        &[("subpath", Text, false)],
    ),
    route("GET /folder/metadata", "{$here}", &HERE, &[]),
    route("GET /folder/usage", "{$here}", &HERE, &[]),
    route("GET /folder/used-bytes", "{$here}", &HERE, &[]),
    route(
        "POST /folder/file/mkdir",
        r#"{$here,"relpath":"made"}"#,
        &HERE,
        &[
            ("relpath", PathOrPaths, true),
            ("parents", Bool, false),
            ("exist_ok", Bool, false),
        ],
    ),
    route(
        "POST /folder/file/list",
        r#"{$here,"relpath":""}"#,
        &HERE,
        &[("relpath", Path, true)],
    ),
    route(
        "POST /folder/file/rename",
        r#"{$here,"relpath":"a.txt","new_name":"b.txt"}"#,
        &HERE,
        &[
            ("relpath", Path, true),
            ("new_name", Text, true),
            ("is_dir", Bool, false),
        ],
    ),
    route(
        "POST /folder/file/move",
        r#"{$here,"src_relpath":"a.txt","dst_relpath":"b.txt"}"#,
        &HERE,
        &[("src_relpath", Path, true), ("dst_relpath", Path, true)],
    ),
    route(
        "POST /folder/file/fetch",
        r#"{$here,"relpath":"a.txt"}"#,
        &HERE,
        &[("relpath", Path, true)],
    ),
    route(
        "POST /folder/file/download",
        r#"{$here,"relpath":"a.txt","archive":false,"unmanaged_path":null}"#,
        &HERE,
        &[
            ("relpath", Path, true),
            ("archive", Bool, false),
            ("unmanaged_path", OptionalText, false),
        ],
    ),
    route(
        "POST /folder/file/upload",
        r#"{$here,"relpath":"up.bin","size":5}"#,
        &HERE,
        &[("relpath", Path, true), ("size", Int, true)],
    ),
    route(
        "POST /folder/file/delete",
        r#"{$here,"relpaths":["a.txt"]}"#,
        &HERE,
        &[("relpaths", Paths, true), ("recursive", Bool, false)],
    ),
    Route {
        call: "POST /folder/clone",
        good: r#"{"src_volume":"volume1","src_vfid":"$vfid","dst_volume":null,"dst_vfid":"$new"}"#,
        base: &[("src_volume", Text, true), ("src_vfid", VFolder, true)],
        own: &[
            ("dst_volume", OptionalText, true),
            ("dst_vfid", VFolder, true),
        ],
        extras: true,
    },
];

/// Values that a field of a kind refuses; `S` is a quota scope id, `F` 32 hex digits.
const REFUSED: &[(Kind, &[&str])] = &[
    (Text, &["5", "null", "[]", "{}", "\"\"", "true"]),
    (OptionalText, &["5", "[]", "{}", "\"\""]),
    (
        VFolder,
        &[
            "5",
            "null",
            "[\"F\"]",
            "\"\"",
            "\"zz\"",
            "\"F0\"",
            "\"/F\"",
            "\"S/zz\"",
            "\"foo/F\"",
            "\"S/F/x\"",
            "\"user:abc/F\"",
            "\"S//F\"",
            "\"nope:F/F\"",
            "\"S/../F\"",
            "\"../../../etc\"",
            "\" F\"",
            "\"S/F\\u0000\"",
        ],
    ),
    (
        Scope,
        &[
            "5",
            "null",
            "\"\"",
            "\"abc\"",
            "\"nope:abc\"",
            "\"user:abc\"",
            "\"user:\"",
            "\":x\"",
            "\"S/F\"",
            "\"user:../..\"",
            "\"nope:F\"",
            "\"user:F0\"",
        ],
    ),
    (Path, &["5", "null", "[\"a\"]", "{}", "\"/abs\"", "\"//a\""]),
    (Paths, &["\"a\"", "5", "null", "{}", "[\"/x\"]", "[5]"]),
    (
        PathOrPaths,
        &["5", "null", "{}", "\"/abs\"", "[\"a\",\"/x\"]", "[5]"],
    ),
    (Bool, &["\"f\"", "2", "\"maybe\"", "[]", "\"\"", "{}"]),
    (Int, &["1.5", "\"abc\"", "\"1g\"", "[]", "{}", "null"]),
    (StrictInt, &["\"511\"", "511.5", "[]", "{}", "\"rwx\""]),
    (Options, &["\"x\"", "5", "[]"]),
];

fn refused(kind: Kind) -> Vec<Value> {
    let texts = REFUSED
        .iter()
        .find(|row| row.0 == kind)
        .map_or(&[][..], |row| row.1);
    let value = |text: &str| {
        let text = text
            .replace('S', "user:11111111-2222-3333-4444-555555555555")
            .replace('F', "aabbccddeeff00112233445566778899");
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{text}: {err}"))
    };
    texts.iter().map(|text| value(text)).collect()
}

/// The bodies made from one route: a name, the body, the fields that must be reported.
fn broken(
    route: &Route,
    good: &Map<String, Value>,
) -> Vec<(String, Map<String, Value>, Vec<&'static str>)> {
    let mut out = Vec::new();
    let fields: Vec<Field> = route.base.iter().chain(route.own).copied().collect();
    let required: Vec<&str> = fields.iter().filter(|f| f.2).map(|f| f.0).collect();
    out.push(("{}".to_owned(), Map::new(), required.clone()));
    for (name, kind, needed) in fields {
        if needed {
            let mut body = good.clone();
            body.remove(name);
            out.push((format!("without {name}"), body, vec![name]));
        }
        for value in refused(kind) {
            let mut body = good.clone();
            body.insert(name.to_owned(), value.clone());
            out.push((format!("{name}={value}"), body, vec![name]));
        }
    }
    if !route.extras {
        let mut body = good.clone();
        body.insert("surprise".to_owned(), json!(1));
        out.push(("with an unknown key".to_owned(), body, vec!["surprise"]));
        let mut body = Map::new();
        body.insert("surprise".to_owned(), json!(1));
        let all = required.into_iter().chain(["surprise"]).collect();
        out.push(("only an unknown key".to_owned(), body, all));
    }
    out
}

fn good_body(server: &Server, route: &Route) -> Map<String, Value> {
    let text = words(route.good, &Folder::full(server), &Folder::unmade(server));
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => map,
        other => panic!("{}: {other:?}", route.good),
    }
}

#[test]
fn every_field_of_every_route_is_checked_and_all_failures_are_told() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for route in ROUTES {
        let (method, path) = route.call.split_once(' ').unwrap_or(("", ""));
        let good = good_body(&server, route);
        for (name, body, fields) in broken(route, &good) {
            let answer = server.ask(method, path, &Value::Object(body));
            let result = proxy_testkit::problem::fields(&answer, &fields);
            let result = result.map_err(|why| format!("{why}\n{answer}"));
            report.note(&format!("{} {name}", route.call), result);
        }
    }
    report.end("fields");
    server.finish();
}

/// Bodies that are no JSON object: what every checked route answers.
const NO_OBJECT: &[(&[u8], Want)] = &[
    (b"[]", Want::NotDict),
    (b"null", Want::NotDict),
    (b"1", Want::NotDict),
    (b"\"text\"", Want::NotDict),
    (b"", Want::Refused(400)),
    (b"{", Want::Refused(400)),
    (b"{\"volume\":}", Want::Refused(400)),
    (b"{\"volume\":\"\xff\xfe\"}", Want::Refused(400)),
    (b"{} {}", Want::Refused(400)),
];

#[test]
fn a_body_that_is_no_object_is_a_400_everywhere() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for route in ROUTES {
        let (method, path) = route.call.split_once(' ').unwrap_or(("", ""));
        for (bytes, want) in NO_OBJECT {
            let request = server.manager_request(method, path).body(bytes);
            let answer = request.send(server.manager());
            let result = answers(&answer, *want, &str::to_owned);
            let name = format!("{} {:?}", route.call, String::from_utf8_lossy(bytes));
            report.note(&name, result.map_err(|why| format!("{why}\n{answer}")));
        }
    }
    report.end("bodies");
    server.finish();
}

#[test]
fn a_body_over_one_mebibyte_is_a_413() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    let long = format!("{{\"volume\":\"{}\"}}", "x".repeat(1024 * 1024));
    let text = "Maximum request body size 1048576 exceeded";
    for route in ROUTES {
        let (method, path) = route.call.split_once(' ').unwrap_or(("", ""));
        let answer = server
            .manager_request(method, path)
            .body(long.as_bytes())
            .send(server.manager());
        let head = proxy_testkit::problem::head(&answer, 413, "text/plain; charset=utf-8");
        let told = answer.text().starts_with(text).then_some(());
        let result = head.and_then(|()| told.ok_or_else(|| "other text".to_owned()));
        report.note(route.call, result.map_err(|why| format!("{why}\n{answer}")));
    }
    report.end("long bodies");
    server.finish();
}

#[test]
fn good_bodies_are_taken_with_any_content_type_framing_and_query() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for route in ROUTES {
        let (method, path) = route.call.split_once(' ').unwrap_or(("", ""));
        for shape in ["json", "no content type", "chunked", "query"] {
            let text = Value::Object(good_body(&server, route)).to_string();
            let (start, end) = text.as_bytes().split_at(text.len() / 2);
            let request = match shape {
                "chunked" => server.manager_request(method, path).chunked(&[start, end]),
                "query" => server
                    .manager_request(method, &format!("{path}?volume=other&surprise=1"))
                    .body(text.as_bytes()),
                "json" => server
                    .manager_request(method, path)
                    .header("Content-Type", "application/json")
                    .body(text.as_bytes()),
                _ => server
                    .manager_request(method, path)
                    .header("Content-Type", "text/plain")
                    .body(text.as_bytes()),
            };
            let answer = request.send(server.manager());
            // The one route whose backend has nothing to tell, and the one that must conflict.
            let expected = match route.call {
                "GET /volume/performance-metric" => answer.status == 400,
                "POST /quota-scope" => answer.status == 409,
                _ => answer.status / 100 == 2,
            };
            let result = expected.then_some(()).ok_or_else(|| answer.to_string());
            report.note(&format!("{} as {shape}", route.call), result);
        }
    }
    report.end("good bodies");
    server.finish();
}

#[test]
fn an_unknown_volume_is_named_on_every_route() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    // These four answer without looking the volume up: manager contract 4.2, 4.5, 5.5, 5.6.
    let blind = [
        "POST /folder/delete",
        "GET /folder/metadata",
        "POST /folder/file/fetch",
        "POST /folder/file/download",
        "POST /folder/clone",
    ];
    for route in ROUTES.iter().filter(|r| !blind.contains(&r.call)) {
        let (method, path) = route.call.split_once(' ').unwrap_or(("", ""));
        let mut body = good_body(&server, route);
        body.insert("volume".to_owned(), json!("nowhere"));
        let answer = server.ask(method, path, &Value::Object(body));
        let result = proxy_testkit::problem::typed(&answer, "InvalidVolumeError").and_then(|()| {
            proxy_testkit::problem::same("msg", &answer.json()["msg"], &json!("nowhere"))
        });
        report.note(route.call, result.map_err(|why| format!("{why}\n{answer}")));
    }
    report.end("unknown volume");
    server.finish();
}

/// A field and the JSON text that replaces its value; removed when the text is empty.
type Breaks = &'static [(&'static str, &'static str)];

/// Pydantic endpoints: wire contract 3.3. Field that is removed or replaced, and by what.
const MODERN: &[(&str, &str, Breaks)] = &[
    (
        "POST /folder/file/archive-download-token",
        r#"{"volume":"volume1","virtual_folder_id":"$vfid","files":["a.txt"]}"#,
        &[
            ("volume", ""),
            ("virtual_folder_id", ""),
            ("files", ""),
            ("volume", "5"),
            ("virtual_folder_id", r#""zz""#),
            ("virtual_folder_id", r#""user:abc/zz""#),
            ("files", "[]"),
            ("files", "[5]"),
            ("files", r#""a""#),
            ("filename", r#""a/b.zip""#),
            ("filename", r#""a\\b.zip""#),
            ("filename", r#"".""#),
            ("filename", r#""..""#),
            ("filename", r#"" ""#),
            ("filename", r#""""#),
            ("filename", "\"a\\u0007b\""),
            ("filename", "5"),
        ],
    ),
    (
        "POST /folder/file/delete-async",
        r#"{"volume":"volume1","vfid":"$vfid","relpaths":["nothing"]}"#,
        &[
            ("volume", ""),
            ("vfid", ""),
            ("relpaths", ""),
            ("vfid", r#""zz""#),
            ("vfid", "5"),
            ("relpaths", r#""a""#),
            ("relpaths", "[5]"),
            ("recursive", "2"),
            ("recursive", r#""maybe""#),
        ],
    ),
];

#[test]
fn the_newer_endpoints_have_their_own_envelopes() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for (call, good, breaks) in MODERN {
        let (method, path) = call.split_once(' ').unwrap_or(("", ""));
        let good = words(good, &Folder::full(&server), &Folder::unmade(&server));
        let good: Value = serde_json::from_str(&good).unwrap_or_default();
        let mut note = |name: String, bytes: &[u8], want: Want| {
            let answer = server
                .manager_request(method, path)
                .body(bytes)
                .send(server.manager());
            let result = answers(&answer, want, &str::to_owned);
            report.note(
                &format!("{call} {name}"),
                result.map_err(|why| format!("{why}\n{answer}")),
            );
        };
        for (field, value) in *breaks {
            let mut body = good.clone();
            if let Some(map) = body.as_object_mut() {
                map.remove(*field);
                if let Ok(value) = serde_json::from_str(value) {
                    map.insert((*field).to_owned(), value);
                }
            }
            let invalid = Want::Problem("common InvalidAPIParameters");
            note(
                format!("{field}={value}"),
                body.to_string().as_bytes(),
                invalid,
            );
        }
        note(
            "no body".to_owned(),
            b"",
            Want::Problem("MalformedRequestBody"),
        );
        note(
            "half a body".to_owned(),
            b"{\"volume\":",
            Want::Problem("MalformedRequestBody"),
        );
        note(
            "a list".to_owned(),
            b"[]",
            Want::Problem("common InvalidAPIParameters"),
        );
        note(
            "no UTF-8".to_owned(),
            b"{\"volume\":\"\xff\"}",
            Want::Refused(400),
        );
        let mut extra = good.clone();
        extra["surprise"] = json!(1);
        let fine = Want::Any(&[
            Want::Json(200, r#"{"token":"<text>"}"#),
            Want::Json(202, r#"{"bgtask_id":"<uuid>"}"#),
        ]);
        note(
            "with an unknown key".to_owned(),
            extra.to_string().as_bytes(),
            fine,
        );
    }
    report.end("newer endpoints");
    server.finish();
}

/// Makes one spelling of a folder id from the scope's UUID and the folder's 32 digits.
type Spelling = fn(&str, &str) -> String;

/// Spellings of one folder id: wire contract 3.2.
const SPELLINGS: &[(&str, Spelling)] = &[
    ("canonical", |scope, hex| format!("user:{scope}/{hex}")),
    ("upper-case folder", |scope, hex| {
        format!("user:{scope}/{}", hex.to_uppercase())
    }),
    ("upper-case type", |scope, hex| {
        format!("USER:{scope}/{hex}")
    }),
    ("upper-case scope", |scope, hex| {
        format!("user:{}/{hex}", scope.to_uppercase())
    }),
    ("other type", |scope, hex| format!("project:{scope}/{hex}")),
    ("scope without dashes", |scope, hex| {
        format!("user:{}/{hex}", scope.replace('-', ""))
    }),
    ("folder in braces", |scope, hex| {
        format!("user:{scope}/{{{hex}}}")
    }),
    ("folder as URN", |scope, hex| {
        format!("user:{scope}/urn:uuid:{hex}")
    }),
    ("folder with dashes", |scope, hex| {
        let parts = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        format!("user:{scope}/{}", parts.join("-"))
    }),
];

#[test]
fn identifiers_are_read_as_liberally_as_upstream_does() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    for (name, spelling) in SPELLINGS {
        let folder = Folder::full(&server);
        let hex = folder.vfid.rsplit('/').next().unwrap_or_default();
        let vfid = spelling(folder.qsid.trim_start_matches("user:"), hex);
        let body = json!({"volume": "volume1", "vfid": vfid, "relpath": "a.txt"});
        let answer = server.ask("POST", "/folder/file/fetch", &body);
        let same = (answer.body == b"hello").then_some(());
        report.note(
            &format!("fetch, {name}"),
            same.ok_or_else(|| format!("{vfid}: {answer}")),
        );
        let body = json!({"volume": "volume1", "vfid": vfid});
        let answer = server.ask("GET", "/folder/mount", &body);
        let path = json!({"path": folder.path.display().to_string()});
        let same = (answer.status == 200 && answer.json() == path).then_some(());
        report.note(
            &format!("mount, {name}"),
            same.ok_or_else(|| format!("{vfid}: {answer}")),
        );
    }
    report.end("identifiers");
    server.finish();
}

#[test]
fn booleans_and_integers_have_many_spellings() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    let truths = [
        "true",
        "1",
        "1.0",
        r#""t""#,
        r#""True""#,
        r#"" YES ""#,
        r#""y""#,
        r#""on""#,
    ];
    let lies = [
        "false",
        "0",
        "0.0",
        "null",
        r#""n""#,
        r#""No""#,
        r#""off""#,
        r#""none""#,
    ];
    for (values, status) in [(truths, 200), (lies, 422)] {
        for value in values {
            let folder = Folder::full(&server);
            let body = format!(
                r#"{{"volume":"volume1","vfid":"{}","relpath":"d1","exist_ok":{value}}}"#,
                folder.vfid
            );
            let answer = server
                .manager_request("POST", "/folder/file/mkdir")
                .body(body.as_bytes())
                .send(server.manager());
            let same = (answer.status == status)
                .then_some(())
                .ok_or_else(|| answer.to_string());
            report.note(&format!("exist_ok={value}"), same);
        }
    }
    for (value, size) in [
        ("3", 3),
        ("3.0", 3),
        (r#""3""#, 3),
        (r#"" 3 ""#, 3),
        (r#""+3""#, 3),
    ] {
        let folder = Folder::full(&server);
        let body = format!(
            r#"{{"volume":"volume1","vfid":"{}","relpath":"up","size":{value}}}"#,
            folder.vfid
        );
        let answer = server
            .manager_request("POST", "/folder/file/upload")
            .body(body.as_bytes())
            .send(server.manager());
        let token = answer.json()["token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let good = answer.status == 200
            && proxy_testkit::token::claims(proxy_testkit::server::TOKEN_SECRET, &token)["size"]
                == size;
        report.note(
            &format!("size={value}"),
            good.then_some(()).ok_or_else(|| answer.to_string()),
        );
    }
    report.end("spellings");
    server.finish();
}
