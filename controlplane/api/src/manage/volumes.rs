//! What volumes there are, and how their storage systems are.
//!
//! Source: manager-facing API 2.

use proxy_core::grammar::{self, Checked};
use proxy_core::problem::{Kind, Problem};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::reply::{self, Failure, Outcome};
use crate::stats;

/// `GET /volumes`. Never fails: the Manager asks on nearly every screen, and one volume that is
/// down must not take the others from its users.
pub(crate) async fn list(call: Call) -> Outcome {
    call.without_parameters()?;
    let volumes: Vec<Value> = call
        .state
        .volumes
        .listed()
        .iter()
        .map(|volume| {
            let capabilities: Vec<&str> = volume
                .capabilities()
                .iter()
                .map(|ability| ability.wire())
                .collect();
            json!({
                "name": volume.name(),
                "backend": volume.backend(),
                "path": volume.path().to_string_lossy(),
                "fsprefix": volume.fsprefix(),
                "capabilities": capabilities,
            })
        })
        .collect();
    reply::ok(&json!({"volumes": volumes}))
}

/// `GET /volume/hwinfo`.
pub(crate) async fn hwinfo(mut call: Call) -> Outcome {
    let volume = volume_name(call.parameters().await?)?;
    let info = call.state.volumes.find(&volume)?.hwinfo().await?;
    let metadata: Map<String, Value> = info
        .metadata
        .into_iter()
        .map(|(name, fact)| (name, fact.into()))
        .collect();
    reply::ok(&json!({
        "status": info.status.wire(),
        "status_info": info.status_info,
        "metadata": metadata,
    }))
}

/// `GET /volume/performance-metric`.
pub(crate) async fn performance_metric(mut call: Call) -> Outcome {
    let volume = volume_name(call.parameters().await?)?;
    let found = call.state.volumes.find(&volume)?;
    let cache = call.state.stats.as_ref();
    if let Some(answer) = stats::shared(cache, &volume).await {
        return reply::ok(&answer);
    }
    let metric = found.metric().await?;
    reply::ok(&stats::share(cache, &volume, &metric).await)
}

/// `GET /volume/quota`, a route of old Managers that no release implements any more. The original
/// says so in the reason phrase only, which nobody sees.
pub(crate) async fn quota(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.defaulted("vfid", None, grammar::nullable(grammar::vfolder_id));
    fields.finish((volume, vfid)).map_err(Failure::parameters)?;
    Err(no_folder_quota())
}

/// `PATCH /volume/quota`; see [`quota`].
pub(crate) async fn set_quota(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.defaulted("vfid", None, grammar::nullable(grammar::vfolder_id));
    let size = fields.required("size_bytes", grammar::binary_size);
    fields
        .finish((volume, vfid, size))
        .map_err(Failure::parameters)?;
    Err(no_folder_quota())
}

fn no_folder_quota() -> Failure {
    Problem::new(Kind::NotImplementedAPI)
        .msg("quotas belong to quota scopes, not folders")
        .into()
}

/// The only parameter of some endpoints.
pub(super) fn volume_name(mut fields: Checked) -> Result<String, Failure> {
    let volume = fields.required("volume", grammar::string);
    let (volume,) = fields.finish((volume,)).map_err(Failure::parameters)?;
    Ok(volume)
}
