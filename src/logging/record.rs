//! One log record: an event with the fields of the spans around it.
//!
//! Law: fields of the event go before those of its spans, inner spans before outer ones.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::hub::Hub;

/// One record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) at: Timestamp,
    pub(super) level: Level,
    /// The Rust module it comes from.
    pub(super) target: String,
    /// Source file and line.
    pub(super) place: (&'static str, u32),
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let meta = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        Self {
            at: Timestamp::now(),
            level: *meta.level(),
            target: meta.target().to_owned(),
            place: (meta.file().unwrap_or(""), meta.line().unwrap_or(0)),
            message: fields.message,
            fields: fields.all,
        }
    }

    /// The logger's name.
    pub(super) fn name(&self) -> String {
        super::logger(&self.target)
    }

    /// A field.
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        let mut fields = self.fields.iter();
        fields
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// A field's text; numbers as they are written.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.field(name).map(plain)
    }

    fn inherit(&mut self, fields: &[(&'static str, Value)]) {
        for (name, value) in fields {
            if self.field(name).is_none() {
                self.fields.push((name, value.clone()));
            }
        }
    }
}

/// A value without the quotes of JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Collects fields.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    all: Vec<(&'static str, Value)>,
}

impl Fields {
    fn keep(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                // Recorded again, a field of a span has its last value.
                self.all.retain(|(known, _)| *known != name);
                self.all.push((name, value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }
}

/// Makes records of events and gives them to the hub.
pub(super) struct Recorder(pub(super) Hub);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut record = Record::of(event);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                record.inherit(&fields.all);
            }
        }
        self.0.give(record);
    }
}

/// Lets events through by their logger, and all spans of ours: they carry fields, not news.
pub(super) struct Pass(pub(super) Targets);

impl Pass {
    fn passes(&self, meta: &Metadata<'_>) -> bool {
        let is_ours = |target: &str| target.starts_with("proxy_") || target.starts_with("storage_");
        if meta.is_span() {
            return *meta.level() <= Level::INFO && is_ours(meta.target());
        }
        self.0.would_enable(meta.target(), meta.level())
    }
}

impl<S> Filter<S> for Pass {
    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.passes(meta)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        if self.passes(meta) {
            tracing::subscriber::Interest::always()
        } else {
            tracing::subscriber::Interest::never()
        }
    }
}
