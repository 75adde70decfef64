//! Faults on demand: what goes wrong, with which requests, how often.

use std::time::Duration;

use parking_lot::Mutex;

use crate::Request;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The vendor's error of this status, with nothing done.
    Status(u16),
    /// As [`What::Status`], with `Retry-After` in seconds.
    Throttle(u16, u64),
    /// The answer comes later; what was asked is done after the delay.
    Delay(Duration),
    /// The connection breaks, with nothing done.
    Drop,
    /// What was asked is done, and then the connection breaks without an answer.
    DropAfter,
    /// All sessions are forgotten before the request is looked at.
    Expire,
    /// Status 200 with a page for people instead of JSON; nothing is done.
    Garbage,
    /// Status 200 with a JSON text of so many bytes; nothing is done.
    Huge(usize),
}

/// One fault. Made by [`Fault::new`], narrowed by the other functions.
#[derive(Clone, Debug)]
pub struct Fault {
    what: What,
    method: &'static str,
    path: String,
    skip: usize,
    times: usize,
}

impl Fault {
    /// Befalls the next request, whatever it is.
    pub fn new(what: What) -> Self {
        Self {
            what,
            method: "",
            path: String::new(),
            skip: 0,
            times: 1,
        }
    }

    /// Only requests with this method, and with this in their path.
    #[must_use]
    pub fn on(mut self, method: &'static str, path: &str) -> Self {
        self.method = method;
        path.clone_into(&mut self.path);
        self
    }

    /// Lets so many matching requests pass first.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// Befalls so many matching requests.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Befalls every matching request until the simulator is healed.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    fn matches(&self, request: &Request) -> bool {
        let method_fits = self.method.is_empty() || self.method == request.method;
        method_fits && request.path.contains(&self.path)
    }
}

/// The faults to come.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(crate) fn add(&self, fault: Fault) {
        self.0.lock().push(fault);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    /// What befalls this request: the oldest fault that matches and is ripe.
    pub(crate) fn strike(&self, request: &Request) -> Option<What> {
        let mut faults = self.0.lock();
        let mut struck = None;
        for fault in faults.iter_mut().filter(|fault| fault.matches(request)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if struck.is_none() {
                fault.times = fault.times.saturating_sub(1);
                struck = Some(fault.what.clone());
            }
        }
        faults.retain(|fault| fault.times > 0);
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_whom_they_are_for() {
        let faults = Faults::default();
        faults.add(
            Fault::new(What::Drop)
                .on("POST", "/qtrees")
                .after(1)
                .times(2),
        );
        faults.add(Fault::new(What::Status(500)));
        for (method, path, want) in [
            ("GET", "/api/qtrees", Some(What::Status(500))),
            ("POST", "/api/qtrees", None),
            ("GET", "/api/qtrees", None),
            ("POST", "/api/jobs", None),
            ("POST", "/api/qtrees", Some(What::Drop)),
            ("POST", "/api/qtrees/7", Some(What::Drop)),
            ("POST", "/api/qtrees", None),
        ] {
            let request = Request {
                method: method.to_owned(),
                path: path.to_owned(),
                ..Request::default()
            };
            assert_eq!(faults.strike(&request), want, "{method} {path}");
        }
    }
}
