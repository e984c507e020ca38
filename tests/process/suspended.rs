//! P6, P8: a process that was suspended (SIGSTOP) and continues with expired timers.

use crate::support::{Client, Service, block, in_time, now};
use rustix::process::Signal;
use std::time::Duration;

// The rest of a head arrived while the process was suspended. When it continued its timers had
// expired, and it sent a 408 before it read. It must read first (P6).
#[test]
fn bytes_that_arrived_while_the_process_was_suspended_are_read_before_timers_expire() {
    let round = |stops: bool| {
        let mut service = Service::start(&["--header-timeout=900ms", "--lame-duck=0s"]);
        let begin = now();
        let half = || {
            let mut client = Client::connect(service.main);
            client.send("GET / HTTP/1.1\r\nhost: te");
            client
        };
        let mut clients: Vec<_> = (0..20).map(|_| half()).collect();
        block(Duration::from_millis(100));
        if stops {
            service.signal(Signal::TERM);
            service.wait_for_phase("draining");
        }
        service.suspend();
        // Its timers must expire while it is suspended.
        if begin.elapsed() > Duration::from_millis(800) {
            return None;
        }
        block(Duration::from_millis(1_500));
        for client in &mut clients {
            client.send("st\r\n\r\n");
        }
        service.signal(Signal::CONT);
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
        if stops {
            assert_eq!(service.exit_code(), 0);
        }
        Some(())
    };
    for stops in [false, false, false, true] {
        in_time(|| round(stops));
    }
}
