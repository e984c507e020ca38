//! P13: what log and phases name as waited for is still under way.

use super::{ObservedRequest, RequestResult, RunHistory};
use crate::trace::Record;
use std::time::Duration;

/// Time in which the host learns of the end of what it sent.
const SOON: Duration = Duration::from_millis(300);

/// Checks that no request is named whose client has long had its whole response, if all requests
/// with its path have ended so.
pub(super) fn only_what_goes_on_is_waited_for(history: &RunHistory<'_>) -> Result<(), String> {
    if history.uses_another_app() || !history.delivers() {
        return Ok(());
    }
    for record in history.server("phase").chain(history.server("log")) {
        for (method, path) in requests_named(record) {
            let may_go_on = |observed: &&ObservedRequest| {
                let own = observed.target.split('?').next() == Some(path);
                let over = matches!(&observed.end, Some((at, RequestResult::Completed(..)))
                    if *at + SOON + history.tolerance() < record.at);
                own && !over && observed.observed <= record.at
            };
            let is_known = method != "GET" || path != "/upgrade";
            if is_known && !history.requests.iter().any(|observed| may_go_on(&observed)) {
                return Err(format!(
                    "{method} {path} was named as waited for at {:?}, and had ended",
                    record.at
                ));
            }
        }
    }
    Ok(())
}

/// Returns method and path of the requests in a list such as `GET /slow (request, 20ms)`.
fn requests_named(record: &Record) -> impl Iterator<Item = (&str, &str)> {
    let named = record.text("waiting_for").unwrap_or_default();
    named.split("), ").filter_map(|entry| {
        let (request, kind) = entry.split_once(" (")?;
        let is_request = kind.starts_with("request,") || kind.starts_with("stream,");
        // A long list is cut.
        request.split_once(' ').filter(|(_, path)| is_request && !path.contains('…'))
    })
}
