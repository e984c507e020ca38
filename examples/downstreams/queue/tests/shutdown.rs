//! Stops the service at every moment, with a Redis that may fail at every moment.

use downstream_queue::{Acknowledge, Stream, host};
use futures_util::{SinkExt, StreamExt};
use lameduck_sim::{Failure, Passed, ServerConnection, Trial, explore};
use redis::{ValueCodec, from_redis_value};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio_util::codec::Decoder;

/// The lists of a Redis. A set is a list here.
#[derive(Clone, Default)]
struct Redis(Arc<Mutex<BTreeMap<String, VecDeque<String>>>>);

impl Redis {
    fn lists(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<String>>> {
        self.0.lock().expect("no server panics")
    }

    fn has(&self, list: &str, job: &str) -> bool {
        self.lists().get(list).is_some_and(|jobs| jobs.iter().any(|it| it == job))
    }

    /// Serves one connection.
    async fn serve(self, connection: ServerConnection) {
        let mut client = ValueCodec::default().framed(connection);
        while let Some(Ok(command)) = client.next().await {
            let command: Vec<String> = from_redis_value(command).expect("commands are lists");
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let mut response = self.run(&command);
            if command[0] == "BLMOVE" && response == "$-1\r\n" {
                tokio::time::sleep(Duration::from_millis(100)).await;
                response = self.run(&command);
            }
            if client.send(response.into_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn run(&self, command: &[&str]) -> String {
        let mut lists = self.lists();
        match *command {
            ["RPUSH" | "SADD", list, job] => {
                let list = lists.entry(list.to_owned()).or_default();
                list.push_back(job.to_owned());
                format!(":{}\r\n", list.len())
            }
            ["LMOVE" | "BLMOVE", from, to, from_end, ..] => {
                let from = lists.entry(from.to_owned()).or_default();
                let job = if from_end == "LEFT" { from.pop_front() } else { from.pop_back() };
                let Some(job) = job else { return "$-1\r\n".to_owned() };
                let response = format!("${}\r\n{job}\r\n", job.len());
                let to = lists.entry(to.to_owned()).or_default();
                if from_end == "LEFT" {
                    to.push_back(job)
                } else {
                    to.push_front(job)
                }
                response
            }
            ["LREM", list, "1", job] => {
                let list = lists.entry(list.to_owned()).or_default();
                let place = list.iter().position(|it| it == job);
                place.map(|place| list.remove(place));
                format!(":{}\r\n", u8::from(place.is_some()))
            }
            _ => "+OK\r\n".to_owned(),
        }
    }
}

fn explored(acknowledge: Acknowledge, seeds: Range<u64>) -> Result<Passed, Failure> {
    explore(move |world| {
        let redis = Redis::default();
        let server = redis.clone();
        let queue = world.tcp_downstream("redis", move |it| server.clone().serve(it));
        let dial = Arc::new(move || {
            let queue = queue.clone();
            Box::pin(async move { Ok(Box::new(queue.connect().await?) as Box<dyn Stream>) }) as _
        });
        Trial::of(host(world.host(), dial, acknowledge)).at_exit(move |received| {
            let is_kept = ["jobs", "working", "receipts"].iter().any(|it| redis.has(it, "tea"));
            if received.succeeded("/jobs") == 0 || is_kept {
                Ok(())
            } else {
                Err("a job was accepted, and is gone without a receipt".to_owned())
            }
        })
    })
    .post("/jobs", "tea")
    .expect(202)
    .seeds(seeds)
    .run()
}

#[test]
fn no_job_is_lost_whatever_redis_does() {
    explored(Acknowledge::Last, 0..40).unwrap();
}

#[test]
fn a_job_that_is_acknowledged_before_it_is_done_is_found() {
    let failure = explored(Acknowledge::First, 0..200).expect_err("a stop in between loses a job");
    println!("{failure}");
    assert_eq!(failure.broken.promise, "S4");
    assert!(failure.broken.why.contains("gone without a receipt"));
}
