//! Calls to the storage systems' own interfaces, by volume.

use std::sync::Arc;

use proxy_volume::{CALL_BUCKETS_S, CallTally, Ledger, VendorStats, Volumes};

use super::source::{Durations, Sample, Source};
use super::table::{MetricRow, row};

/// Shows what the volumes asked of their storage systems.
pub struct Vendors(Arc<Volumes>);

impl Vendors {
    /// Of these volumes.
    pub fn new(volumes: Arc<Volumes>) -> Self {
        Self(volumes)
    }
}

impl Source for Vendors {
    fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for volume in self.0.listed() {
            if let Some(ledger) = volume.ledger() {
                let of = [volume.kind().wire(), volume.name()];
                samples.extend(numbers(of, &ledger.stats()));
                samples.extend(calls(of, ledger));
            }
        }
        samples
    }
}

fn numbers(of: [&str; 2], stats: &VendorStats) -> Vec<Sample> {
    let numbers: [(&'static MetricRow, u64); 8] = [
        (&row::VENDOR_UP, u64::from(!stats.is_suspended)),
        (&row::VENDOR_NOW, stats.in_flight),
        (&row::VENDOR_REQUESTS, stats.tries),
        (&row::VENDOR_RETRIES, stats.retries),
        (&row::VENDOR_THROTTLED, stats.throttled),
        (&row::VENDOR_SUSPENDED, stats.suspended),
        (&row::VENDOR_LOGINS, stats.logins),
        (&row::VENDOR_RECEIVED, stats.bytes_received),
    ];
    let sample = |(row, number): (_, u64)| Sample::number(row, &of, number as f64);
    numbers.into_iter().map(sample).collect()
}

fn calls([backend, volume]: [&str; 2], ledger: &Ledger) -> Vec<Sample> {
    let sample = |tally: CallTally| {
        let CallTally {
            operation,
            outcome,
            count,
            seconds,
            buckets,
        } = tally;
        let labels = [backend, &operation, outcome, volume];
        let durations = Durations {
            count,
            seconds,
            buckets,
        };
        Sample::durations(&row::VENDOR_CALLS, &labels, durations, CALL_BUCKETS_S)
    };
    ledger.tallies().into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use proxy_volume::{Limits, Spec};
    use serde_json::{Map, json};

    use super::super::Metrics;
    use super::*;

    #[tokio::test]
    async fn calls_of_volumes_are_on_the_page() {
        let options = json!({
            // Nobody listens on the port of discarded bytes.
            "netapp_ontap_endpoint": "https://127.0.0.1:9", "netapp_ontap_user": "u",
            "netapp_ontap_password": "p", "netapp_volume_name": "v",
        });
        let spec = |name: &str, backend: &str, options: Map<_, _>| Spec {
            name: name.to_owned(),
            backend: backend.to_owned(),
            path: PathBuf::from("/"),
            fsprefix: ".".to_owned(),
            options,
        };
        let netapp = spec("n", "netapp", options.as_object().unwrap().clone());
        let specs = vec![netapp, spec("p", "vfs", Map::new())];
        let volumes = Arc::new(Volumes::new(specs, &Limits::default()).unwrap());
        assert!(volumes.find("n").unwrap().metric().await.is_err());
        let metrics = Metrics::new();
        metrics.add_source(Box::new(Vendors::new(volumes)));
        let page = metrics.page();
        for line in [
            "storage_proxy_vendor_up{backend=\"netapp\",volume=\"n\"} 1",
            "storage_proxy_vendor_requests_total{backend=\"netapp\",volume=\"n\"} 4",
            "storage_proxy_vendor_retries_total{backend=\"netapp\",volume=\"n\"} 3",
            "storage_proxy_vendor_call_duration_seconds_count{backend=\"netapp\",\
             operation=\"look-up-volume\",outcome=\"unreachable\",volume=\"n\"} 1",
        ] {
            assert!(page.contains(line), "{line}\nis not on\n{page}");
        }
        assert!(!page.contains("volume=\"p\""), "a plain one asks nobody");
    }
}
