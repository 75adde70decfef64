//! Levels of quota scopes, as far as they were asked for.
//!
//! Law: bounded. Past the bound the scope that was seen the longest ago goes.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;
use proxy_core::id::QuotaScopeId;
use proxy_volume::ScopeQuota;

use super::source::Sample;
use super::table::row;

/// Scopes that are shown, all volumes together: two series each.
const SCOPES_MAX: usize = 1000;

/// What was last seen of each.
#[derive(Debug, Default)]
pub(crate) struct Scopes(Mutex<HashMap<(String, QuotaScopeId), (Instant, ScopeQuota)>>);

impl Scopes {
    /// A backend told the numbers of a scope.
    pub(crate) fn seen(&self, volume: &str, scope: QuotaScopeId, quota: ScopeQuota) {
        let mut scopes = self.0.lock();
        let key = (volume.to_owned(), scope);
        if SCOPES_MAX <= scopes.len() && !scopes.contains_key(&key) {
            let oldest = scopes.iter().min_by_key(|(_, (at, _))| *at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                scopes.remove(&oldest);
            }
        }
        scopes.insert(key, (Instant::now(), quota));
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for ((volume, scope), (_, quota)) in &*self.0.lock() {
            let scope = scope.to_string();
            let numbers = [
                (&row::QUOTA_USED, quota.used_bytes),
                (&row::QUOTA_LIMIT, quota.limit_bytes),
            ];
            for (row, number) in numbers {
                let Some(number) = number else { continue };
                samples.push(Sample::number(row, &[&scope, volume], number as f64));
            }
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_number_of_scopes_is_bounded_and_the_last_number_counts() {
        let scopes = Scopes::default();
        let quota = |used_bytes, limit_bytes| ScopeQuota {
            used_bytes: Some(used_bytes),
            limit_bytes,
        };
        for n in 0..SCOPES_MAX + 5 {
            let text = format!("user:{}", uuid::Uuid::from_u128(n as u128 + 1));
            scopes.seen("v", QuotaScopeId::parse(&text).unwrap(), quota(1, None));
            scopes.seen("v", QuotaScopeId::parse(&text).unwrap(), quota(2, Some(9)));
        }
        assert_eq!(scopes.samples().len(), 2 * SCOPES_MAX);
    }
}
