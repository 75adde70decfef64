//! What a fleet's parts count, for the page of metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proxy_api::metrics::{Durations, Sample, Source, TASK_BUCKETS_S, row};
use proxy_fleet::events::EventBus;
use proxy_fleet::tasks::SharedTasks;

use super::links::Links;

/// Requests that others may send over the channel.
const HEARD: [&str; 2] = ["do_volume_mount", "do_volume_unmount"];

/// The connections.
pub struct LinkFigures(pub Arc<Links>);

impl Source for LinkFigures {
    fn samples(&self) -> Vec<Sample> {
        let links = &self.0;
        [
            &links.statistics,
            &links.live,
            &links.stream,
            &links.bgtask,
            &links.tus,
        ]
        .map(|link| {
            let up = if link.state().up { 1.0 } else { 0.0 };
            Sample::number(&row::LINK_UP, &[link.name()], up)
        })
        .into()
    }
}

/// Events on their way out.
pub struct BusFigures(pub EventBus);

impl Source for BusFigures {
    fn samples(&self) -> Vec<Sample> {
        let stats = self.0.stats();
        let mut samples = vec![Sample::plain(
            &row::OUTBOX,
            (stats.spooled + stats.passing) as u64,
        )];
        samples.extend(
            [
                ("sent", stats.sent),
                ("spooled", stats.kept),
                ("replayed", stats.replayed),
                ("retried", stats.retried),
                ("forced", stats.forced),
                ("dropped", stats.dropped),
            ]
            .map(|(result, count)| Sample::number(&row::FLEET_EVENTS, &[result], count as f64)),
        );
        samples
    }
}

/// Tasks that others can see.
pub struct TaskFigures(pub SharedTasks);

impl Source for TaskFigures {
    fn samples(&self) -> Vec<Sample> {
        let stats = self.0.stats();
        [
            ("live", stats.live),
            ("unshared", stats.unshared),
            ("unsettled", stats.unsettled),
            ("elsewhere", stats.elsewhere),
        ]
        .map(|(state, count)| Sample::number(&row::FLEET_TASKS, &[state], count as f64))
        .into()
    }
}

/// Events that came, and what became of them. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    /// By event, and whether it went well.
    handled: BTreeMap<(&'static str, bool), Durations>,
    unreadable: u64,
}

impl Heard {
    /// A request was handled.
    pub fn handled(&self, event: &'static str, is_good: bool, took: Duration) {
        let mut counts = self.0.lock();
        let durations = counts.handled.entry((event, is_good)).or_default();
        durations.count(took.as_secs_f64(), TASK_BUCKETS_S);
    }

    /// A request was not understood.
    pub fn unreadable(&self) {
        self.0.lock().unreadable += 1;
    }
}

impl Source for Heard {
    fn samples(&self) -> Vec<Sample> {
        let counts = self.0.lock();
        let mut samples = Vec::new();
        let failed = |event, exception, count: u64| {
            let labels = ["backendai", "internal-error", event, exception, "generic"];
            Sample::number(&row::EVENT_FAILURES, &labels, count as f64)
        };
        for event in HEARD {
            for (is_good, error) in [
                (true, ["", "", ""]),
                (false, ["backendai", "internal-error", "generic"]),
            ] {
                let durations = counts.handled.get(&(event, is_good)).cloned();
                let durations = durations.unwrap_or_default();
                let status = if is_good { "success" } else { "failure" };
                if !is_good {
                    samples.push(failed(event, "MountError", durations.count));
                }
                let [domain, detail, operation] = error;
                samples.push(Sample::durations(
                    &row::EVENT_DURATION,
                    &[domain, detail, event, operation, status],
                    durations,
                    TASK_BUCKETS_S,
                ));
            }
        }
        samples.push(failed("unreadable", "RequestError", counts.unreadable));
        samples
    }
}
