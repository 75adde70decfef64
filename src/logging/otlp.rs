//! Records and spans to an OpenTelemetry collector, over gRPC.
//!
//! Spans are made of the records that tell of finished work (those with `duration_ms` and
//! `operation`): they begin so much earlier. A client's `traceparent` is their parent.
//!
//! Law: what the collector does not take is the exporter's to drop; nothing here waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{BatchLogProcessor, SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider,
};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use tracing::Level;

use super::hub::Counted;
use super::line::level_name;
use super::record::{Record, plain};

/// How long the end waits for the collector.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// What is configured.
pub(super) struct Options {
    pub(super) endpoint: String,
    pub(super) node_id: String,
    pub(super) queue_max: usize,
    pub(super) batch_max: usize,
}

/// An exporter of each kind.
pub(super) struct Otlp {
    logs: SdkLoggerProvider,
    spans: SdkTracerProvider,
    logger: SdkLogger,
    tracer: SdkTracer,
}

impl Otlp {
    /// Called inside a tokio runtime: connections live there.
    ///
    /// # Errors
    /// The endpoint is none.
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        let failed = |error: opentelemetry_otlp::ExporterBuildError| error.to_string();
        let resource = resource(&options.node_id);
        let exporter = opentelemetry_otlp::LogExporter::builder()
            .with_tonic()
            .with_endpoint(&options.endpoint)
            .build()
            .map_err(failed)?;
        let logs = SdkLoggerProvider::builder()
            .with_log_processor(BatchLogProcessor::builder(exporter).build())
            .with_resource(resource.clone())
            .build();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&options.endpoint)
            .build()
            .map_err(failed)?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(options.queue_max)
            .with_max_export_batch_size(options.batch_max.min(options.queue_max))
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config);
        let spans = SdkTracerProvider::builder()
            .with_span_processor(processor.build())
            .with_resource(resource)
            .build();
        Ok(Self {
            logger: logs.logger("storage-proxy"),
            tracer: spans.tracer("storage-proxy"),
            logs,
            spans,
        })
    }

    /// Exports what comes until nothing comes any more.
    pub(super) async fn run(self, mut incoming: Receiver<Arc<Record>>, (_, count): Counted) {
        while let Some(record) = incoming.recv().await {
            let within = self.span(&record);
            self.log(&record, within.as_ref());
            count.written.fetch_add(1, Ordering::Relaxed);
        }
        // Both wait for the collector: not on a thread of the runtime that speaks to it.
        let ended = tokio::task::spawn_blocking(move || {
            // A collector that is gone gets no more.
            let _ = self.logs.shutdown_with_timeout(SHUTDOWN_WAIT);
            let _ = self.spans.shutdown_with_timeout(SHUTDOWN_WAIT);
        });
        drop(ended.await);
    }

    fn log(&self, record: &Record, within: Option<&SpanContext>) {
        let mut out = self.logger.create_log_record();
        out.set_timestamp(at(record));
        out.set_observed_timestamp(SystemTime::now());
        out.set_severity_number(severity(record.level));
        out.set_severity_text(level_name(record.level));
        out.set_target(record.name());
        out.set_body(AnyValue::from(record.message.clone()));
        for (name, value) in &record.fields {
            out.add_attribute(*name, attribute(value));
        }
        if let Some(span) = within {
            let flags = Some(span.trace_flags());
            out.set_trace_context(span.trace_id(), span.span_id(), flags);
        }
        self.logger.emit(out);
    }

    /// The span that a record tells the end of.
    fn span(&self, record: &Record) -> Option<SpanContext> {
        let duration = record.field("duration_ms")?.as_f64()?;
        let operation = record.text("operation")?;
        let begun = at(record).checked_sub(Duration::from_secs_f64(duration.max(0.0) / 1e3))?;
        let parent = record.text("traceparent").and_then(|text| parent(&text));
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let attributes = record
            .fields
            .iter()
            .filter(|(name, _)| *name != "traceparent")
            .map(|(name, value)| KeyValue::new(*name, plain(value)));
        let mut span = self
            .tracer
            .span_builder(operation)
            .with_kind(SpanKind::Server)
            .with_start_time(begun)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &context);
        use opentelemetry::trace::Span as _;
        let status = record.field("status").and_then(Value::as_u64).unwrap_or(0);
        if 500 <= status {
            span.set_status(Status::error(record.text("detail").unwrap_or_default()));
        }
        let made = span.span_context().clone();
        span.end_with_timestamp(at(record));
        Some(made)
    }
}

fn resource(node_id: &str) -> Resource {
    let instance = uuid::Uuid::new_v4().to_string();
    Resource::builder()
        .with_service_name("storage-proxy")
        .with_attributes([
            KeyValue::new("service.version", proxy_core::VERSION),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("service.instance.name", format!("storage-{node_id}")),
        ])
        .build()
}

fn at(record: &Record) -> SystemTime {
    SystemTime::from(record.at)
}

fn attribute(value: &Value) -> AnyValue {
    match value {
        Value::Bool(truth) => AnyValue::from(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => AnyValue::from(integer),
            (None, Some(float)) => AnyValue::from(float),
            (None, None) => AnyValue::from(number.to_string()),
        },
        other => AnyValue::from(plain(other)),
    }
}

const fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Trace,
    }
}

/// `00-<trace>-<span>-<flags>` (W3C Trace Context §3.2).
fn parent(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != "00" || parts.next().is_some() {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parents_are_taken() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        for (text, is_one) in [
            (format!("00-{trace}-b7ad6b7169203331-01"), true),
            (format!("00-{trace}-b7ad6b7169203331-00"), true),
            (format!("01-{trace}-b7ad6b7169203331-01"), false),
            (format!("00-{trace}-0000000000000000-01"), false),
            (format!("00-{trace}-b7ad6b7169203331"), false),
            (String::new(), false),
        ] {
            assert_eq!(parent(&text).is_some(), is_one, "{text}");
        }
    }
}
