//! Quota scopes: make one, look at it, limit it, lift the limit.
//!
//! Source: manager-facing API 3.

use proxy_core::grammar::{self, Check, Checked, failure};
use proxy_core::id::QuotaScopeId;
use proxy_volume::{Volume, VolumeError};
use serde_json::{Value, json};

use crate::call::Call;
use crate::reply::{self, Failure, Outcome};

/// `POST /quota-scope`.
pub(crate) async fn create(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let scope = fields.required("qsid", grammar::quota_scope_id);
    let limit = fields.defaulted("options", None, grammar::nullable(options));
    let extra = fields.defaulted("extra_args", None, grammar::nullable(grammar::object));
    let (volume, scope, limit, _) = fields
        .finish((volume, scope, limit, extra))
        .map_err(Failure::parameters)?;
    let created = call
        .state
        .volumes
        .find(&volume)?
        .create_scope(scope, limit.flatten())
        .await;
    match created {
        Ok(()) => reply::no_content(),
        // The original returns this answer instead of raising it, and so does not count it.
        Err(error @ VolumeError::ScopeExists(_)) => Err(Failure::from(error).uncounted()),
        Err(error) => Err(error.into()),
    }
}

/// `GET /quota-scope`.
pub(crate) async fn describe(mut call: Call) -> Outcome {
    let (volume, scope) = scope_of(call.parameters().await?)?;
    let quota = call
        .state
        .volumes
        .find(&volume)?
        .describe_scope(scope)
        .await?;
    let quota = quota.ok_or(VolumeError::ScopeNotFound(scope))?;
    call.state.metrics.scopes.seen(&volume, scope, quota);
    reply::ok(&json!({"used_bytes": quota.used_bytes, "limit_bytes": quota.limit_bytes}))
}

/// `PATCH /quota-scope`: makes the scope if it is missing.
pub(crate) async fn update(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let scope = fields.required("qsid", grammar::quota_scope_id);
    let limit = fields.required("options", options);
    let (volume, scope, limit) = fields
        .finish((volume, scope, limit))
        .map_err(Failure::parameters)?;
    let volume = call.state.volumes.find(&volume)?;
    match limit {
        Some(limit) => volume.update_scope(scope, limit).await?,
        None => unlimited(&volume, scope).await?,
    }
    reply::no_content()
}

/// `DELETE /quota-scope/quota`: lifts the limit and keeps the scope.
pub(crate) async fn unset(mut call: Call) -> Outcome {
    let (volume, scope) = scope_of(call.parameters().await?)?;
    call.state.volumes.find(&volume)?.unset_scope(scope).await?;
    reply::no_content()
}

/// Makes the scope if it is missing, without a limit in either case.
async fn unlimited(volume: &Volume, scope: QuotaScopeId) -> Result<(), VolumeError> {
    match volume.create_scope(scope, None).await {
        Err(VolumeError::ScopeExists(_)) => volume.unset_scope(scope).await,
        made => made,
    }
}

fn scope_of(mut fields: Checked) -> Result<(String, QuotaScopeId), Failure> {
    let volume = fields.required("volume", grammar::string);
    let scope = fields.required("qsid", grammar::quota_scope_id);
    fields.finish((volume, scope)).map_err(Failure::parameters)
}

/// `{"limit_bytes": n}`. A negative limit is how a resource policy writes "unlimited".
fn options(value: &Value) -> Check<Option<u64>> {
    let mut fields = Checked::from_json(value.clone())?;
    let limit = fields.required("limit_bytes", grammar::to_int);
    let (limit,) = fields.finish((limit,))?;
    Ok(u64::try_from(limit).ok())
}

/// Reads `initial_max_size_for_quota_scope` of the options of a new folder, ignoring the rest.
pub(super) fn initial_limit(value: &Value) -> Check<Option<u64>> {
    let options = grammar::object(value)?;
    let Some(limit) = options.get("initial_max_size_for_quota_scope") else {
        return Ok(None);
    };
    if limit.is_null() {
        return Ok(None);
    }
    let limit = grammar::to_int(limit).map_err(|text| {
        let text = text.as_str().unwrap_or_default();
        failure(&format!("initial_max_size_for_quota_scope: {text}"))
    })?;
    Ok(u64::try_from(limit).ok().filter(|limit| *limit > 0))
}
