//! `config check`, `config show`, `config default`.

use std::collections::BTreeMap;

use proxy_core::config::{self, Issue, Note, NoteKind, TABLE, WhenAbsent};
use serde_json::{Value, json};

use crate::abilities::{self, Found};
use crate::cli::{
    ConfigAction, ConfigArgs, DefaultsArgs, DefaultsFormat, MigrateAction, MigrateKind, Place,
};
use crate::failure::Failure;
use crate::load::{Loaded, Unloadable, load, problems, read};
use crate::output;
use crate::settings::{is_member, look};

/// Does what was asked.
pub fn run(place: &Place, args: &ConfigArgs) -> Result<(), Failure> {
    match &args.action {
        ConfigAction::Check(form) => check(place, form.json),
        ConfigAction::Show(form) => show(place, form.json),
        ConfigAction::GenerateSample(form) => super::sample::run(form),
        ConfigAction::Migrate(MigrateKind {
            action: MigrateAction::ServiceDiscovery(args),
        }) => super::migrate::run(place, args),
        ConfigAction::Defaults(form) => {
            defaults(form);
            Ok(())
        }
    }
}

fn check(place: &Place, json: bool) -> Result<(), Failure> {
    let loaded = match read(place, Vec::new()) {
        Ok(loaded) => loaded,
        Err(Unloadable::Failed(failure)) => return Err(failure),
        Err(Unloadable::Wrong(file, issues)) => {
            if json {
                output::json(&json!({"file": file, "good": false, "issues": listed(&issues)}));
            }
            return Err(problems(file.as_deref(), &issues));
        }
    };
    let (issues, warnings) = match look(&loaded) {
        Ok(outside) => (Vec::new(), outside.warnings),
        Err(issues) => (issues, Vec::new()),
    };
    let found = abilities::find(&loaded);
    if json {
        output::json(&report(&loaded, &issues, &warnings, &found));
    } else {
        output::text(&text(&loaded, issues.is_empty(), &warnings, &found));
    }
    if issues.is_empty() {
        Ok(())
    } else {
        Err(problems(loaded.file.as_deref(), &issues))
    }
}

fn listed(issues: &[Issue]) -> Value {
    let issues = issues.iter().map(|issue| {
        json!({
            "key": issue.path,
            "set_by": issue.origin.as_ref().map(ToString::to_string),
            "text": issue.what,
            "allowed": issue.allowed,
            "suggestion": issue.suggestion,
        })
    });
    issues.collect()
}

fn source(loaded: &Loaded) -> String {
    loaded
        .file
        .as_ref()
        .map_or("built-in defaults".into(), |file| {
            file.display().to_string()
        })
}

fn text(loaded: &Loaded, good: bool, warnings: &[String], found: &[Found]) -> String {
    let notes = &loaded.document.notes;
    let of = |kind: NoteKind| {
        notes
            .iter()
            .filter(move |note| note.kind == kind)
            .map(Note::to_string)
            .collect::<Vec<_>>()
    };
    let mut warned = of(NoteKind::Warning);
    warned.extend(warnings.iter().cloned());
    let mut out = String::new();
    for (title, lines) in [
        ("warnings", warned),
        (
            "abilities of volumes",
            found.iter().map(Found::line).collect(),
        ),
        ("accepted, not active yet", of(NoteKind::Later)),
        ("accepted, no effect", of(NoteKind::NoEffect)),
    ] {
        if !lines.is_empty() {
            out.push_str(&format!("{title}:\n"));
            out.extend(lines.iter().map(|line| format!("  {line}\n")));
        }
    }
    if good {
        out.push_str(&format!("configuration {} is good\n", source(loaded)));
    }
    out
}

fn report(loaded: &Loaded, issues: &[Issue], warnings: &[String], found: &[Found]) -> Value {
    let notes = loaded.document.notes.iter().map(|note| {
        json!({
            "key": note.path,
            "status": match note.kind {
                NoteKind::NoEffect => "no-effect",
                NoteKind::Later => "later",
                NoteKind::Warning => "warning",
            },
            "set_by": note.origin.as_ref().map(ToString::to_string),
            "text": note.text,
        })
    });
    json!({
        "file": loaded.file,
        "good": issues.is_empty(),
        "issues": listed(issues),
        "warnings": warnings,
        "notes": notes.collect::<Vec<_>>(),
        "volumes": found.iter().map(volume).collect::<Vec<_>>(),
        "fleet": if is_member(&loaded.document) { "member" } else { "standalone" },
        "data_dir": loaded.data_dir,
    })
}

fn volume(found: &Found) -> Value {
    match &found.abilities {
        Ok(abilities) => json!({
            "name": found.name,
            "abilities": abilities.named().into_iter().collect::<BTreeMap<_, _>>(),
        }),
        Err(why) => json!({"name": found.name, "error": why}),
    }
}

fn show(place: &Place, json: bool) -> Result<(), Failure> {
    let loaded = load(place, Vec::new())?;
    if json {
        output::json(&json!({
            "file": loaded.file,
            "data_dir": loaded.data_dir,
            "keys": config::show_json(&loaded.document),
        }));
    } else {
        let data = loaded.data_dir.display();
        output::line(&format!("# {}\n# data directory {data}\n", source(&loaded)));
        output::text(&config::show_toml(&loaded.document));
    }
    Ok(())
}

fn defaults(args: &DefaultsArgs) {
    match args.format {
        _ if args.json => output::json(&table()),
        DefaultsFormat::Json => output::json(&table()),
        DefaultsFormat::Toml => output::text(&config::sample()),
        DefaultsFormat::Markdown => output::text(&config::page()),
    }
}

fn table() -> Value {
    let keys = TABLE.iter().flat_map(|keys| keys.iter()).map(|key| {
        let (default, absent) = match key.default {
            WhenAbsent::Toml(toml) => (Some(toml), None),
            WhenAbsent::Means(what) => (None, Some(what)),
            WhenAbsent::Required => (None, Some("required")),
        };
        json!({
            "key": key.path,
            "allowed": key.kind.allowed(),
            "default": default,
            "when_absent": absent,
            "status": key.status.word(),
            "aliases": key.aliases,
            "env": key.env,
            "secret": key.secret,
            "doc": key.doc,
        })
    });
    keys.collect()
}
