//! Which of the two text formats a scraper wants.

use http::{HeaderMap, header};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.0: to whoever asks for it by name.
    OpenMetrics,
    /// The format of Prometheus before it, 0.0.4: to everybody else, people with curl included.
    Classic,
}

impl Format {
    /// What `Accept` asks for. A request that accepts neither gets the classic one: RFC 9110 §12.5.1 allows to disregard the
    /// header, and a page is more use to a scraper than a 406.
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
        // Whoever lists both at the same weight knows the newer one.
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

/// RFC 9110 §12.4.2: at most three digits behind the point. What is no weight asks for nothing.
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
    fn whoever_does_not_ask_for_openmetrics_gets_the_classic_format() {
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
        let two = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(asked(&[two]), Format::OpenMetrics);
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(asked(&[three]), Format::OpenMetrics);
        let protobuf_first = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
                              text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5";
        assert_eq!(asked(&[protobuf_first]), Format::Classic);
        assert_eq!(
            asked(&["application/openmetrics-text;version=0.0.1"]),
            Format::Classic,
            "that one we do not write"
        );
    }

    #[test]
    fn a_weight_of_nought_is_a_refusal_and_several_headers_are_one_list() {
        assert_eq!(asked(&["application/openmetrics-text;q=0"]), Format::Classic);
        assert_eq!(asked(&["application/openmetrics-text;q=0.000, */*"]), Format::Classic);
        assert_eq!(asked(&["application/openmetrics-text;q=many"]), Format::Classic);
        assert_eq!(
            asked(&["text/plain;q=0.5", "Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.6"]),
            Format::OpenMetrics
        );
    }
}
