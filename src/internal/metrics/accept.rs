//! Selects one of the two text formats for a scraper.

use http::{HeaderMap, header};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.0: for requests that accept it by name.
    OpenMetrics,
    /// The older format of Prometheus, 0.0.4: for all other requests, such as curl's.
    Classic,
}

impl Format {
    /// Selects the format from `Accept`. A request that accepts neither gets the classic format.
    /// RFC 9110 §12.5.1 permits ignoring the header, and a page is more useful to a scraper than a
    /// 406.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut open = 0;
        let mut classic = 0;
        for value in headers.get_all(header::ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',').filter_map(Range::of) {
                match range.media.as_str() {
                    "application/openmetrics-text"
                        if matches!(range.version.as_deref(), None | Some("1.0.0")) =>
                    {
                        open = open.max(range.weight);
                    }
                    "text/plain" if matches!(range.version.as_deref(), None | Some("0.0.4")) => {
                        classic = classic.max(range.weight);
                    }
                    _ => {}
                }
            }
        }
        // At equal weights the newer format wins.
        if open > 0 && open >= classic { Self::OpenMetrics } else { Self::Classic }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One of the media ranges of an `Accept` header.
#[derive(Debug)]
struct Range {
    media: String,
    version: Option<String>,
    /// In thousandths.
    weight: u16,
}

impl Range {
    fn of(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|media| !media.is_empty())?.to_ascii_lowercase();
        let mut range = Self { media, version: None, weight: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value.to_owned()),
                "q" => range.weight = weight(value),
                _ => {}
            }
        }
        Some(range)
    }
}

/// RFC 9110 §12.4.2: at most three digits after the point. An invalid weight counts as 0.
fn weight(text: &str) -> u16 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_weight = matches!(whole, "0" | "1")
        && part.len() <= 3
        && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_weight {
        return 0;
    }
    let thousandths = format!("{whole}{part:0<3}").parse::<u16>().unwrap_or(0);
    thousandths.min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        Format::of(&headers)
    }

    #[test]
    fn a_request_that_does_not_accept_openmetrics_gets_the_classic_format() {
        for accept in [
            &[][..],
            &["*/*"],
            &["text/html, */*;q=0.1"],
            &["text/plain"],
            &["application/json"],
            &["", ",;=,"],
        ] {
            assert_eq!(asked(accept), Format::Classic, "{accept:?}");
        }
    }

    #[test]
    fn prometheus_of_any_age_gets_what_it_prefers() {
        let two = "application/openmetrics-text;version=1.0.0,\
                   application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(asked(&[two]), Format::OpenMetrics);
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                     text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(asked(&[three]), Format::OpenMetrics);
        let protobuf_first = "application/vnd.google.protobuf;\
                              proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
                              text/plain;version=0.0.4;q=0.6,\
                              application/openmetrics-text;version=1.0.0;q=0.5";
        assert_eq!(asked(&[protobuf_first]), Format::Classic);
        assert_eq!(
            asked(&["application/openmetrics-text;version=0.0.1"]),
            Format::Classic,
            "that one we do not write"
        );
    }

    #[test]
    fn a_weight_of_zero_is_a_refusal_and_several_headers_are_one_list() {
        assert_eq!(asked(&["application/openmetrics-text;q=0"]), Format::Classic);
        assert_eq!(asked(&["application/openmetrics-text;q=0.000, */*"]), Format::Classic);
        assert_eq!(asked(&["application/openmetrics-text;q=many"]), Format::Classic);
        assert_eq!(
            asked(&["text/plain;q=0.5", "Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.6"]),
            Format::OpenMetrics
        );
    }
}
