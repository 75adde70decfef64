//! PUT: a part of a session, at its place.

use proxy_core::problem::{Kind, Problem};
use proxy_transfer::Source;
use proxy_transfer::parts::{self, PartRequest};
use proxy_wire::head::RequestHead;
use proxy_wire::part::{self, PartError};

use super::answer::{Asked, outcome};
use super::checked::Checked;
use super::ledger::SessionLedger;
use super::{Request, bad};
use crate::body::Body;
use crate::reply::Reply;

/// See [`super::put`].
pub(super) async fn answer(
    request: &Request<'_>,
    head: &RequestHead,
    place: &[u8],
    body: &mut Body<'_>,
) -> Result<Reply, Reply> {
    let size = request.size().get();
    let extent = part::parse_content_range(place, size).map_err(refused)?;
    if let Some(length) = body.remaining()
        && length != extent.len()
    {
        let text = format!(
            "the body has {length} bytes, its Content-Range {}",
            extent.len()
        );
        return Err(Problem::new(Kind::InvalidDataLength).msg(text).into());
    }
    let sessions = SessionLedger {
        request,
        part: None,
    };
    if request.volume.late_quota {
        request
            .fits(body.remaining(), request.offset().await?)
            .await?;
    }
    let mut body = Checked::new(head, body)?;
    let wanted = PartRequest {
        extent,
        reserve: request.volume.reserves,
    };
    let written = parts::part(&request.thread.staging, &mut body, &sessions, wanted).await;
    outcome(request, Asked::Part, written).await
}

fn refused(error: PartError) -> Reply {
    match error {
        PartError::Malformed => bad(error.to_string()),
        PartError::Outside { size } => {
            let problem = Problem::new(Kind::UploadRangeOutside).msg(error.to_string());
            let mut reply = Reply::from(problem);
            reply.head.push("Content-Range", format!("bytes */{size}"));
            reply
        }
    }
}
