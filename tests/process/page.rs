//! The page of the internal server in a real browser: it obeys its own content security policy, its
//! script runs, and its pictures are kept for review.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{Client, Service, is_at_hand, scratch_path};
use std::{fs, path::Path, process::Command};

/// Runs headless Chromium on the page with these flags. Returns what it prints.
fn chromium(service: &Service, flags: &[&str]) -> String {
    let profile = scratch_path("chromium");
    let output = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--disable-background-networking", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(flags)
        .arg(format!("http://{}/", service.internal))
        .output()
        .unwrap();
    let _ = fs::remove_dir_all(profile);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Takes a picture of the page at this size. Keeps it in `target/tmp`.
fn picture(service: &Service, name: &str, size: (u32, u32)) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
    let _ = fs::remove_file(&file);
    let (width, height) = size;
    // Time enough for three updates.
    chromium(
        service,
        &[
            &format!("--screenshot={}", file.display()),
            &format!("--window-size={width},{height}"),
            "--virtual-time-budget=7000",
        ],
    );
    let picture = fs::read(file).unwrap();
    let number = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
    assert_eq!(&picture[1..4], b"PNG");
    assert_eq!((number(16), number(20)), size);
    assert!(picture.len() > 20_000, "{name} is nearly empty: {} bytes", picture.len());
}

#[test]
fn the_page_needs_no_script_and_shows_what_the_status_has() {
    let service = Service::start(&["--app-version=1.4.2"]);
    let mut slow = Client::connect(service.main);
    slow.send_get("/slow?ms=5000");
    service.wait_for_in_flight(1);
    let page = service.probe("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let body = page.body();
    for part in [
        "<h1>serving</h1>",
        "1.4.2",
        "GET /slow",
        "If it were stopped now",
        ">24 s<",
        "no checks",
        "href=\"/metrics\"",
        "href=\"/debug/pprof/\"",
        "<noscript>",
        "timed out",
        "lingering",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    for outside in ["http://", "https://", "//cdn", "src="] {
        assert!(!body.contains(outside), "{outside} is from outside");
    }
    service.terminate();
    let body = service.probe("/").body();
    assert!(body.contains("<h1>lame duck</h1>") && body.contains("The stop in progress"), "{body}");
    assert!(body.contains("not ready: phase is lame_duck"), "{body}");
}

#[test]
fn a_browser_runs_its_script_and_nothing_else() {
    let found = Command::new("chromium").arg("--version").output().is_ok();
    if !is_at_hand("chromium", found) {
        return;
    }
    let service = Service::start(&[]);
    for path in ["/", "/slow?ms=1", "/panic"] {
        service.get(path);
    }
    let shown = chromium(&service, &["--dump-dom", "--virtual-time-budget=7000"]);
    assert!(shown.contains("<body class=\"lives\">"), "the policy allows the script: {shown}");
    assert!(shown.contains("<path d=\"M"), "it was updated, and the counts are drawn: {shown}");
}

#[test]
fn pictures_of_the_page_in_serving_and_in_a_drain_that_waits_for_work() {
    let found = Command::new("chromium").arg("--version").output().is_ok();
    if !is_at_hand("chromium", found) {
        return;
    }
    let service = Service::start(&["--app-version=1.4.2", "--lame-duck=3s", "--drain=60s"]);
    for path in ["/", "/slow?ms=1", "/panic", "/work?ms=600000", "/work?ms=600000", "/big?bytes=9"]
    {
        service.get(path);
    }
    let mut stuck = Client::connect(service.main);
    stuck.send_get("/stuck?ms=600000&head=1");
    service.wait_for_in_flight(1);
    let sizes = [("1280", (1280, 1100)), ("400", (400, 2000))];
    for (name, size) in sizes {
        picture(&service, &format!("serving-{name}"), size);
    }
    service.signal(rustix::process::Signal::TERM);
    service.wait_for_phase("draining");
    for (name, size) in sizes {
        picture(&service, &format!("draining-{name}"), size);
    }
}
