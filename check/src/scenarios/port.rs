//! The port, before the start and after the exit.

use crate::{
    process::{Exit, Output},
    scenario::{Grade, Need, Scenario, Weight},
    server::{Plan, Server},
    target::Target,
    trial::{Abort, Trial},
};
use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "port/in-use",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::ChosenPort],
        does: "Starts the server while another socket listens on its port, and waits for its exit \
               for as long as a start may take.",
        why: "A process that continues without its port looks healthy to its supervisor and serves \
              no client.",
        rule: "bind(2): EADDRINUSE; a supervisor sees only the exit code",
        repair: "Exit with an error if the port cannot be bound.",
        play: in_use,
    },
    Scenario {
        name: "port/rebind",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::ChosenPort],
        does: "Holds connections, requests the stop, and starts the server again on the same port \
               as soon as it has exited.",
        why: "The connections that the server closed stay in TIME_WAIT for a minute. Without \
              SO_REUSEADDR the successor cannot bind for so long.",
        rule: "tcp(7), socket(7): SO_REUSEADDR",
        repair: "Set SO_REUSEADDR before bind.",
        play: rebind,
    },
];

/// Some servers try for some seconds.
const GIVE_UP_MAX: Duration = Duration::from_secs(12);

/// Returns how long a server may take to give up its port. One that starts slowly binds it late.
fn give_up_max(target: &Target) -> Duration {
    GIVE_UP_MAX.max(target.start_max)
}

fn in_use(trial: &mut Trial<'_>) -> Result<(), Abort> {
    let plan = Plan::new(trial.target)?;
    let holder = TcpListener::bind(plan.address())?;
    let command = plan.command(trial.target);
    let mut server = Server::spawn(trial.target, &plan, command, Output::Kept)?;
    let give_up_max = give_up_max(trial.target);
    let exit = server.process.exit_until(Instant::now() + give_up_max);
    drop(holder);
    trial.set_server(server);
    let is_loud = matches!(exit, Some((Exit::Code(1..), _) | (Exit::Signal(_), _)));
    trial.expect(is_loud, || match exit {
        Some((exit, _)) => format!("it exited with success: {exit}"),
        None => format!("it still ran {give_up_max:?} after its start"),
    });
    Ok(())
}

fn rebind(trial: &mut Trial<'_>) -> Result<(), Abort> {
    let plan = Plan::new(trial.target)?;
    let command = plan.command(trial.target);
    trial.start_by(&plan, command, Output::Kept)?;
    let path = trial.target.paths.plain.clone();
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = trial.connect(&format!("kept {n}"))?;
        let _ = client.request(&path);
        clients.push(client);
    }
    trial.stop()?;
    trial.exit()?;
    drop(clients);
    let command = plan.command(trial.target);
    let successor = Server::start_by(trial.target, &plan, command, Output::Kept);
    trial.expect(successor.is_ok(), || match &successor {
        Err(error) => format!("the successor: {error}"),
        Ok(_) => String::new(),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::give_up_max;
    use crate::target::Target;
    use std::time::Duration;

    // A server that takes 30 s until it binds its port, and then exits, was blamed after 12 s.
    #[test]
    fn a_slow_start_is_waited_for() {
        let mut target = Target::new(vec!["server".to_owned()]);
        for (start_max, expected) in [(60, 60), (1, 12)] {
            target.start_max = Duration::from_secs(start_max);
            assert_eq!(give_up_max(&target), Duration::from_secs(expected));
        }
    }
}
