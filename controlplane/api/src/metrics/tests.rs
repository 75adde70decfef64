//! The page as a whole, and the reference made from its table.

use super::*;

#[test]
fn the_page_has_the_originals_series() {
    let metrics = Metrics::new();
    metrics.set_endpoints(Endpoints::Routes);
    for (endpoint, status, error) in [
        ("/folder/create", 204, ["", "", ""]),
        ("/folder/usage", 404, ["vfolder", "read", "not-found"]),
        ("unmatched", 404, ["backendai", "generic", "internal-error"]),
    ] {
        let duration = Duration::from_millis(20);
        metrics.answered(&Request {
            endpoint,
            method: "POST",
            status,
            error,
            duration,
        });
    }
    let page = metrics.page();
    for line in [
        "backendai_api_request_count_total{domain=\"\",endpoint=\"/folder/create\",\
         error_detail=\"\",method=\"POST\",operation=\"\",status_code=\"204\"} 1",
        "backendai_api_request_count_total{domain=\"vfolder\",endpoint=\"/folder/usage\",\
         error_detail=\"not-found\",method=\"POST\",operation=\"read\",status_code=\"404\"} 1",
        "backendai_api_request_duration_sec_bucket{domain=\"\",endpoint=\"/folder/create\",\
         error_detail=\"\",method=\"POST\",operation=\"\",status_code=\"204\",le=\"0.01\"} 0",
        "backendai_api_request_duration_sec_bucket{domain=\"\",endpoint=\"/folder/create\",\
         error_detail=\"\",method=\"POST\",operation=\"\",status_code=\"204\",le=\"0.1\"} 1",
    ] {
        assert!(page.contains(line), "{line}\nis not on\n{page}");
    }
    for row in [row::CPU_PERCENT, row::MEMORY_RSS, row::MEMORY_VMS] {
        assert!(page.contains(&format!("# TYPE {} {}", row.name, row.kind)));
    }
}

#[test]
fn names_say_their_kind_and_are_there_once() {
    let mut names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len());
    for row in TABLE {
        assert_eq!(
            row.kind == "counter",
            row.name.ends_with("_total"),
            "{}",
            row.name
        );
        let mut labels = row.labels.to_vec();
        labels.sort_unstable();
        assert_eq!(labels, row.labels, "labels of {} stand in order", row.name);
    }
}

#[test]
fn methods_are_a_closed_set() {
    for (method, want) in [("GET", "GET"), ("get", "OTHER"), ("PROPFIND", "OTHER")] {
        assert_eq!(method_label(method), want);
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, reference()).expect("the page is written");
    }
    let page = std::fs::read_to_string(path).expect("docs/metrics.md");
    let hint = "stale: UPDATE_DOCS=1 cargo test -p proxy-api metrics";
    assert!(page == reference(), "{hint}");
}
