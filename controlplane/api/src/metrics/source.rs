//! Counters that live elsewhere, read when the page is asked for.
//!
//! The data plane counts on its own threads; its requests meet those of this plane here, in the
//! same series. Numbers of the same series from several sources are added up.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::table::{DURATION_BUCKETS_S, MetricRow, REQUEST_LABELS, row};
use super::view::{self, Cause, Endpoints};

/// Requests of one series.
#[derive(Clone, Debug)]
pub struct RequestSeries {
    /// The route.
    pub endpoint: &'static str,
    /// The method.
    pub method: &'static str,
    /// The status.
    pub status: u16,
    /// `domain`, `operation`, `error_detail`.
    pub error: [&'static str; 3],
    /// What status and error do not tell.
    pub cause: Cause,
    /// How many, and how long they took.
    pub durations: Durations,
}

/// A histogram.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// Seconds, all together.
    pub seconds: f64,
    /// How many per bucket, not cumulative; the last is beyond all bounds.
    pub buckets: Vec<u64>,
}

impl Durations {
    /// Counts one of so many seconds.
    pub fn count(&mut self, seconds: f64, bounds: &[f64]) {
        self.buckets.resize(bounds.len() + 1, 0);
        let bucket = bounds.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.unwrap_or(bounds.len())] += 1;
        self.count += 1;
        self.seconds += seconds;
    }
}

/// What a sample holds.
#[derive(Clone, Debug)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram, with its upper bounds.
    Durations(Durations, &'static [f64]),
}

/// One series of a metric.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its row of the table.
    pub row: &'static MetricRow,
    /// Values of its labels, in the order of the row.
    pub labels: Vec<String>,
    /// What it is now.
    pub value: Value,
}

impl Sample {
    /// A number without labels.
    pub fn plain(row: &'static MetricRow, value: u64) -> Self {
        Self::number(row, &[], value as f64)
    }

    /// A number.
    pub fn number(row: &'static MetricRow, labels: &[&str], value: f64) -> Self {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let value = Value::Number(value);
        Self { row, labels, value }
    }

    /// A histogram.
    pub fn durations(
        row: &'static MetricRow,
        labels: &[&str],
        durations: Durations,
        bounds: &'static [f64],
    ) -> Self {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let value = Value::Durations(durations, bounds);
        Self { row, labels, value }
    }
}

/// Another part of the program that counts.
pub trait Source: Send + Sync {
    /// Requests so far.
    fn requests(&self) -> Vec<RequestSeries> {
        Vec::new()
    }

    /// Everything else.
    fn samples(&self) -> Vec<Sample>;
}

/// Adds what `source` counts to `families`.
pub(super) fn add(families: &mut Vec<MetricFamily>, source: &dyn Source, endpoints: Endpoints) {
    for series in source.requests() {
        let told = (series.status, series.error);
        let of = (series.endpoint, series.method);
        add_request(
            families,
            of,
            told,
            series.cause,
            &series.durations,
            endpoints,
        );
    }
    for sample in source.samples() {
        add_sample(families, &sample);
    }
}

/// Adds one sample.
pub(super) fn add_sample(families: &mut Vec<MetricFamily>, sample: &Sample) {
    let row = sample.row;
    assert_eq!(row.labels.len(), sample.labels.len(), "{}", row.name);
    let values: Vec<&str> = sample.labels.iter().map(String::as_str).collect();
    let metric = metric(family(families, row), row.labels, &values);
    match (&sample.value, row.kind) {
        (Value::Durations(durations, bounds), _) => add_durations(metric, durations, bounds),
        (Value::Number(value), "counter") => {
            let mut counter: Counter = metric.get_counter().clone();
            counter.set_value(counter.get_value() + value);
            metric.set_counter(counter);
        }
        (Value::Number(value), _) => {
            let mut gauge: Gauge = metric.get_gauge().clone();
            gauge.set_value(gauge.get_value() + value);
            metric.set_gauge(gauge);
        }
    }
}

/// Adds requests under the wanted names.
pub(super) fn add_request(
    families: &mut Vec<MetricFamily>,
    (endpoint, method): (&str, &str),
    told: view::Told<'_>,
    cause: Cause,
    durations: &Durations,
    endpoints: Endpoints,
) {
    let viewed = view::of(endpoint, method, told, cause);
    let is_viewed = viewed.is_some() && endpoints != Endpoints::Routes;
    if endpoints != Endpoints::Operations || !is_viewed {
        put_request(families, (endpoint, method), told, durations);
    }
    if let Some((endpoint, told)) = viewed.filter(|_| is_viewed) {
        put_request(families, (endpoint, method), told, durations);
    }
}

/// Adds requests under one name.
pub(super) fn put_request(
    families: &mut Vec<MetricFamily>,
    (endpoint, method): (&str, &str),
    (status, [domain, operation, detail]): view::Told<'_>,
    durations: &Durations,
) {
    let status = status.to_string();
    let values = [domain, endpoint, detail, method, operation, &status];
    let metric = self::metric(
        family(families, &row::REQUEST_COUNT),
        REQUEST_LABELS,
        &values,
    );
    let mut counter = metric.get_counter().clone();
    counter.set_value(counter.get_value() + durations.count as f64);
    metric.set_counter(counter);
    let of_durations = family(families, &row::REQUEST_DURATION);
    let metric = self::metric(of_durations, REQUEST_LABELS, &values);
    add_durations(metric, durations, DURATION_BUCKETS_S);
}

fn add_durations(metric: &mut Metric, durations: &Durations, bounds: &[f64]) {
    let mut histogram: Histogram = metric.get_histogram().clone();
    histogram.set_sample_count(histogram.get_sample_count() + durations.count);
    histogram.set_sample_sum(histogram.get_sample_sum() + durations.seconds);
    let before: Vec<u64> = histogram
        .get_bucket()
        .iter()
        .map(Bucket::cumulative_count)
        .collect();
    let mut below = 0;
    let buckets = bounds.iter().enumerate().map(|(index, bound)| {
        below += durations.buckets.get(index).copied().unwrap_or(0);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(before.get(index).copied().unwrap_or(0) + below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    metric.set_histogram(histogram);
}

/// The family of a row, made if there is none.
fn family<'f>(families: &'f mut Vec<MetricFamily>, row: &MetricRow) -> &'f mut MetricFamily {
    let found = families.iter().position(|family| family.name() == row.name);
    let index = found.unwrap_or_else(|| {
        let mut family = MetricFamily::default();
        family.set_name(row.name.to_owned());
        family.set_help(row.help.to_owned());
        family.set_field_type(match row.kind {
            "counter" => MetricType::COUNTER,
            "histogram" => MetricType::HISTOGRAM,
            _ => MetricType::GAUGE,
        });
        families.push(family);
        families.len() - 1
    });
    &mut families[index]
}

/// The metric of these label values, made if there is none.
fn metric<'f>(family: &'f mut MetricFamily, names: &[&str], values: &[&str]) -> &'f mut Metric {
    let same = |metric: &Metric| {
        let labels = metric.get_label();
        labels.len() == values.len()
            && labels
                .iter()
                .zip(values)
                .all(|(label, value)| label.value() == *value)
    };
    let found = family.get_metric().iter().position(same);
    let metrics = family.mut_metric();
    let index = found.unwrap_or_else(|| {
        let labels = names.iter().zip(values).map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        });
        metrics.push(Metric::from_label(labels.collect()));
        metrics.len() - 1
    });
    &mut metrics[index]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Metrics, Request};
    use super::*;

    struct Fixed;

    impl Source for Fixed {
        fn requests(&self) -> Vec<RequestSeries> {
            let mut durations = Durations::default();
            for seconds in [0.0005, 0.0005, 45.0] {
                durations.count(seconds, DURATION_BUCKETS_S);
            }
            vec![RequestSeries {
                endpoint: "/upload",
                method: "PATCH",
                status: 204,
                error: [""; 3],
                cause: Cause::Plain,
                durations,
            }]
        }

        fn samples(&self) -> Vec<Sample> {
            vec![
                Sample::plain(&row::CONNECTIONS, 7),
                Sample::plain(&row::ACCEPTED, 9),
                Sample::number(&row::VOLUME_UP, &["vfs", "v"], 1.0),
            ]
        }
    }

    /// Expects lines, with `LABELS` for those of an upload, and of nothing else with its name.
    #[track_caller]
    fn check(endpoints: Endpoints, there: &[&str], names: &[&str]) {
        let metrics = Metrics::new();
        metrics.set_endpoints(endpoints);
        metrics.answered(&Request {
            endpoint: "/upload",
            method: "PATCH",
            status: 204,
            error: [""; 3],
            duration: Duration::from_millis(20),
        });
        metrics.add_source(Box::new(Fixed));
        let page = metrics.page();
        for name in ["/upload", "/vfolder/upload"] {
            let labels = format!(
                "domain=\"\",endpoint=\"{name}\",error_detail=\"\",method=\"PATCH\",\
                 operation=\"\",status_code=\"204\""
            );
            for line in there {
                let line = line.replace("LABELS", &labels);
                let found = page.lines().any(|of_page| of_page == line);
                assert_eq!(found, names.contains(&name), "{line}\n{page}");
            }
        }
        for line in [
            "storage_proxy_connections 7",
            "storage_proxy_connections_accepted_total 9",
            "storage_proxy_volume_up{backend=\"vfs\",volume=\"v\"} 1",
        ] {
            assert!(page.contains(line), "{line}\nis not on\n{page}");
        }
    }

    #[test]
    fn both_planes_meet_in_one_series_under_the_wanted_names() {
        let lines = [
            "backendai_api_request_count_total{LABELS} 4",
            "backendai_api_request_duration_sec_bucket{LABELS,le=\"0.001\"} 2",
            "backendai_api_request_duration_sec_bucket{LABELS,le=\"0.1\"} 3",
            "backendai_api_request_duration_sec_bucket{LABELS,le=\"1\"} 3",
            "backendai_api_request_duration_sec_bucket{LABELS,le=\"10\"} 3",
            "backendai_api_request_duration_sec_bucket{LABELS,le=\"60\"} 4",
            "backendai_api_request_duration_sec_bucket{LABELS,le=\"+Inf\"} 4",
            "backendai_api_request_duration_sec_count{LABELS} 4",
        ];
        check(Endpoints::Both, &lines, &["/upload", "/vfolder/upload"]);
        check(Endpoints::Routes, &lines, &["/upload"]);
        check(Endpoints::Operations, &lines, &["/vfolder/upload"]);
    }
}
