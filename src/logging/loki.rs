//! Records straight to Grafana Loki, over its JSON push API.
//!
//! Laws
//! - Labels are few and closed: `service_name`, `node`, `level`, `backend`, `operation`, and what
//!   the operator adds. What is many (`vfolder_id`, `request_id`) is structured metadata.
//! - A Loki without structured metadata gets the same records without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::line::{Form, level_name, write_line};
use super::record::Record;
use super::ship::{Refusal, Ship};

/// Fields of a record that are searched for without reading its line.
const METADATA: [&str; 3] = ["vfolder_id", "request_id", "volume"];

/// One Loki.
pub(super) struct Loki {
    pub(super) client: reqwest::Client,
    pub(super) url: String,
    pub(super) tenant: Option<String>,
    pub(super) login: Option<(String, String)>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) vfolder_id_label: bool,
    /// Whether it takes structured metadata, as far as we know.
    pub(super) with_metadata: bool,
}

impl Loki {
    fn body(&self, batch: &[Arc<Record>]) -> Value {
        let mut streams: BTreeMap<BTreeMap<String, String>, Vec<Value>> = BTreeMap::new();
        for record in batch {
            let values = streams.entry(self.labels(record)).or_default();
            values.push(self.entry(record));
        }
        let streams: Vec<Value> = streams
            .into_iter()
            .map(|(stream, values)| json!({"stream": stream, "values": values}))
            .collect();
        json!({ "streams": streams })
    }

    fn labels(&self, record: &Record) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert("level".into(), level_name(record.level).to_lowercase());
        let promoted = self.vfolder_id_label.then_some("vfolder_id");
        for name in ["backend", "operation"].into_iter().chain(promoted) {
            labels.extend(record.text(name).map(|text| (name.to_owned(), text)));
        }
        labels
    }

    fn entry(&self, record: &Record) -> Value {
        let mut line = String::new();
        write_line(record, Form::Json, &mut line);
        let at = record.at.as_nanosecond().to_string();
        let line = line.trim_end();
        if !self.with_metadata {
            return json!([at, line]);
        }
        let known = METADATA
            .iter()
            .filter(|name| !(self.vfolder_id_label && **name == "vfolder_id"));
        let metadata: Map<String, Value> = known
            .filter_map(|name| Some(((*name).to_owned(), record.text(name)?.into())))
            .collect();
        if metadata.is_empty() {
            return json!([at, line]);
        }
        json!([at, line, metadata])
    }
}

#[async_trait]
impl Ship for Loki {
    async fn ship(&mut self, batch: &[Arc<Record>]) -> Result<(), Refusal> {
        let later = |error: reqwest::Error| Refusal::Later(error.without_url().to_string());
        loop {
            let mut request = self.client.post(&self.url).json(&self.body(batch));
            if let Some(tenant) = &self.tenant {
                request = request.header("X-Scope-OrgID", tenant);
            }
            if let Some((user, password)) = &self.login {
                request = request.basic_auth(user, Some(password));
            }
            let answer = request.send().await.map_err(later)?;
            let status = answer.status();
            if status.is_success() {
                return Ok(());
            }
            let mut text = answer.text().await.unwrap_or_default();
            if self.with_metadata && status == 400 && text.contains("structured metadata") {
                self.with_metadata = false;
                continue;
            }
            text.truncate(text.floor_char_boundary(200));
            let why = format!("{status}: {text}");
            return Err(match status.as_u16() {
                408 | 429 | 500.. => Refusal::Later(why),
                _ => Refusal::Never(why),
            });
        }
    }
}
