//! One repetition of a scenario: a server, its clients, and what was expected of each.

use crate::{
    process::{Exit, Output},
    scenario::Scenario,
    server::{Plan, Server},
    target::Target,
};
use lameduck_wire::{
    End, Event, Recorder, Track,
    http1::{self, Client, Response},
    http2,
};
use std::{
    io,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Longest wait for a connection.
pub const CONNECT_MAX: Duration = Duration::from_secs(8);
/// Longest silence of a server after the lame duck delay before a client gives up.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// Time between the readiness of the server and the first thing that a scenario does. A start that
/// goes on after the first response, as that of a supervisor next to its workers, is judged by the
/// scenarios of the family `signal` alone.
pub(crate) const SETTLE: Duration = Duration::from_millis(200);

/// Why a repetition has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    /// It does not apply to this server.
    Skip(String),
    /// Its preparation failed.
    Broken(String),
}

impl From<String> for Abort {
    fn from(why: String) -> Self {
        Self::Broken(why)
    }
}

impl From<io::Error> for Abort {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Things that were tried: requests, connections, exits.
    pub tries: u64,
    /// Those that went wrong.
    pub failures: u64,
    /// Descriptions of the first failures.
    pub stories: Vec<String>,
    /// Measured times, with their names.
    pub times: Vec<(&'static str, Duration)>,
}

/// Descriptions kept of a scenario.
const STORIES_MAX: usize = 5;

impl Findings {
    /// Adds what another repetition found.
    pub fn add(&mut self, other: Self) {
        self.tries += other.tries;
        self.failures += other.failures;
        for story in other.stories {
            self.tell(story);
        }
        self.times.extend(other.times);
    }

    fn tell(&mut self, story: String) {
        if self.stories.len() < STORIES_MAX && !self.stories.contains(&story) {
            self.stories.push(story);
        }
    }
}

/// One repetition.
#[derive(Debug)]
pub struct Trial<'a> {
    /// The server's description.
    pub target: &'a Target,
    /// Number drawn for this repetition; moments are drawn from it.
    pub draw: u64,
    /// Records the connections.
    pub recorder: Recorder,
    /// What was found.
    pub findings: Findings,
    /// Time of the stop and of the exit, for the picture.
    pub marks: Vec<(Duration, String)>,
    server: Option<Server>,
    stopped: Option<Instant>,
}

impl<'a> Trial<'a> {
    /// Prepares a repetition. The scenario starts the server.
    #[must_use]
    pub fn new(target: &'a Target, draw: u64) -> Self {
        Self {
            target,
            draw,
            recorder: Recorder::new(),
            findings: Findings::default(),
            marks: Vec::new(),
            server: None,
            stopped: None,
        }
    }

    /// Plays the scenario. If the stop command or request has failed, it has found nothing.
    ///
    /// # Errors
    /// If it does not apply, could not be tried, or has tried nothing.
    pub fn play(&mut self, scenario: &Scenario) -> Result<(), Abort> {
        let played = (scenario.play)(self);
        if let Some(Err(why)) = self.server.as_mut().map(Server::judge_stop) {
            self.findings = Findings::default();
            return Err(Abort::Broken(why));
        }
        if played.is_ok() && self.findings.tries == 0 {
            return Err(Abort::Broken("nothing could be observed after the stop".to_owned()));
        }
        played
    }

    /// Starts the server, waits until it is ready, and lets it settle.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(&mut self) -> Result<(), Abort> {
        let plan = Plan::new(self.target)?;
        let command = plan.command(self.target);
        self.start_by(&plan, command, Output::Kept)
    }

    /// Starts this command as the server, waits until it is ready, and lets it settle.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_by(&mut self, plan: &Plan, command: Command, output: Output) -> Result<(), Abort> {
        self.set_server(Server::start_by(self.target, plan, command, output)?);
        thread::sleep(SETTLE);
        Ok(self.server()?.expect_running()?)
    }

    /// Takes a server that was started otherwise.
    pub fn set_server(&mut self, server: Server) {
        self.server = Some(server);
    }

    /// Returns the server.
    ///
    /// # Errors
    /// If it was not started.
    pub fn server(&mut self) -> Result<&mut Server, Abort> {
        self.server.as_mut().ok_or_else(|| Abort::Broken("no server was started".to_owned()))
    }

    /// Returns the output of the server until now.
    #[must_use]
    pub fn output(&self) -> String {
        self.server.as_ref().map(|server| server.process.output()).unwrap_or_default()
    }

    /// Returns a number below `bound`, drawn by `salt`.
    #[must_use]
    pub const fn drawn(&self, salt: u64, bound: u64) -> u64 {
        // SplitMix64.
        let mut x = self.draw.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn connect(&mut self, label: &str) -> Result<Client, Abort> {
        let track = self.recorder.track(label);
        let address = self.server()?.address;
        let mut client = Client::connect_tracked(address, CONNECT_MAX, track)
            .map_err(|error| Abort::Broken(format!("{label}: cannot connect: {error}")))?;
        client.set_max_wait(self.max_wait());
        client.set_deadline(self.last_moment());
        Ok(client)
    }

    /// Opens a connection, without judging a failure.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn try_connect(&mut self, track: Track) -> Result<io::Result<Client>, Abort> {
        let address = self.server()?.address;
        let (max_wait, end) = (self.max_wait(), self.last_moment());
        Ok(Client::connect_tracked(address, CONNECT_MAX, track).map(|mut client| {
            client.set_max_wait(max_wait);
            client.set_deadline(end);
            client
        }))
    }

    /// Opens a connection that has had one response and is kept.
    ///
    /// # Errors
    /// If there is no response, or the server does not keep the connection.
    pub fn keep(&mut self, label: &str) -> Result<Client, Abort> {
        let mut client = self.connect(label)?;
        let path = self.target.paths.plain.clone();
        match client.request(&path) {
            Ok(response) if response.says_close() => {
                Err(Abort::Skip("the server keeps no connection after a response".to_owned()))
            }
            Ok(_) => Ok(client),
            Err(end) => Err(Abort::Broken(format!("{label}: no response before the stop: {end}"))),
        }
    }

    /// Opens this many connections that have had one response and are kept, with their labels.
    ///
    /// # Errors
    /// If there is no response, or the server does not keep a connection.
    pub fn keep_all(&mut self, count: usize) -> Result<Vec<(Client, String)>, Abort> {
        (0..count)
            .map(|n| {
                let label = format!("kept {n}");
                Ok((self.keep(&label)?, label))
            })
            .collect()
    }

    /// Opens an HTTP/2 connection that has had one response.
    ///
    /// # Errors
    /// If there is no response.
    pub fn keep_http2(&mut self, label: &str) -> Result<http2::Client, Abort> {
        let track = self.recorder.track(label);
        let address = self.server()?.address;
        let mut client = http2::Client::connect_tracked(address, CONNECT_MAX, track)?;
        client.connection().set_max_wait(self.max_wait());
        client.connection().set_deadline(self.last_moment());
        client.read_everything()?;
        let path = self.target.paths.plain.clone();
        let stream = client.request("GET", "localhost", &path)?;
        client
            .find(|frame| frame.stream == stream && frame.ends_stream())
            .map_err(|end| Abort::Broken(format!("{label}: no response before the stop: {end}")))?;
        Ok(client)
    }

    /// Returns the longest silence of the server before a client gives up. A response may take
    /// longer than the lame duck delay.
    #[must_use]
    pub const fn max_wait(&self) -> Duration {
        self.target.lame_duck.saturating_add(SILENCE_MAX)
    }

    /// Returns the time from the stop to something that a scenario does in the lame duck delay:
    /// `usual`, or half of a short delay.
    #[must_use]
    pub fn early(&self, usual: Duration) -> Duration {
        usual.min(self.target.lame_duck / 2)
    }

    /// Returns a time in milliseconds for what begins shortly before the stop and is to go on after
    /// it: `usual`, or longer by what a stop command takes.
    #[must_use]
    pub fn beyond_stop(&self, usual: u64) -> u64 {
        usual + u64::try_from(self.target.stop_takes.as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// Reads wait at most until this moment: some time after SIGKILL.
    #[must_use]
    pub fn last_moment(&self) -> Instant {
        let begin = self.stopped.unwrap_or_else(Instant::now);
        begin + self.target.stop_takes + self.target.grace + SILENCE_MAX
    }

    /// Stops the process group with SIGSTOP, as if the machine was busy with something else.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn freeze(&mut self) -> Result<(), Abort> {
        Ok(self.server()?.process.freeze()?)
    }

    /// Continues the process group.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn thaw(&mut self) -> Result<(), Abort> {
        Ok(self.server()?.process.thaw()?)
    }

    /// Requests the stop. Returns once a stop command has asked the server to stop.
    ///
    /// # Errors
    /// If that fails, or the server has ended before.
    pub fn stop(&mut self) -> Result<(), Abort> {
        let (stop, takes) = (&self.target.stop, self.target.stop_takes);
        let is_first = self.stopped.is_none();
        self.stop_by(|server| server.stop(stop))?;
        if is_first && !takes.is_zero() {
            thread::sleep(takes);
            self.stopped = Some(Instant::now());
        }
        Ok(())
    }

    /// Requests the stop in another way. From now on the group ends with its first process.
    ///
    /// # Errors
    /// If that fails, or the server has ended before.
    pub fn stop_by(
        &mut self,
        stop: impl FnOnce(&mut Server) -> Result<(), String>,
    ) -> Result<(), Abort> {
        self.server()?.expect_running()?;
        if self.stopped.is_none() {
            self.server()?.process.end_group_with_first()?;
        }
        self.marks.push((self.recorder.now(), self.target.stop.name().to_owned()));
        self.stopped.get_or_insert_with(Instant::now);
        Ok(stop(self.server()?)?)
    }

    /// Requests the stop of a process that may have ended.
    pub fn stop_if_alive(&mut self) {
        // The exit is judged by the caller. A stop command would fail without the process.
        if self.server.as_mut().is_some_and(|server| server.process.exit().is_none()) {
            let _ = self.stop();
        }
    }

    /// Returns the time since the stop request.
    #[must_use]
    pub fn since_stop(&self) -> Duration {
        self.stopped.map(|stopped| stopped.elapsed()).unwrap_or_default()
    }

    /// Waits until this time after the stop request.
    pub fn wait_until(&self, after_stop: Duration) {
        thread::sleep(after_stop.saturating_sub(self.since_stop()));
    }

    /// Records one thing that was tried, and the story if it went wrong.
    pub fn expect(&mut self, holds: bool, story: impl FnOnce() -> String) {
        self.findings.tries += 1;
        if !holds {
            self.findings.failures += 1;
            self.findings.tell(story());
        }
    }

    /// Records a measured time.
    pub fn measure(&mut self, what: &'static str, time: Duration) {
        self.findings.times.push((what, time));
    }

    /// Expects a complete response with status 200, as the route had it before the stop.
    pub fn expect_response(&mut self, label: &str, response: &Result<Response, End>) {
        self.expect(is_served(response), || format!("{label}: {}", outcome(response)));
    }

    /// Waits for the exit for as long as the grace period. Then kills the group, and returns how
    /// and after what time the process exited, if it did.
    ///
    /// # Errors
    /// If no server was started, or the stop command fails.
    pub fn exit(&mut self) -> Result<Option<(Exit, Duration)>, Abort> {
        let stopped = self.stopped.unwrap_or_else(Instant::now);
        let grace = self.target.grace;
        let exit = self.server()?.exit_until(stopped + grace)?;
        self.server()?.process.kill();
        let what = match exit {
            Some((exit, _)) => exit.to_string(),
            None => format!("SIGKILL after {grace:?}"),
        };
        self.marks.push((self.recorder.now(), what));
        Ok(exit.map(|(exit, at)| (exit, at.saturating_duration_since(stopped))))
    }

    /// Expects the exit within the grace period. A crash is none.
    ///
    /// # Errors
    /// If no server was started, or the stop command fails.
    pub fn expect_exit(&mut self, despite: &str) -> Result<Option<(Exit, Duration)>, Abort> {
        let exit = self.exit()?;
        let grace = self.target.grace;
        let is_exit = exit.is_some_and(|(exit, _)| !exit.is_crash());
        self.expect(is_exit, || match exit {
            Some((exit, _)) => format!("it crashed after the stop, with {despite}: {exit}"),
            None => format!("it had not exited {grace:?} after the stop, because of {despite}"),
        });
        if let Some((_, took)) = exit {
            self.measure("exit", took);
        }
        Ok(exit)
    }

    /// Adds a remark to a connection's record.
    pub fn remark(&self, label: &str, remark: &str) {
        for track in self.recorder.tracks().iter().filter(|track| track.label() == label) {
            track.record(Event::Remark(remark.to_owned()));
        }
    }
}

/// Returns whether a response is complete and has the status 200, which every route had before the
/// stop.
#[must_use]
pub fn is_served(response: &Result<Response, End>) -> bool {
    response.as_ref().is_ok_and(|response| response.status == 200)
}

/// Describes the outcome of a request.
#[must_use]
pub fn outcome(response: &Result<Response, End>) -> String {
    match response {
        Ok(response) => format!("status {}", response.status),
        Err(End::Closed) => "the connection was closed without a response".to_owned(),
        Err(End::ClosedEarly) => "the response was cut by a FIN".to_owned(),
        Err(End::Reset) => "the connection was reset before the response was complete".to_owned(),
        Err(End::Silent) => "no response, and the connection stayed open".to_owned(),
        Err(end @ (End::Malformed | End::Failed(_))) => end.to_string(),
    }
}

/// Returns a request for a path that keeps the connection.
#[must_use]
pub fn get(path: &str) -> String {
    http1::get_bytes(path)
}

/// Replaces the placeholder of a route.
#[must_use]
pub fn route(template: &str, value: u64) -> String {
    template.replace("{ms}", &value.to_string()).replace("{n}", &value.to_string())
}

#[cfg(test)]
mod tests {
    use super::Trial;
    use crate::target::Target;
    use std::time::Duration;

    // With `--lame-duck 10s` a good server was blamed for a response that takes 11 s: its client
    // waited for 8 s. With `--lame-duck 10ms` it was blamed for connections that it had closed
    // after the delay, since they were used after 20 ms.
    #[test]
    fn times_follow_the_lame_duck_delay() {
        let mut target = Target::new(vec!["server".to_owned()]);
        let ms = Duration::from_millis;
        for (lame_duck, max_wait, early) in [(10_000, 18_000, 20), (10, 8010, 5), (40, 8040, 20)] {
            target.lame_duck = ms(lame_duck);
            let trial = Trial::new(&target, 1);
            assert_eq!((trial.max_wait(), trial.early(ms(20))), (ms(max_wait), ms(early)));
        }
    }
}
