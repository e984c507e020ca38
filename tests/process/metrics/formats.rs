//! Both text formats, and which clients get which.

use super::{
    page::{CLASSIC, OPENMETRICS, Page},
    tools::{openmetrics_parser, promtool},
};
use crate::support::{Client, Service, wire};

/// A process with requests of every outcome.
fn busy() -> Service {
    let service = Service::start(&["--request-timeout=50ms", "--app-version=1.2.3"]);
    for path in ["/", "/slow?ms=20", "/slow?ms=5000", "/panic", "/nowhere"] {
        let _ = service.get(path);
    }
    service
}

#[test]
fn promtool_accepts_the_classic_page() {
    let page = Page::scrape(busy().internal, CLASSIC);
    assert_eq!(page.content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(!page.text.contains("# EOF") && !page.text.contains("# UNIT"));
    promtool(&["check", "metrics"], &page.text);
}

#[test]
fn an_openmetrics_parser_reads_the_openmetrics_page() {
    let page = Page::scrape(busy().internal, OPENMETRICS);
    assert_eq!(page.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(page.text.ends_with("# EOF\n"));
    openmetrics_parser(&page.text);
}

#[test]
fn both_pages_have_the_same_samples_and_each_family_has_its_metadata() {
    let service = busy();
    let names =
        |page: &Page| page.like("").iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    let (classic, open) =
        (Page::scrape(service.internal, CLASSIC), Page::scrape(service.internal, OPENMETRICS));
    assert_eq!(names(&classic), names(&open));
    for page in [&classic, &open] {
        for (name, family) in page.families() {
            assert!(!family.kind.is_empty() && family.help.len() > 10, "{name}: {family:?}");
            let prefixes = ["lameduck_", "process_", "tokio_"];
            assert!(prefixes.iter().any(|prefix| name.starts_with(prefix)), "{name}");
        }
    }
}

#[test]
fn curl_gets_the_classic_page_which_must_not_be_stored() {
    let service = Service::start(&[]);
    let answer = service.probe("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(
        (answer.header("cache-control"), answer.header("vary")),
        (Some("no-store"), Some("accept"))
    );
    let asked = wire::request(
        service.internal,
        "PUT /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(asked.status, 405);
    let mut client = Client::connect(service.internal);
    client.send(format!(
        "HEAD /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {OPENMETRICS}\r\n\r\n"
    ));
    let head = client.head().expect("a head");
    assert_eq!(
        head.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
}

#[test]
fn the_page_is_not_reachable_from_outside() {
    let service = Service::start(&[]);
    assert_eq!(service.get("/metrics").status, 404);
}
