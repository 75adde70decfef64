//! An upload by tus 1.0.0: one call that creates it, then its bytes by PATCH.

use std::net::SocketAddr;

use crate::call::{Answer, Body, Call, Content, Exchange, Expect, Step};
use crate::peer::{Reason, Upload, Way};

/// What PATCH requests are sent to, from the answer to the creating call.
pub type Place = fn(&Answer) -> Result<String, String>;

/// An upload, one request after the other.
#[derive(Debug)]
pub struct Sending {
    create: Option<Call>,
    place: Place,
    upload: Upload,
    /// Known after the creating call.
    target: Option<String>,
    sent: u64,
}

impl Sending {
    /// With the call that creates it, and how its answer names the upload.
    ///
    /// # Errors
    /// Parts at the same time, which tus 1.0.0 alone does not know.
    pub fn new(create: Call, place: Place, upload: &Upload) -> Result<Self, Reason> {
        if matches!(upload.way, Way::Parts(_)) {
            return Err(Reason::new("tus 1.0.0 appends: no parts at the same time"));
        }
        Ok(Self {
            create: Some(create),
            place,
            upload: upload.clone(),
            target: None,
            sent: 0,
        })
    }

    fn patch(&mut self, target: &str) -> Call {
        let (from, left) = (self.sent, self.upload.bytes - self.sent);
        let (len, fresh) = match self.upload.way {
            Way::Whole | Way::Parts(_) => (left, false),
            Way::Chunks { bytes, fresh } => (bytes.min(left), fresh),
        };
        self.sent += len;
        let offset = format!("Upload-Offset: {from}");
        let headers = [
            "Tus-Resumable: 1.0.0",
            offset.as_str(),
            "Content-Type: application/offset+octet-stream",
        ];
        let file = self.upload.source;
        let expect = Expect {
            status: 204,
            content: Content::Kept,
        };
        let body = Body::File { file, from, len };
        let mut call = Call::new("PATCH", target, &headers, body, expect);
        call.fresh = fresh;
        call
    }
}

impl Exchange for Sending {
    fn next(&mut self, answers: &[Answer]) -> Result<Step, String> {
        if let Some(create) = self.create.take() {
            return Ok(Step::Calls(vec![create]));
        }
        let target = match self.target.take() {
            Some(target) => target,
            None => (self.place)(answers.first().ok_or("no answer")?)?,
        };
        if self.sent == self.upload.bytes {
            return Ok(Step::Done);
        }
        let call = self.patch(&target);
        self.target = Some(target);
        Ok(Step::Calls(vec![call]))
    }
}

/// The call that creates an upload session on the manager port of a storage proxy.
#[must_use]
pub fn manager_create(manager: SocketAddr, secret: &str, body: &serde_json::Value) -> Call {
    let auth = format!("X-BackendAI-Storage-Auth-Token: {secret}");
    let headers = [auth.as_str(), "Content-Type: application/json"];
    let body = Body::Bytes(body.to_string().into_bytes().into());
    let expect = Expect {
        status: 200,
        content: Content::Kept,
    };
    let mut call = Call::new("POST", "/folder/file/upload", &headers, body, expect);
    call.to = Some(manager);
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::FileId;

    /// The position and length of each request, as `0+10`.
    fn requests(bytes: u64, way: Way) -> Vec<String> {
        let upload = Upload {
            source: FileId(0),
            bytes,
            target: "up/x".to_owned(),
            way,
        };
        let expect = Expect {
            status: 201,
            content: Content::Kept,
        };
        let create = Call::new("POST", "/files", &[], Body::None, expect);
        let place: Place = |_| Ok("/files/x".to_owned());
        let mut sending = Sending::new(create, place, &upload).expect("a way that it knows");
        let mut seen = Vec::new();
        let mut answers = Vec::new();
        while let Step::Calls(calls) = sending.next(&answers).expect("a step") {
            seen.extend(calls.iter().filter_map(|call| match call.body {
                Body::File { from, len, .. } => Some(format!("{from}+{len}")),
                _ => None,
            }));
            answers = vec![Answer::default()];
        }
        seen
    }

    #[test]
    fn requests_follow_each_other_to_the_last_byte() {
        let chunks = |bytes| Way::Chunks {
            bytes,
            fresh: false,
        };
        for (bytes, way, want) in [
            (25, Way::Whole, &["0+25"][..]),
            (25, chunks(10), &["0+10", "10+10", "20+5"]),
            (20, chunks(10), &["0+10", "10+10"]),
            (5, chunks(10), &["0+5"]),
        ] {
            assert_eq!(requests(bytes, way), want, "{bytes} {way:?}");
        }
    }
}
