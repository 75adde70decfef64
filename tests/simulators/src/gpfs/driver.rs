//! What IBM's CSI driver asks of Scale beside what the product asks: directories, owners, copies,
//! single snapshots, comments of filesets.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Gpfs, SNAPSHOTS, bad, good, snapshots_of, status, trouble};
use crate::jobs::Trouble;
use crate::{Reply, Request, disk};

/// The path by which clients know that snapshots can be copied from.
pub(super) const SNAPSHOT_COPY: &str =
    "/filesystems/{filesystemName}/filesets/{filesetName}/snapshotCopy/{snapshotName}";

fn copied(from: &Path, to: &Path) -> Result<(), Trouble> {
    if !from.is_dir() {
        return Err(trouble("EFSSG0264C", "The directory does not exist."));
    }
    disk::copy(from, to, &[SNAPSHOTS]).map_err(|error| trouble("EFSSG0100C", &error.to_string()))
}

impl Gpfs {
    pub(super) fn config(&self, _: &Request) -> Reply {
        let cluster = json!({
            "clusterId": "1", "clusterName": "simulated.local", "minReleaseLevel": "5.2.1.0",
            "timeZoneOffset": "+0000",
        });
        let config = json!({"clusterConfig": cluster});
        Reply::json(200, json!({"status": status(200, "ok"), "config": config}))
    }

    pub(super) fn refresh_task(&self, _: &Request) -> Reply {
        Reply::json(200, json!({"status": status(200, "ok")}))
    }

    /// A path below the mount point, or a whole one that leads there.
    fn below(&self, path: &str) -> PathBuf {
        let whole = PathBuf::from(path);
        if whole.starts_with(&self.dir) {
            return whole;
        }
        self.dir.join(path.trim_matches('/'))
    }

    /// Where a fileset is linked.
    fn home(&self, fileset: &str) -> Option<PathBuf> {
        let state = self.state.lock();
        state.filesets.get(fileset)?.path.clone().map(PathBuf::from)
    }

    pub(super) fn owner(&self, ask: &Request) -> Reply {
        let Ok(meta) = fs::metadata(self.below(&ask.params[1])) else {
            return bad(400, "File not found");
        };
        let owner = json!({
            "user": meta.uid().to_string(), "uid": meta.uid(),
            "group": meta.gid().to_string(), "gid": meta.gid(),
        });
        Reply::json(200, json!({"status": status(200, "ok"), "owner": owner}))
    }

    pub(super) fn stat_directory(&self, ask: &Request) -> Reply {
        let place = self.below(&ask.params[1]);
        self.job(
            ask,
            Box::new(move |_, _| match place.is_dir() {
                true => Ok(()),
                false => Err(trouble("EFSSG0264C", "The directory does not exist.")),
            }),
        )
    }

    pub(super) fn make_directory(&self, ask: &Request) -> Reply {
        let place = self.below(&ask.params[1]);
        self.job(
            ask,
            Box::new(move |_, _| {
                if place.is_dir() {
                    return Err(trouble("EFSSG0762C", "The directory already exists."));
                }
                fs::create_dir_all(place).map_err(|error| trouble("EFSSG0100C", &error.to_string()))
            }),
        )
    }

    pub(super) fn remove_directory(&self, ask: &Request) -> Reply {
        let place = self.below(&ask.params[1]);
        let safe = ask.query("safe") == Some("True");
        self.job(
            ask,
            Box::new(move |_, _| {
                if !place.is_dir() {
                    return Err(trouble("EFSSG0264C", "The directory does not exist."));
                }
                let done = if safe {
                    fs::remove_dir(place)
                } else {
                    fs::remove_dir_all(place)
                };
                done.map_err(|error| trouble("EFSSG0265C", &error.to_string()))
            }),
        )
    }

    pub(super) fn copy_directory(&self, ask: &Request) -> Reply {
        let to = ask.json()["targetPath"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let (from, to) = (self.below(&ask.params[1]), self.below(&to));
        self.job(ask, Box::new(move |_, _| copied(&from, &to)))
    }

    pub(super) fn copy_in_fileset(&self, ask: &Request) -> Reply {
        let Some(home) = self.home(&ask.params[1]) else {
            return bad(400, "Invalid value in 'filesetName'");
        };
        let to = ask.json()["targetPath"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let (from, to) = (home.join(&ask.params[2]), self.below(&to));
        self.job(ask, Box::new(move |_, _| copied(&from, &to)))
    }

    pub(super) fn copy_snapshot(&self, ask: &Request) -> Reply {
        let Some(home) = self.home(&ask.params[1]) else {
            return bad(400, "Invalid value in 'filesetName'");
        };
        let to = ask.json()["targetPath"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let from = home
            .join(SNAPSHOTS)
            .join(&ask.params[2])
            .join(&ask.params[3]);
        let to = self.below(&to);
        self.job(ask, Box::new(move |_, _| copied(&from, &to)))
    }

    pub(super) fn change_fileset(&self, ask: &Request) -> Reply {
        let (name, told) = (ask.params[1].clone(), ask.json());
        self.job(
            ask,
            Box::new(move |_, state| {
                let Some(one) = state.filesets.get_mut(&name) else {
                    return Err(trouble("EFSSG0072C", "The fileset does not exist."));
                };
                if let Some(comment) = told["comment"].as_str() {
                    comment.clone_into(&mut one.comment);
                }
                Ok(())
            }),
        )
    }

    pub(super) fn one_snapshot(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let Some(one) = state.filesets.get(&ask.params[1]) else {
            return bad(400, "Invalid value in 'filesetName'");
        };
        let all = snapshots_of(&ask.params[1], one);
        match all
            .into_iter()
            .find(|one| one["snapshotName"] == *ask.params[2])
        {
            Some(found) => good("snapshots", vec![found]),
            None => bad(400, "Invalid value in 'snapshotName'"),
        }
    }

    pub(super) fn latest_snapshot(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let Some(one) = state.filesets.get(&ask.params[1]) else {
            return bad(400, "Invalid value in 'filesetName'");
        };
        let latest = one.snapshots.iter().max_by_key(|(_, made)| **made);
        let name = latest.map(|(name, _)| name.clone());
        let mut all = snapshots_of(&ask.params[1], one);
        all.retain(|one| one["snapshotName"].as_str() == name.as_deref());
        good("snapshots", all)
    }
}
