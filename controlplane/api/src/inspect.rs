//! A page for whoever sits at the machine: what is at work right now.
//!
//! Laws
//! - It is for the loopback interface: the listener that serves it is bound there and nowhere else.
//! - It shows, and changes nothing; there is no console behind it.
//! - Requests that name another host than this machine are refused, so that no web page of another
//!   origin can read it through a browser.
//!
//! Source: logging A10.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HOST};
use serde_json::Value;

/// Says what is at work, section by section.
pub type Look = Arc<dyn Fn() -> Value + Send + Sync>;

/// `/` for people, `/json` for programs.
pub fn inspect_router(look: Look) -> Router {
    let of_programs = Arc::clone(&look);
    let json = move || {
        let text = of_programs().to_string();
        async move { ([(CONTENT_TYPE, "application/json; charset=utf-8")], text) }
    };
    let page = move || {
        let text = page(&look());
        async move { Html(text) }
    };
    Router::new()
        .route("/", get(page))
        .route("/json", get(json))
        .layer(from_fn(this_machine))
}

async fn this_machine(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let name = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    match name {
        Some("127.0.0.1" | "localhost" | "[::1]") => next.run(request).await,
        _ => (StatusCode::FORBIDDEN, "403: only for this machine").into_response(),
    }
}

fn page(look: &Value) -> String {
    let mut out = String::from(HEAD);
    for (name, section) in look.as_object().into_iter().flatten() {
        let _ = write!(out, "<h2>{}</h2>", escaped(name));
        match section {
            Value::Array(rows) => table(&mut out, rows),
            Value::Object(members) => {
                out.push_str("<table>");
                for (name, value) in members {
                    let value = escaped(&plain(value));
                    let _ = write!(out, "<tr><th>{}</th><td>{value}</td></tr>", escaped(name));
                }
                out.push_str("</table>");
            }
            other => {
                let _ = write!(out, "<p>{}</p>", escaped(&plain(other)));
            }
        }
    }
    out.push_str("</body></html>\n");
    out
}

fn table(out: &mut String, rows: &[Value]) {
    let Some(first) = rows.first().and_then(Value::as_object) else {
        out.push_str("<p>none</p>");
        return;
    };
    out.push_str("<table><tr>");
    for name in first.keys() {
        let _ = write!(out, "<th>{}</th>", escaped(name));
    }
    out.push_str("</tr>");
    for row in rows {
        out.push_str("<tr>");
        for name in first.keys() {
            let _ = write!(out, "<td>{}</td>", escaped(&plain(&row[name])));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

const HEAD: &str = "<!doctype html><html><head><meta charset=\"utf-8\"><title>Storage Proxy</title>\
<meta http-equiv=\"refresh\" content=\"5\"><style>body{font:14px sans-serif;margin:2em}\
table{border-collapse:collapse}th,td{border:1px solid #ccc;padding:2px 8px;text-align:left}\
h2{font-size:16px}</style></head><body><h1>Storage Proxy</h1>";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_shows_sections_and_no_markup_of_others() {
        let text = page(&json!({
            "program": {"version": "1", "node": "<b>"},
            "transfers": [{"operation": "upload", "bytes": 7}],
            "tasks": [],
        }));
        for part in [
            "<h2>program</h2>",
            "<td>&lt;b&gt;</td>",
            "<th>operation</th>",
            "<td>7</td>",
            "<h2>tasks</h2><p>none</p>",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
