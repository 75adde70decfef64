//! `config migrate service-discovery`: the announced endpoints as the original's command derives
//! them from addresses.

use std::path::Path;

use proxy_core::config::{Document, HostPort};
use serde_json::{Value, json};

use crate::cli::{MigrateArgs, Place};
use crate::failure::Failure;
use crate::load::load;
use crate::output;

/// Keys of addresses, the first that is set wins; role and scope of the endpoint.
const ENDPOINTS: [(&[&str], &str, &str); 3] = [
    (
        &["api.manager.announce-addr", "api.manager.service-addr"],
        "api",
        "cluster",
    ),
    (&["api.client.service-addr"], "client-api", "cluster"),
    (
        &[
            "api.manager.announce-internal-addr",
            "api.manager.internal-addr",
        ],
        "client-api",
        "container",
    ),
];

struct Endpoint {
    role: &'static str,
    scope: &'static str,
    at: HostPort,
}

/// Derives them, and writes or prints them.
///
/// # Errors
/// There are endpoints already, or a file can not be read or written.
pub fn run(place: &Place, args: &MigrateArgs) -> Result<(), Failure> {
    let place = Place {
        config: Some(args.input.clone()),
        ..place.clone()
    };
    let loaded = load(&place, Vec::new())?;
    let document = &loaded.document;
    let there = document.names("service-discovery.endpoints[]").len();
    if 0 < there && !args.force {
        return Err(Failure::new(format!(
            "{} has {there} service-discovery.endpoints already; say --force",
            args.input.display()
        )));
    }
    let endpoints = derive(document);
    if endpoints.is_empty() {
        return Err(Failure::new("no address is set that could be announced"));
    }
    let text = toml(&endpoints);
    let written = match (&args.output, args.append) {
        _ if args.dry_run => None,
        (Some(output), _) => Some((output.as_path(), text.clone())),
        (None, true) => Some((args.input.as_path(), appended(&args.input, &text)?)),
        (None, false) => None,
    };
    if let Some((file, text)) = &written {
        std::fs::write(file, text).map_err(|error| Failure::at("write", file, &error))?;
    }
    let file = written.as_ref().map(|(file, _)| *file);
    if args.json {
        let listed: Value = endpoints.iter().map(listed).collect();
        output::json(&json!({"endpoints": listed, "written": file}));
    } else if let Some(file) = file {
        let count = endpoints.len();
        output::line(&format!("{count} endpoints: {}", file.display()));
    } else {
        output::text(&text);
    }
    Ok(())
}

fn derive(document: &Document) -> Vec<Endpoint> {
    let is_set = |path: &&&str| document.entry(path, &[]).is_some();
    let endpoint = |(paths, role, scope): (&[&str], _, _)| {
        let at = document.host_port(paths.iter().find(is_set)?);
        Some(Endpoint { role, scope, at })
    };
    ENDPOINTS.into_iter().filter_map(endpoint).collect()
}

fn listed(endpoint: &Endpoint) -> Value {
    json!({
        "role": endpoint.role,
        "scope": endpoint.scope,
        "address": endpoint.at.host,
        "port": endpoint.at.port,
        "protocol": "http",
    })
}

fn toml(endpoints: &[Endpoint]) -> String {
    let one = |endpoint: &Endpoint| {
        // A JSON text is a TOML text.
        let host = Value::String(endpoint.at.host.clone());
        format!(
            "[[service-discovery.endpoints]]\nrole = \"{}\"\nscope = \"{}\"\naddress = {host}\n\
             port = {}\nprotocol = \"http\"\n",
            endpoint.role, endpoint.scope, endpoint.at.port
        )
    };
    let all: Vec<String> = endpoints.iter().map(one).collect();
    all.join("\n")
}

/// The file with more at its end; refused if it could not be read again.
fn appended(file: &Path, more: &str) -> Result<String, Failure> {
    let old = std::fs::read_to_string(file).map_err(|error| Failure::at("read", file, &error))?;
    let text = format!("{}\n\n{more}", old.trim_end());
    match proxy_core::config::parse(&text, &[]) {
        Ok(_) => Ok(text),
        Err(_) => Err(Failure::new(format!(
            "{} does not take more endpoints at its end; use -o",
            file.display()
        ))),
    }
}
