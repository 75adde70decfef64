//! Requests under the names that the specification's queries use.
//!
//! Law: under these names, too, a request is counted at most once.

/// Which names of endpoints are on the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Endpoints {
    /// Under its operation if it has one, else under its route.
    #[default]
    Operations,
    /// Under its route.
    Routes,
    /// Every request under its route, and again under its operation.
    Both,
}

impl Endpoints {
    /// The words of the configuration.
    pub fn parse(text: &str) -> Self {
        match text {
            "routes" => Self::Routes,
            "both" => Self::Both,
            _ => Self::Operations,
        }
    }
}

/// Why a request failed, where its status and code leave that open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// They say it all.
    #[default]
    Plain,
    /// Its token was refused.
    Token,
    /// A quota is used up.
    Quota,
    /// The volume did not answer in time.
    Timeout,
}

/// Status and error labels of one series.
pub(super) type Told<'a> = (u16, [&'a str; 3]);

const UPLOAD: &str = "/vfolder/upload";
const DOWNLOAD: &str = "/vfolder/download";
const CREATE: &str = "/vfolder/create";
const LIST: &str = "/vfolder/list";
const AUTH: &str = "/vfolder/auth";

const REFUSED: Told<'static> = (401, ["user", "auth", "unauthorized"]);
const QUOTA: Told<'static> = (403, ["vfolder", "update", "quota-exceeded"]);
const TIMEOUT: Told<'static> = (504, ["storage", "access", "timeout"]);
const FAILED: Told<'static> = (500, ["backendai", "generic", "internal-error"]);

/// Series that are there from the start: what has not happened is zero, not absent.
pub(super) const FROM_START: &[(&str, &str, &[Told<'static>])] = &[
    (
        UPLOAD,
        "PATCH",
        &[(204, NONE), REFUSED, QUOTA, FAILED, TIMEOUT],
    ),
    (
        DOWNLOAD,
        "GET",
        &[(200, NONE), (206, NONE), REFUSED, FAILED, TIMEOUT],
    ),
    (
        CREATE,
        "POST",
        &[(204, NONE), REFUSED, QUOTA, FAILED, TIMEOUT],
    ),
    (LIST, "POST", &[(200, NONE), REFUSED, FAILED, TIMEOUT]),
    (AUTH, "GET", &[REFUSED]),
];

const NONE: [&str; 3] = [""; 3];

/// The name of the operation that a request was, with its outcome; `None` when it has none.
pub(super) fn of<'a>(
    endpoint: &str,
    method: &str,
    told: Told<'a>,
    cause: Cause,
) -> Option<(&'static str, Told<'a>)> {
    let name = match (endpoint, method) {
        ("/upload", "PATCH" | "PUT" | "POST") => UPLOAD,
        ("/download" | "/download-archive", "GET") => DOWNLOAD,
        ("/folder/create", "POST") => CREATE,
        ("/folder/file/list", "POST") => LIST,
        _ if cause == Cause::Token => AUTH,
        _ => return None,
    };
    let told = match cause {
        Cause::Plain => told,
        Cause::Token => REFUSED,
        Cause::Quota => QUOTA,
        Cause::Timeout => TIMEOUT,
    };
    Some((name, told))
}

/// What the labels of the control plane's own answers tell of the cause.
pub(super) fn cause((status, error): Told<'_>) -> Cause {
    match (status, error) {
        // The only answers of 403 without a code are those of the gate.
        (403, ["", "", ""]) => Cause::Token,
        (507, ["vfolder", "update", "forbidden"]) => Cause::Quota,
        (503, ["storage", "access", "unavailable"]) => Cause::Timeout,
        _ => Cause::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_names_and_causes_have_statuses() {
        let told = (507, ["vfolder", "update", "forbidden"]);
        for (endpoint, method, cause, want) in [
            ("/upload", "PATCH", Cause::Plain, Some((UPLOAD, told))),
            ("/upload", "PATCH", Cause::Quota, Some((UPLOAD, QUOTA))),
            ("/upload", "HEAD", Cause::Plain, None),
            ("/upload", "HEAD", Cause::Token, Some((AUTH, REFUSED))),
            ("/download", "GET", Cause::Token, Some((DOWNLOAD, REFUSED))),
            (
                "/download-archive",
                "GET",
                Cause::Timeout,
                Some((DOWNLOAD, TIMEOUT)),
            ),
            ("/folder/create", "POST", Cause::Plain, Some((CREATE, told))),
            (
                "/folder/file/list",
                "POST",
                Cause::Plain,
                Some((LIST, told)),
            ),
            ("/quota-scope", "GET", Cause::Plain, None),
            ("/quota-scope", "GET", Cause::Token, Some((AUTH, REFUSED))),
        ] {
            assert_eq!(
                of(endpoint, method, told, cause),
                want,
                "{method} {endpoint} {cause:?}"
            );
        }
    }
}
