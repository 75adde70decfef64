//! One request on its way through a handler: its state, its settings, its JSON.
//!
//! Laws
//! - The body is read whatever the method and the content type say: `GET` and `DELETE` of the
//!   Manager carry JSON.
//! - A body has a limit in bytes and in time, and is never parsed before it is whole.
//! - Parameters belong to one request. The original shares them between requests.
//!
//! Source: contract 2.2 (E6, 413), 3.1, 3.3.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use proxy_core::grammar::{self, Checked};
use proxy_core::problem::{self, Kind, Problem};
use proxy_core::units::MIB;
use serde_json::Value;

use crate::observe::{self, About};
use crate::reply::Failure;
use crate::state::{ApiState, Settings};

/// How much of a body beyond its limit is read and thrown away, so that a client that writes
/// before it reads gets to see the answer.
const BODY_BYTES_DRAINED_MAX: u64 = 8 * MIB;

/// How long a client may take over a body.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// One request.
pub(crate) struct Call {
    /// What all requests share.
    pub(crate) state: ApiState,
    /// The settings as they were when the request began.
    pub(crate) settings: Arc<Settings>,
    headers: HeaderMap,
    body: Body,
    about: About,
}

impl Call {
    /// Takes a request apart.
    pub(crate) fn new(state: ApiState, request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let Parts {
            headers,
            mut extensions,
            ..
        } = parts;
        let about = extensions.remove::<About>().unwrap_or_default();
        let settings = state.settings.load_full();
        Self {
            state,
            settings,
            headers,
            body,
            about,
        }
    }

    /// The name that the caller gave this request, for what comes of it later.
    pub(crate) fn request_id(&self) -> Option<&str> {
        observe::sent_request_id(&self.headers)
    }

    /// Refuses a body, for endpoints without parameters.
    pub(crate) fn without_parameters(&self) -> Result<(), Failure> {
        let length = self
            .headers
            .get(CONTENT_LENGTH)
            .map(|value| value.as_bytes() != b"0");
        if length.unwrap_or(false) || self.headers.contains_key(TRANSFER_ENCODING) {
            return Err(Failure::new(
                problem::malformed_request(),
                "body not allowed",
            ));
        }
        Ok(())
    }

    /// Reads the parameters of a first-generation endpoint: failures are E2.
    pub(crate) async fn parameters(&mut self) -> Result<Checked, Failure> {
        let body = self.read_body().await?;
        let text = match (body.is_empty(), serde_json::from_slice(&body)) {
            (_, Ok(document)) => {
                self.about.note(&self.state, &document);
                return Checked::from_json(document).map_err(Failure::parameters);
            }
            (true, _) => "a JSON body is required".to_owned(),
            (false, Err(error)) => format!("malformed JSON: {error}"),
        };
        Err(Failure::parameters(Value::String(text)))
    }

    /// Reads the parameters of a second-generation endpoint: failures are E1, extras are fine.
    pub(crate) async fn model(&mut self) -> Result<Checked, Failure> {
        let body = self.read_body().await?;
        let malformed = |text: String| Problem::new(Kind::MalformedRequestBody).msg(text).into();
        if body.is_empty() {
            return Err(malformed("a JSON body is required".to_owned()));
        }
        let document: Value = serde_json::from_slice(&body)
            .map_err(|error| malformed(format!("malformed JSON: {error}")))?;
        self.about.note(&self.state, &document);
        Checked::from_json(document)
            .map(Checked::allow_extras)
            .map_err(model_failure)
    }

    async fn read_body(&mut self) -> Result<Bytes, Failure> {
        match tokio::time::timeout(BODY_TIME_MAX, self.read_whole_body()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(
                problem::text(408, "408: Request Timeout"),
                "slow body",
            )),
        }
    }

    async fn read_whole_body(&mut self) -> Result<Bytes, Failure> {
        let most = self.settings.json_bytes_max;
        let mut bytes = BytesMut::new();
        let mut seen = 0u64;
        while let Some(frame) = self.body.frame().await {
            let broken = |_| Failure::new(problem::text(400, "400: Bad Request"), "broken body");
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            seen += data.len() as u64;
            if seen <= most {
                bytes.extend_from_slice(&data);
            } else if seen - most > BODY_BYTES_DRAINED_MAX {
                break;
            }
        }
        if seen <= most {
            return Ok(bytes.freeze());
        }
        let announced = self
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok());
        let actual = announced.and_then(|text| text.parse().ok()).unwrap_or(seen);
        let text = format!("Maximum request body size {most} exceeded, actual body size {actual}");
        Err(Failure::new(problem::text(413, &text), "body too large"))
    }
}

/// The failure of a second-generation endpoint whose document does not fit.
pub(crate) fn model_failure(failures: grammar::Failure) -> Failure {
    let text = match failures {
        Value::String(text) => text,
        failures => failures.to_string(),
    };
    Problem::new(Kind::CommonInvalidAPIParameters)
        .msg(text)
        .into()
}
