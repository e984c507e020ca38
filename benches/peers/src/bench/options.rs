//! Options: the measures, the servers, and the duration.

use crate::{
    Result,
    measure::{MEASURES, Measure},
    peer::{PEERS, Peer},
};

pub const USAGE: &str = "bench [SERVER…] [--only MEASURE[,MEASURE…]] [--rounds N] [--seconds N] [--connections N] [--quick]
      [--json FILE] [--plot FILE.svg] [--from FILE.json]

--only         these measures; all if it is not said
--rounds       through all servers, 3; some measures are not worth as many
--seconds      of each load, 2
--connections  that are idle, 10000; it takes 100 descriptors more
--quick        one round of one second, 1000 connections: does it work?
--json         writes all numbers
--plot         draws some of them
--from         measures nothing: prints and draws what --json wrote";

pub struct Options {
    pub rounds: usize,
    pub seconds: u64,
    pub connections: usize,
    pub measures: Vec<&'static Measure>,
    pub peers: Vec<&'static Peer>,
    pub json: Option<String>,
    pub plot: Option<String>,
    pub from: Option<String>,
}

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            rounds: 3,
            seconds: 2,
            connections: 10_000,
            measures: MEASURES.iter().collect(),
            peers: Vec::new(),
            json: None,
            plot: None,
            from: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--only" => {
                    options.measures = value()?.split(',').map(measure).collect::<Result<_>>()?
                }
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--connections" => options.connections = value()?.parse()?,
                "--quick" => (options.rounds, options.seconds, options.connections) = (1, 1, 1_000),
                "--json" => options.json = Some(value()?),
                "--plot" => options.plot = Some(value()?),
                "--from" => options.from = Some(value()?),
                flag if flag.starts_with('-') => {
                    return Err(format!("no such flag: {flag}\n{USAGE}").into());
                }
                name => options.peers.push(Peer::named(name)?),
            }
        }
        if options.peers.is_empty() {
            options.peers = PEERS.iter().collect();
        }
        Ok(options)
    }
}

fn measure(name: &str) -> Result<&'static Measure> {
    let names = || MEASURES.iter().map(|measure| measure.name).collect::<Vec<_>>().join(", ");
    let found = MEASURES.iter().find(|measure| measure.name == name);
    found.ok_or_else(|| format!("no such measure: {name}; there are {}", names()).into())
}
