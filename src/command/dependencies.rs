//! `dependencies verify` and `health check`: what the server needs, asked from outside.

use proxy_core::token::Secret;
use serde_json::json;

use crate::cli::{ChecksArgs, Place};
use crate::client::block_on;
use crate::failure::Failure;
use crate::load::{load, problems};
use crate::output;
use crate::settings::{Secrets, Settings, look};
use crate::wiring::dependencies::{Item, check};

/// How the result is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What could be set up.
    Setup,
    /// How it is.
    Health,
}

/// Looks, and tells.
///
/// # Errors
/// Something is not good.
pub fn run(place: &Place, args: &ChecksArgs, form: Form) -> Result<(), Failure> {
    let loaded = load(place, Vec::new())?;
    let outside = look(&loaded).map_err(|issues| problems(loaded.file.as_deref(), &issues))?;
    let nothing = Secrets {
        token: Secret::new(""),
        manager: Secret::new(""),
    };
    let settings = Settings::new(&loaded, outside, nothing);
    let items = block_on(async { Ok(check(&settings).await) })?;
    let failed = items.iter().filter(|item| item.error.is_some()).count();
    if args.json {
        let listed = items.iter().map(|item| {
            json!({
                "service_group": item.group,
                "component_id": item.name,
                "is_healthy": item.error.is_none(),
                "error_message": item.error,
            })
        });
        output::json(&json!({
            "overall_healthy": failed == 0,
            "checks": listed.collect::<Vec<_>>(),
        }));
    } else {
        output::text(&text(&items, failed, form));
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("1 check failed")),
        count => Err(Failure::new(format!("{count} checks failed"))),
    }
}

fn text(items: &[Item], failed: usize, form: Form) -> String {
    let mut out = String::new();
    let mut group = "";
    for item in items {
        if item.group != group {
            group = item.group;
            out.push_str(&format!("{group}\n"));
        }
        let (mark, why) = match &item.error {
            None => ("ok", String::new()),
            Some(why) => ("failed", format!(": {why}")),
        };
        out.push_str(&format!("  {mark:<6} {}{why}\n", item.name));
    }
    let (all, passed) = (items.len(), items.len() - failed);
    let word = if failed == 0 { "HEALTHY" } else { "UNHEALTHY" };
    out.push_str(&match form {
        Form::Setup => format!("Completed: {passed}\nFailed: {failed}\n"),
        Form::Health => format!(
            "Total Checks: {all}\nPassed: {passed}\nFailed: {failed}\nOverall Status: {word}\n"
        ),
    });
    out
}
