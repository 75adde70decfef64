//! `health`: how a running server is.

use std::time::Duration;

use hyper::{Request, StatusCode, Uri};
use serde_json::Value;
use tokio::time::timeout;

use crate::access::Access;
use crate::cli::{HealthAction, HealthArgs, Place};
use crate::client::block_on;
use crate::client::body::Payload;
use crate::client::http::{Endpoint, read_all};
use crate::command::dependencies;
use crate::failure::Failure;
use crate::output;

/// How long a healthy server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the internal port.
pub fn run(place: &Place, args: &HealthArgs) -> Result<(), Failure> {
    if let Some(HealthAction::Check(args)) = &args.action {
        return dependencies::run(place, args, dependencies::Form::Health);
    }
    let internal = Access::internal(place)?;
    let asked = async {
        timeout(PATIENCE, ask(&internal))
            .await
            .map_err(|_| Failure::new("the server does not answer in time"))?
    };
    let (status, answer) = block_on(asked)?;
    let word = answer
        .get("status")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    if args.json {
        output::json(&answer);
    } else {
        output::text(&text(&answer, word));
    }
    if status == StatusCode::OK && word == "ok" {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "the server says {status}, status {word}"
        )))
    }
}

async fn ask(internal: &Endpoint) -> Result<(StatusCode, Value), Failure> {
    let mut request = Request::new(Payload::empty());
    *request.uri_mut() = Uri::from_static("/health");
    let response = internal.send(request).await?;
    let status = response.status();
    let body = read_all(response).await?;
    let answer = serde_json::from_slice(&body)
        .map_err(|_| Failure::new(format!("the server says {status}, and no JSON")))?;
    Ok((status, answer))
}

fn text(answer: &Value, word: &str) -> String {
    let version = answer.get("version").and_then(Value::as_str).unwrap_or("?");
    let mut out = format!("storage-proxy {version}: {word}\n");
    let checks = answer
        .pointer("/connectivity/connectivity_checks")
        .and_then(Value::as_array);
    for check in checks.into_iter().flatten() {
        let of = |key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default();
        let mark = if check.get("is_healthy") == Some(&Value::Bool(true)) {
            "ok"
        } else {
            "bad"
        };
        let (group, id, why) = (of("service_group"), of("component_id"), of("error_message"));
        out.push_str(format!("  {mark:<4} {group}/{id} {why}").trim_end());
        out.push('\n');
    }
    out
}
