//! What the configured volumes can do, for `config check`.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use proxy_anchor::{Abilities, VolumeRoot};

use crate::load::Loaded;
use crate::settings::volumes;

/// How long a volume is waited for: a mount whose server is gone never answers.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// One volume and what was found out about it.
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its abilities, or why they are not known.
    pub abilities: Result<Abilities, String>,
}

impl Found {
    /// One line for people.
    pub fn line(&self) -> String {
        let what = match &self.abilities {
            Ok(abilities) => {
                let has = abilities.named().into_iter().filter(|(_, has)| *has);
                let names: Vec<_> = has.map(|(name, _)| name).collect();
                match names.is_empty() {
                    true => "none: no file can be made there by this user".to_owned(),
                    false => names.join(", "),
                }
            }
            Err(why) => format!("not known: {why}"),
        };
        format!("{}: {what}", self.name)
    }
}

/// Tries every volume that has a directory.
pub fn find(loaded: &Loaded) -> Vec<Found> {
    let volumes = volumes(loaded).into_iter();
    volumes
        .filter(|volume| volume.backend != "noop")
        .map(|volume| Found {
            abilities: probe(&volume.path),
            name: volume.name,
        })
        .collect()
}

fn probe(path: &Path) -> Result<Abilities, String> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    // A thread that hangs in the kernel ends with the process.
    std::thread::spawn(move || {
        let opened = VolumeRoot::open(&path);
        let _ = sender.send(opened.map(|root| root.abilities()));
    });
    match receiver.recv_timeout(ANSWER_WAIT) {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER_WAIT.as_secs())),
    }
}
