//! Counters that live elsewhere, read when the page is asked for.
//!
//! The data plane counts on its own threads; its requests meet those of this plane here, in the
//! same series.

use prometheus::proto::{
    Bucket, Counter, Gauge as GaugeValue, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::{DURATION_BUCKETS_S, REQUEST_COUNT, REQUEST_DURATION, REQUEST_LABELS};

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
    /// How many.
    pub count: u64,
    /// Seconds, all together.
    pub seconds: f64,
    /// How many per bucket of the request durations, not cumulative; the last is beyond all.
    pub buckets: Vec<u64>,
}

/// One number without labels.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// Name on the page.
    pub name: &'static str,
    /// Help on the page.
    pub help: &'static str,
    /// The value now.
    pub value: u64,
}

/// Another part of the program that counts.
pub trait Source: Send + Sync {
    /// Requests so far.
    fn requests(&self) -> Vec<RequestSeries>;
    /// Numbers that go up and down.
    fn gauges(&self) -> Vec<Gauge>;
    /// Numbers that only go up; their names end in `_total`.
    fn counters(&self) -> Vec<Gauge>;
}

/// Adds what `source` counts to `families`.
pub(super) fn add(families: &mut Vec<MetricFamily>, source: &dyn Source) {
    for series in source.requests() {
        add_request(families, &series);
    }
    for gauge in source.gauges() {
        let mut value = GaugeValue::default();
        value.set_value(as_float(gauge.value));
        let mut metric = Metric::default();
        metric.set_gauge(value);
        family(families, gauge.name, gauge.help, MetricType::GAUGE)
            .mut_metric()
            .push(metric);
    }
    for counter in source.counters() {
        let mut value = Counter::default();
        value.set_value(as_float(counter.value));
        let mut metric = Metric::default();
        metric.set_counter(value);
        let family = family(families, counter.name, counter.help, MetricType::COUNTER);
        family.mut_metric().push(metric);
    }
    families.sort_by(|a, b| a.name().cmp(b.name()));
}

/// Floats are what the page holds; counts stay exact up to 2^53.
fn as_float(value: u64) -> f64 {
    value as f64
}

fn add_request(families: &mut Vec<MetricFamily>, series: &RequestSeries) {
    let status = series.status.to_string();
    let [domain, operation, detail] = series.error;
    let values = [
        domain,
        series.endpoint,
        detail,
        series.method,
        operation,
        status.as_str(),
    ];
    let row = REQUEST_COUNT;
    let metric = metric(
        family(families, row.name, row.help, MetricType::COUNTER),
        &values,
    );
    let mut counter = metric.get_counter().clone();
    counter.set_value(counter.get_value() + as_float(series.count));
    metric.set_counter(counter);

    let row = REQUEST_DURATION;
    let metric = self::metric(
        family(families, row.name, row.help, MetricType::HISTOGRAM),
        &values,
    );
    let mut histogram = metric.get_histogram().clone();
    add_durations(&mut histogram, series);
    metric.set_histogram(histogram);
}

fn add_durations(histogram: &mut Histogram, series: &RequestSeries) {
    histogram.set_sample_count(histogram.get_sample_count() + series.count);
    histogram.set_sample_sum(histogram.get_sample_sum() + series.seconds);
    let before: Vec<u64> = histogram
        .get_bucket()
        .iter()
        .map(Bucket::cumulative_count)
        .collect();
    let mut below = 0;
    let buckets = DURATION_BUCKETS_S.iter().enumerate().map(|(index, bound)| {
        below += series.buckets.get(index).copied().unwrap_or(0);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(before.get(index).copied().unwrap_or(0) + below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
}

fn family<'f>(
    families: &'f mut Vec<MetricFamily>,
    name: &str,
    help: &str,
    kind: MetricType,
) -> &'f mut MetricFamily {
    let found = families.iter().position(|family| family.name() == name);
    let index = found.unwrap_or_else(|| {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        families.push(family);
        families.len() - 1
    });
    &mut families[index]
}

/// The metric of these label values, made if there is none.
fn metric<'f>(family: &'f mut MetricFamily, values: &[&str; 6]) -> &'f mut Metric {
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
        let labels = REQUEST_LABELS.iter().zip(values).map(|(name, value)| {
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
            let mut buckets = vec![0; DURATION_BUCKETS_S.len() + 1];
            buckets[0] = 2;
            buckets[9] = 1;
            let (count, seconds) = (3, 40.5);
            let error = [""; 3];
            vec![RequestSeries {
                endpoint: "/",
                method: "GET",
                status: 200,
                error,
                count,
                seconds,
                buckets,
            }]
        }
        fn gauges(&self) -> Vec<Gauge> {
            vec![Gauge {
                name: "a_gauge",
                help: "help",
                value: 7,
            }]
        }
        fn counters(&self) -> Vec<Gauge> {
            vec![Gauge {
                name: "a_total",
                help: "help",
                value: 9,
            }]
        }
    }

    #[test]
    fn both_planes_meet_in_one_series() {
        let metrics = Metrics::new();
        let (endpoint, method, status) = ("/", "GET", 200);
        let duration = Duration::from_millis(20);
        metrics.answered(&Request {
            endpoint,
            method,
            status,
            error: [""; 3],
            duration,
        });
        metrics.add_source(Box::new(Fixed));
        let page = metrics.page();
        let labels = "domain=\"\",endpoint=\"/\",error_detail=\"\",method=\"GET\",operation=\"\",\
                      status_code=\"200\"";
        for line in [
            format!("backendai_api_request_count_total{{{labels}}} 4"),
            format!("backendai_api_request_duration_sec_bucket{{{labels},le=\"0.001\"}} 2"),
            format!("backendai_api_request_duration_sec_bucket{{{labels},le=\"0.1\"}} 3"),
            format!("backendai_api_request_duration_sec_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("backendai_api_request_duration_sec_count{{{labels}}} 4"),
            "a_gauge 7".to_owned(),
            "a_total 9".to_owned(),
        ] {
            assert!(page.contains(&line), "{line}\nis not on\n{page}");
        }
    }
}
