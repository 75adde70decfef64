//! What the kernel says about this process, read when the page is asked for.
//!
//! Source: proc_pid_stat(5): fields 14, 15, 23, 24.

use std::sync::Mutex;
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge};

use super::MetricRow;

/// Clock ticks per second in /proc: part of the kernel's interface to user space, always 100.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self/stat`.
#[derive(Debug)]
pub(super) struct Process {
    cpu_percent: Gauge,
    rss: IntGauge,
    vms: IntGauge,
    tasks: IntGauge,
    before: Mutex<Option<(Instant, u64)>>,
}

/// The fields that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    vms_bytes: u64,
    rss_pages: u64,
}

impl Process {
    /// Rows in the order processor, resident memory, address space, tasks.
    pub(super) fn new([cpu, rss, vms, tasks]: [MetricRow; 4]) -> Self {
        let gauge = |row: MetricRow| {
            IntGauge::new(row.name, row.help).expect("the table holds valid names")
        };
        Self {
            cpu_percent: Gauge::new(cpu.name, cpu.help).expect("the table holds valid names"),
            rss: gauge(rss),
            vms: gauge(vms),
            tasks: gauge(tasks),
            before: Mutex::new(None),
        }
    }

    fn refresh(&self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.set(runtime.metrics().num_alive_tasks() as i64);
        }
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let Some(stat) = parse(&text) else { return };
        self.vms.set(stat.vms_bytes as i64);
        self.rss.set((stat.rss_pages * PAGE_BYTES) as i64);
        let now = (Instant::now(), stat.cpu_ticks);
        let mut before = self
            .before
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        // The first reading has nothing to compare with, and says 0 like the original's.
        if let Some((then, ticks)) = before.replace(now) {
            let seconds = now.0.duration_since(then).as_secs_f64().max(1e-3);
            let busy = now.1.saturating_sub(ticks) as f64 / TICKS_PER_SECOND;
            self.cpu_percent.set(100.0 * busy / seconds);
        }
    }
}

/// Page size on the machines that this is built for. A kernel with larger pages shows too small
/// a number here, and nothing else.
const PAGE_BYTES: u64 = 4096;

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let integers = [&self.rss, &self.vms, &self.tasks];
        let mut all = self.cpu_percent.desc();
        all.extend(integers.iter().flat_map(|gauge| gauge.desc()));
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        let integers = [&self.rss, &self.vms, &self.tasks];
        let mut all = self.cpu_percent.collect();
        all.extend(integers.iter().flat_map(|gauge| gauge.collect()));
        all
    }
}

/// Field 2 is the program's name and may hold anything: fields are counted from its last `)`.
fn parse(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |position: usize| fields.get(position - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: number(14)? + number(15)?,
        vms_bytes: number(23)?,
        rss_pages: number(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_programs_name() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 5 0 900 123456 78 1";
        let want = Stat {
            cpu_ticks: 42,
            vms_bytes: 123_456,
            rss_pages: 78,
        };
        assert_eq!(parse(line), Some(want));
        for broken in ["", "7 (a", "7 (a) S 1"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }
}
