//! What plain file servers have in common: a path is a file's name, PUT writes it whole.

use crate::call::{Answer, Body, Call, Content, Exchange, Expect, Step};
use crate::fixture::{FileId, Fixture};
use crate::peer::{Reason, Upload, Way};

/// `GET /<name>`.
#[must_use]
pub fn get(fixture: &Fixture, file: FileId) -> Call {
    let found = fixture.file(file);
    Call::get(&format!("/{}", found.name), file, found.bytes)
}

/// `PUT /<target>` with everything, answered by 201: the file is new each time.
///
/// # Errors
/// Another way than one request.
pub fn put(upload: &Upload) -> Result<Box<dyn Exchange>, Reason> {
    if upload.way != Way::Whole {
        return Err(Reason::new("PUT writes a file in one request"));
    }
    let body = Body::File {
        file: upload.source,
        from: 0,
        len: upload.bytes,
    };
    let expect = Expect {
        status: 201,
        content: Content::Kept,
    };
    let target = format!("/{}", upload.target);
    let call = Call::new("PUT", &target, &[], body, expect);
    Ok(Box::new(Single(Some(call))))
}

/// An exchange of one call.
#[derive(Debug)]
struct Single(Option<Call>);

impl Exchange for Single {
    fn next(&mut self, _: &[Answer]) -> Result<Step, String> {
        Ok(self
            .0
            .take()
            .map_or(Step::Done, |call| Step::Calls(vec![call])))
    }
}
