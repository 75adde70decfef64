//! Whether this proxy works: probes at an interval, answers from the last result.
//!
//! Laws
//! - A request never waits for a probe: orchestrators give a health check one second.
//! - Liveness depends on nothing outside: restarting the proxy mends no store and no mount.
//! - Readiness depends on what every request needs, the state store. Volumes, etcd and Redis are
//!   shown and make the status `degraded`, but no proxy goes out of service for them: transfers go
//!   on, and all proxies of a fleet would go at once.
//! - An outage and its end show within 10 seconds.
//! - Before the first probe nothing is known to be wrong.
//!
//! Source: contract 7.1, 10.5 (49).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jiff::Timestamp;
use proxy_core::VERSION;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::metrics::{Sample, row};

/// How often [`Health::watch`] probes. With the time of a probe, and that which a connection to
/// etcd or Redis takes to notice a silent server, well below ten seconds.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long one probe may take before it counts as failed.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// Asks one thing that this proxy needs whether it works.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Returns what is wrong, in words for an operator, without paths or secrets.
    async fn probe(&self) -> Result<(), String>;
}

/// One thing to ask, and what its answer means.
pub struct Check {
    /// What kind of thing: `state`, `volume`, `etcd`, `redis`.
    pub service_group: &'static str,
    /// Which one.
    pub component_id: String,
    /// Whether the proxy is not ready without it.
    pub gates: bool,
    /// Asks.
    pub probe: Arc<dyn Probe>,
}

#[derive(Clone, Debug)]
struct Finding {
    service_group: &'static str,
    component_id: String,
    gates: bool,
    checked_at: Timestamp,
    error: Option<String>,
}

/// The last findings, and how to get new ones.
pub struct Health {
    checks: Vec<Check>,
    findings: ArcSwap<Vec<Finding>>,
}

/// A question of an orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// `/health`: always 200.
    Health,
    /// `/livez`.
    Alive,
    /// `/readyz`.
    Ready,
}

impl Health {
    /// Knows nothing yet: call [`Self::probe_all`] or spawn [`Self::watch`].
    pub fn new(checks: Vec<Check>) -> Self {
        Self {
            checks,
            findings: ArcSwap::default(),
        }
    }

    /// Asks everything once, at the same time, and keeps the answers.
    pub async fn probe_all(&self) {
        let mut asked = JoinSet::new();
        for (position, check) in self.checks.iter().enumerate() {
            let probe = Arc::clone(&check.probe);
            asked.spawn(async move {
                let late = || format!("no answer within {} s", PROBE_TIME_MAX.as_secs_f32());
                let answer = tokio::time::timeout(PROBE_TIME_MAX, probe.probe()).await;
                (position, answer.unwrap_or_else(|_| Err(late())).err())
            });
        }
        let mut findings = vec![None; self.checks.len()];
        while let Some(joined) = asked.join_next().await {
            // A probe that panicked leaves its place empty: like a probe that never ran.
            let Ok((position, error)) = joined else {
                continue;
            };
            let check = &self.checks[position];
            findings[position] = Some(Finding {
                service_group: check.service_group,
                component_id: check.component_id.clone(),
                gates: check.gates,
                checked_at: Timestamp::now(),
                error,
            });
        }
        self.report_changes(&findings);
        self.findings
            .store(Arc::new(findings.into_iter().flatten().collect()));
    }

    /// Asks everything at once and then at the interval. Never returns; cancel it by dropping.
    pub async fn watch(&self) {
        let mut ticks = tokio::time::interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.probe_all().await;
        }
    }

    /// The findings, for the metrics page.
    pub fn samples(&self) -> Vec<Sample> {
        let findings = self.findings.load();
        let samples = findings.iter().map(|finding| {
            let labels = [finding.component_id.as_str(), finding.service_group];
            let healthy = f64::from(u8::from(finding.error.is_none()));
            Sample::number(&row::HEALTHY, &labels, healthy)
        });
        samples.collect()
    }

    /// Status and body of one question.
    pub(crate) fn answer(&self, question: Question) -> (u16, Value) {
        let findings = self.findings.load();
        let all_well = findings.iter().all(|finding| finding.error.is_none());
        let ready = findings
            .iter()
            .all(|finding| finding.error.is_none() || !finding.gates);
        let (code, status) = match question {
            Question::Alive => (200, "ok"),
            Question::Health if all_well => (200, "ok"),
            Question::Health => (200, "degraded"),
            Question::Ready if ready => (200, "ok"),
            Question::Ready => (503, "error"),
        };
        let checks: Vec<Value> = findings.iter().map(Finding::json).collect();
        let body = json!({
            "status": status,
            "version": VERSION,
            "component": "storage-proxy",
            "connectivity": {
                "overall_healthy": all_well,
                "connectivity_checks": checks,
                "timestamp": stamp(Timestamp::now()),
            },
        });
        (code, body)
    }

    /// Logs what broke and what works again, once per change.
    fn report_changes(&self, findings: &[Option<Finding>]) {
        let before = self.findings.load();
        for now in findings.iter().flatten() {
            let was = before.iter().find(|then| {
                (then.service_group, &then.component_id) == (now.service_group, &now.component_id)
            });
            let was_well = was.is_none_or(|then| then.error.is_none());
            let (group, component) = (now.service_group, now.component_id.as_str());
            match &now.error {
                Some(error) if was_well => {
                    tracing::warn!(group, component, error, "health check fails");
                }
                None if !was_well => tracing::info!(group, component, "health check works again"),
                _ => {}
            }
        }
    }
}

impl Finding {
    fn json(&self) -> Value {
        json!({
            "service_group": self.service_group,
            "component_id": self.component_id,
            "is_healthy": self.error.is_none(),
            "last_checked_at": stamp(self.checked_at),
            "error_message": self.error,
        })
    }
}

/// Microseconds and `Z`.
fn stamp(time: Timestamp) -> String {
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Option<&'static str>);

    #[async_trait]
    impl Probe for Says {
        async fn probe(&self) -> Result<(), String> {
            match self.0 {
                None => Ok(()),
                Some("hangs") => std::future::pending().await,
                Some("panics") => panic!("a probe with a defect"),
                Some(text) => Err(text.to_owned()),
            }
        }
    }

    fn health(state: Option<&'static str>, volume: Option<&'static str>) -> Health {
        let check = |service_group, component_id: &str, gates, says| Check {
            service_group,
            component_id: component_id.to_owned(),
            gates,
            probe: Arc::new(Says(says)),
        };
        Health::new(vec![
            check("state", "embedded", true, state),
            check("volume", "local", false, volume),
        ])
    }

    #[tokio::test(start_paused = true)]
    async fn findings_decide_readiness_but_never_liveness() {
        for (state, volume, status, ready, well) in [
            (None, None, "ok", 200, [true, true].as_slice()),
            (None, Some("gone"), "degraded", 200, &[true, false]),
            (Some("broken"), None, "degraded", 503, &[false, true]),
            (Some("hangs"), None, "degraded", 503, &[false, true]),
            (None, Some("panics"), "ok", 200, &[true]),
        ] {
            let health = health(state, volume);
            health.probe_all().await;
            let (code, body) = health.answer(Question::Health);
            assert_eq!(
                (code, body["status"].as_str()),
                (200, Some(status)),
                "{state:?}"
            );
            let (code, body) = health.answer(Question::Ready);
            assert_eq!(code, ready, "{state:?} {volume:?}");
            assert_eq!(body["connectivity"]["overall_healthy"], status == "ok");
            let checks = body["connectivity"]["connectivity_checks"].as_array();
            let seen: Vec<bool> = checks
                .into_iter()
                .flatten()
                .map(|check| check["is_healthy"] == true)
                .collect();
            assert_eq!(seen, well, "{state:?} {volume:?}");
            assert_eq!(health.answer(Question::Alive).0, 200);
        }
    }

    #[test]
    fn before_the_first_probe_all_is_well() {
        let (code, body) = health(Some("broken"), None).answer(Question::Ready);
        assert_eq!((code, &body["status"]), (200, &json!("ok")));
        assert_eq!(body["connectivity"]["connectivity_checks"], json!([]));
        let stamp = body["connectivity"]["timestamp"].as_str().map(str::len);
        assert_eq!(stamp, Some("2026-11-22T07:46:56.536586Z".len()));
    }
}
