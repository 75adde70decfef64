//! Goal: what the clients in Go asked, which are not to be had from every registry, is answered as
//! it was when they were content.
//! Method: recordings of their runs (`clients/go`) are asked again; statuses are the same, and the
//! answers have everything that they had.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;

use proxy_simulators::{Simulator, Vendor, gpfs, hammerspace, recording};

fn replay<V: Vendor>(text: &str, make: fn(&Path) -> V) {
    let home = tempfile::tempdir().unwrap();
    let mount = home.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let sim = Simulator::start(make(&mount), home.path());
    let steps = recording::steps(text, &mount);
    assert!(30 < steps.len(), "{} steps", steps.len());
    for (number, step) in steps.iter().enumerate() {
        let request = &step.request;
        // The script wrote files past the interface, which it looked at after that.
        if let ("/mgmt/v1.2/rest/files", 200) = (request.path.as_str(), step.status) {
            let file = mount.join(request.query("path").unwrap().trim_start_matches('/'));
            if !file.exists() {
                std::fs::write(file, "x").unwrap();
            }
        }
        let answer = sim.answer(request.clone());
        let at = format!("step {number}: {} {}", request.method, request.path);
        assert_eq!(answer.status, step.status, "{at}: {:?}", answer.body);
        assert_eq!(recording::lost(&answer.body, &step.shape, ""), None, "{at}");
    }
    println!("{}: {} requests as recorded", V::NAME, steps.len());
}

#[test]
fn ibms_driver_is_answered_as_when_it_was_content() {
    replay(include_str!("../clients/go/gpfs.recorded"), gpfs::Gpfs::new);
}

#[test]
fn hammerspaces_driver_is_answered_as_when_it_was_content() {
    let text = include_str!("../clients/go/hammerspace.recorded");
    replay(text, hammerspace::Hammerspace::new);
}
