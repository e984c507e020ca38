//! A parser for a page of metrics, by the rules of the formats and independent of the code that
//! writes it.

#![expect(clippy::unwrap_used, reason = "a page that cannot be read should fail the test")]

use crate::support::{Client, wire};
use std::{collections::BTreeMap, net::SocketAddr};

pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4";

/// A parsed page.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) text: String,
    pub(crate) content_type: String,
    samples: BTreeMap<String, f64>,
}

/// The metadata of a family of samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: String,
}

impl Page {
    /// Requests the page with this `accept` header.
    pub(crate) fn scrape(internal: SocketAddr, accept: &str) -> Self {
        let mut client = Client::connect(internal);
        client.send(format!(
            "GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\
             connection: close\r\n\r\n"
        ));
        Self::of(&client.answer())
    }

    pub(crate) fn of(answer: &wire::Answer) -> Self {
        assert_eq!(answer.status, 200);
        let text = answer.body();
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let before = samples.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{name} is there twice");
        }
        Self { text, content_type: answer.header("content-type").unwrap().to_owned(), samples }
    }

    /// Returns a sample by its name and labels as written, without the prefix `lameduck_`.
    #[track_caller]
    pub(crate) fn of_host(&self, sample: &str) -> f64 {
        self.try_sample(&format!("lameduck_{sample}"))
            .unwrap_or_else(|| panic!("no {sample} in {}", self.text))
    }

    pub(crate) fn try_sample(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }

    /// Returns the samples whose name, with labels, begins with `begin`.
    pub(crate) fn like(&self, begin: &str) -> Vec<(&str, f64)> {
        let like = self.samples.iter().filter(|(name, _)| name.starts_with(begin));
        like.map(|(name, value)| (name.as_str(), *value)).collect()
    }

    /// Returns the families by their names on the page.
    pub(crate) fn families(&self) -> BTreeMap<String, Family> {
        let mut families = BTreeMap::<String, Family>::new();
        for line in self.text.lines().filter_map(|line| line.strip_prefix("# ")) {
            let Some((what, (name, said))) =
                line.split_once(' ').and_then(|(what, rest)| Some((what, rest.split_once(' ')?)))
            else {
                assert_eq!(line, "EOF");
                continue;
            };
            let family = families.entry(name.to_owned()).or_default();
            match what {
                "HELP" => said.clone_into(&mut family.help),
                "TYPE" => said.clone_into(&mut family.kind),
                "UNIT" => family.unit = Some(said.to_owned()),
                other => panic!("{other:?} is nothing that is said of a family"),
            }
        }
        families
    }
}
