//! P11: hooks run in pairs, in order and within their budgets, whatever other hooks do.

use crate::support::{
    App, Client, app::Workers, builder, now, pause, quick_plan, settings, until, until_holds,
    wire::is_refused,
};
use axum::{Router, routing::get};
use lameduck::{
    Builder, Hook, Host, Report,
    lifecycle::{Phase, Signal, StopReason},
};
use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

type Done = Result<(), io::Error>;

/// The recorded steps, in order.
#[derive(Clone, Debug, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(what.into());
    }

    fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// A pair whose start and stop only record themselves.
    fn pair(&self, name: &'static str) -> Hook {
        let (start, stop) = (self.clone(), self.clone());
        Hook::pair(
            name,
            move || async move {
                start.note(format!("start {name}"));
                Ok::<_, io::Error>(name)
            },
            move |name| async move {
                stop.note(format!("stop {name}"));
                Done::Ok(())
            },
        )
    }
}

fn plain(builder: Builder) -> Host<impl lameduck::HttpService> {
    builder.serve(Router::new().route("/", get(|| async { "hello" })))
}

fn hook_ends(report: &Report) -> Vec<String> {
    let json = report.to_json();
    let hooks = json["hooks"].as_array().cloned().unwrap_or_default();
    hooks
        .iter()
        .map(|hook| {
            format!(
                "{}: {}",
                hook["name"].as_str().unwrap_or(""),
                hook["end"].as_str().unwrap_or("")
            )
        })
        .collect()
}

fn failing() -> Hook {
    Hook::on_stop("failing", || async { Done::Err(io::Error::other("the disk is full")) })
}

fn panicking() -> Hook {
    Hook::on_stop("panicking", || async {
        if now().elapsed() < Duration::MAX { panic!("on purpose") } else { Done::Ok(()) }
    })
}

fn hanging() -> Hook {
    Hook::on_stop("hanging", std::future::pending::<Done>)
}

#[test]
fn start_hooks_run_in_order_and_stop_hooks_in_reverse() {
    let diary = Diary::default();
    let app = App::start(plain(
        builder().hook(diary.pair("a")).hook(diary.pair("b")).hook(diary.pair("c")),
    ));
    assert_eq!(diary.entries(), ["start a", "start b", "start c"], "all before it serves");
    let report = app.end();
    assert_eq!(diary.entries()[3..], ["stop c", "stop b", "stop a"]);
    assert_eq!(report.code(), 0);
    let ends = [
        "a: start done",
        "b: start done",
        "c: start done",
        "c: stop done",
        "b: stop done",
        "a: stop done",
    ];
    assert_eq!(hook_ends(&report), ends);
}

#[test]
fn stop_hooks_that_fail_panic_or_hang_stop_no_other_and_exit_with_4() {
    let diary = Diary::default();
    let all = builder()
        .hook(diary.pair("first"))
        .hook(failing())
        .hook(panicking())
        .hook(hanging())
        .hook(diary.pair("last"));
    let app = App::start(plain(all));
    let asked = now();
    let report = app.end();
    assert_eq!(diary.entries()[2..], ["stop last", "stop first"]);
    assert_eq!((report.code(), report.reason), (4, Some(StopReason::Requested)));
    let ends = hook_ends(&report);
    assert!(ends.contains(&"hanging: stop given up: overran".to_owned()), "{ends:?}");
    assert!(
        ends.contains(&"failing: stop failed".to_owned())
            && ends.contains(&"panicking: stop panicked".to_owned()),
        "{ends:?}"
    );
    let message = |name: &str| {
        report
            .hooks
            .iter()
            .rev()
            .find(|hook| hook.name == name)
            .and_then(|hook| hook.error.as_ref())
            .map(ToString::to_string)
    };
    assert_eq!(message("failing").as_deref(), Some("the disk is full"));
    assert_eq!(message("panicking").as_deref(), Some("on purpose"));
    assert!(asked.elapsed() < quick_plan().worst_case() + Duration::from_secs(2), "P7");
}

#[test]
fn a_stop_hook_begins_only_when_every_handler_returned() {
    // P10.
    let diary = Diary::default();
    let noted = diary.clone();
    let handler = move || {
        let noted = noted.clone();
        async move {
            noted.note("handler begins");
            pause(500).await;
            noted.note("handler ends");
            "done"
        }
    };
    let app = App::start(
        builder().hook(diary.pair("pool")).serve(Router::new().route("/", get(handler))),
    );
    let main = app.main;
    let client = crate::support::aside(move || crate::support::get(main, "/").body());
    app.wait_for_started(1);
    let report = app.end();
    assert_eq!(client.join().unwrap(), "done");
    assert_eq!(diary.entries(), ["start pool", "handler begins", "handler ends", "stop pool"]);
    assert_eq!(report.code(), 0);
}

#[test]
fn a_hook_is_given_up_when_its_own_budget_expires() {
    let diary = Diary::default();
    let plan = quick_plan().cleanup(Duration::from_secs(8));
    let app = App::start(plain(
        Host::builder(settings().plan(plan))
            .hook(diary.pair("patient"))
            .hook(hanging().stop_timeout(Duration::from_millis(200))),
    ));
    let asked = now();
    assert_eq!(app.end().code(), 4);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "its own 200 ms, not the common 8 s: {:?}",
        asked.elapsed()
    );
    assert_eq!(diary.entries().last().map(String::as_str), Some("stop patient"));
}

#[test]
fn budgets_that_do_not_fit_together_are_refused_before_anything_starts() {
    let diary = Diary::default();
    let too_much =
        builder().hook(diary.pair("never")).hook(hanging().stop_timeout(Duration::from_secs(60)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(plain(too_much).run());
    assert_eq!(report.code(), 2);
    let error = format!("{:#}", report.error.unwrap());
    assert!(
        error.contains("60s") && error.contains("2s") && error.contains("raise cleanup"),
        "{error}"
    );
    assert_eq!(diary.entries(), [""; 0]);
}

/// What a hook or a callback holds, whose destructor panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor, on purpose");
    }
}

fn holding_a_bomb(builder: Builder) -> Builder {
    let bomb = Bomb;
    builder.hook(Hook::on_stop("bomb", move || {
        let _held = &bomb;
        std::future::ready(Done::Ok(()))
    }))
}

// A start failed before its hooks ran. What a hook held panicked where the host dropped it, and
// the panic took the report with its error (P13).
#[test]
fn what_a_hook_holds_does_not_replace_the_error_of_a_failed_start() {
    let callback = holding_a_bomb(builder()).on_bound(|_| panic!("the callback, on purpose"));
    #[cfg(feature = "tls-ring")]
    let certificate = holding_a_bomb(Host::builder(settings().tls_files("/no/crt", "/no/key")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let starts = [
        (callback, "on_bound panicked"),
        #[cfg(feature = "tls-ring")]
        (certificate, "cannot speak TLS"),
    ];
    for (builder, error) in starts {
        let report = runtime.block_on(plain(builder).run());
        let said = report.error.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(report.code() == 1 && said.contains(error), "{report:?}");
    }
}

#[test]
fn a_blocking_stop_hook_costs_only_its_own_time() {
    let diary = Diary::default();
    let blocking = Hook::on_stop("blocking", || async {
        crate::support::block(Duration::from_secs(30));
        Done::Ok(())
    });
    let app = App::start(plain(builder().hook(diary.pair("other")).hook(blocking)));
    let asked = now();
    let report = app.end();
    assert_eq!(report.code(), 4);
    assert_eq!(diary.entries(), ["start other", "stop other"]);
    assert!(
        asked.elapsed() < quick_plan().worst_case() + Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn a_start_hook_that_fails_or_panics_ends_the_start_and_earlier_ones_are_stopped() {
    for broken in [
        Hook::on_start("broken", || async { Done::Err(io::Error::other("no route to db")) }),
        Hook::on_start("broken", || async {
            if now().elapsed() < Duration::MAX { panic!("no route to db") } else { Done::Ok(()) }
        }),
    ] {
        let diary = Diary::default();
        let app = App::spawn(
            plain(builder().hook(diary.pair("early")).hook(broken).hook(diary.pair("late"))),
            Workers::Task,
        );
        let report = app.report();
        assert_eq!(diary.entries(), ["start early", "stop early"]);
        assert_eq!((report.code(), report.reason), (1, Some(StopReason::StartFailed)));
        let error = format!("{:#}", report.error.unwrap());
        assert!(error.contains("broken") && error.contains("no route to db"), "{error}");
        let phases: Vec<Phase> = report.phases.iter().map(|(phase, _)| *phase).collect();
        assert_eq!(
            phases,
            [Phase::Starting, Phase::CleaningUp, Phase::Stopped],
            "P1: a stop before Serving skips"
        );
        assert!(is_refused(app.main) && is_refused(app.internal), "P14: nothing left running");
    }
}

#[test]
fn a_stop_during_the_start_drops_the_running_hook_and_stops_those_before_it() {
    let diary = Diary::default();
    let waiting = Hook::on_start("waiting", std::future::pending::<Done>);
    let app = App::spawn(plain(builder().hook(diary.pair("early")).hook(waiting)), Workers::Task);
    until_holds("the first start hook", || diary.entries() == ["start early"]);
    assert_eq!(app.probe("/livez").status, 200);
    assert_eq!(app.probe("/readyz").status, 503);
    assert_eq!(app.probe("/startupz").status, 503);
    assert!(is_refused(app.main), "P2: the main port is reserved, and does not listen yet");
    app.signal(Signal::Terminate);
    let report = app.report();
    assert_eq!(diary.entries(), ["start early", "stop early"]);
    assert_eq!(
        (report.code(), report.reason),
        (0, Some(StopReason::Signal(Signal::Terminate))),
        "P14: it ends cleanly"
    );
}

#[test]
fn a_start_that_takes_longer_than_its_limit_fails_with_an_error() {
    let diary = Diary::default();
    let waiting = Hook::on_start("waiting", std::future::pending::<Done>);
    let plan = quick_plan().start(Duration::from_millis(200));
    let app = App::spawn(
        plain(Host::builder(settings().plan(plan)).hook(diary.pair("early")).hook(waiting)),
        Workers::Task,
    );
    let report = app.report();
    assert_eq!((report.code(), report.reason), (1, Some(StopReason::StartTimedOut)));
    let error = format!("{:#}", report.error.unwrap());
    assert!(error.contains("200ms") && error.contains("plan.start"), "{error}");
    assert_eq!(diary.entries(), ["start early", "stop early"]);
}

#[test]
fn a_start_hook_that_finishes_together_with_a_stop_request_is_stopped() {
    // A start hook had finished when a stop request was ready in the same turn of the driver. It
    // was treated as dropped, and what it had opened was never closed. Its stop hook must run
    // (P11).
    let diary = Diary::default();
    let host = builder();
    let stop = host.shutdown_handle();
    let closing = diary.clone();
    let hook = Hook::pair(
        "pool",
        move || async move {
            stop.stop();
            Ok::<_, io::Error>("pool")
        },
        move |pool| async move {
            closing.note(format!("stop {pool}"));
            Done::Ok(())
        },
    );
    let report = App::spawn(plain(host.hook(hook)), Workers::OneThread).report();
    assert_eq!(diary.entries(), ["stop pool"]);
    assert_eq!(report.code(), 0);
}

#[test]
fn a_further_sigint_while_cleaning_up_gives_up_the_running_hook_and_runs_the_next() {
    // P12.
    let diary = Diary::default();
    let began = diary.clone();
    let hanging = Hook::on_stop("hanging", move || async move {
        began.note("stop hanging");
        std::future::pending::<Done>().await
    });
    let plan = quick_plan().cleanup(Duration::from_secs(300));
    let app = App::start(plain(
        Host::builder(settings().plan(plan).grace_period(Duration::ZERO))
            .hook(diary.pair("other"))
            .hook(hanging),
    ));
    app.signal(Signal::Terminate);
    until_holds("the hook that hangs", || {
        diary.entries().last().is_some_and(|last| last == "stop hanging")
    });
    app.signal(Signal::Terminate);
    app.signal(Signal::Hangup);
    assert_eq!(app.probe("/livez").status, 200, "these change nothing");
    app.signal(Signal::Interrupt);
    let report = app.report();
    assert_eq!(diary.entries().last().map(String::as_str), Some("stop other"));
    assert_eq!(report.code(), 4);
    assert!(
        hook_ends(&report).contains(&"hanging: stop given up: impatience".to_owned()),
        "{:?}",
        hook_ends(&report)
    );
}

#[test]
fn a_start_hook_that_blocks_beyond_the_stop_and_finishes_is_stopped() {
    // P11: a start hook that does not yield cannot be dropped. It opened its pool after the stop
    // request, when the machine had already given it up. The process exited before the pool was
    // closed. The stop hook must still run.
    let diary = Diary::default();
    let (opening, closing) = (diary.clone(), diary.clone());
    let blocking = Hook::pair(
        "blocking",
        move || async move {
            opening.note("start begins");
            crate::support::block(Duration::from_millis(500));
            opening.note("start ends");
            Ok::<_, io::Error>(())
        },
        move |()| async move {
            pause(50).await;
            closing.note("stop blocking");
            Done::Ok(())
        },
    );
    let app = App::spawn(plain(builder().hook(diary.pair("other")).hook(blocking)), Workers::Task);
    until_holds("the start", || diary.entries().last().is_some_and(|last| last == "start begins"));
    let report = app.end();
    let entries = diary.entries();
    assert!(entries.contains(&"stop other".to_owned()), "{entries:?}");
    assert_eq!(entries.last().map(String::as_str), Some("stop blocking"), "{entries:?}");
    assert_eq!(report.code(), 0, "{report:?}");
    assert!(
        hook_ends(&report).contains(&"blocking: stop done".to_owned()),
        "{:?}",
        hook_ends(&report)
    );
}

#[test]
fn a_start_hook_that_never_yields_delays_the_exit_by_the_bound_at_most() {
    let stuck = Hook::on_start("stuck", || async {
        crate::support::block(Duration::from_secs(30));
        Done::Ok(())
    });
    let app = App::spawn(plain(builder().hook(stuck)), Workers::Task);
    crate::support::block(Duration::from_millis(100));
    let asked = now();
    let report = app.end();
    assert_eq!(report.code(), 0, "{report:?}");
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "P7: cleanup and internal close: {:?}",
        asked.elapsed()
    );
}

/// Like many database clients: a task that the first use spawns, and that all handlers share.
#[derive(Clone, Debug, Default)]
struct SharedClient(Arc<OnceLock<mpsc::UnboundedSender<oneshot::Sender<()>>>>);

impl SharedClient {
    async fn ask(&self) -> Result<(), io::Error> {
        let connection = self.0.get_or_init(|| {
            let (questions, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
            #[expect(clippy::disallowed_methods, reason = "what libraries do")]
            tokio::spawn(async move {
                while let Some(answer) = asked.recv().await {
                    let _ = answer.send(());
                }
            });
            questions
        });
        let dead = |_| io::Error::other("the connection's task is dead");
        let (answer, answered) = oneshot::channel();
        connection.send(answer).map_err(|_| io::Error::other("the connection's task is gone"))?;
        answered.await.map_err(dead)
    }
}

fn thread_name() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn a_task_that_a_handler_spawned_on_its_worker_lives_until_the_stop_hooks_end() {
    // The first idle worker shut down its runtime, and with it a database connection that a handler
    // had opened there. A request on another worker and the stop hook that flushed found the
    // connection closed. The runtime must live until the stop hooks have run (P10).
    let client = SharedClient::default();
    let (quick, slow, flushing) = (client.clone(), client.clone(), client);
    let router = Router::new()
        .route("/where", get(|| async { thread_name() }))
        .route(
            "/ask",
            get(|| async move {
                quick.ask().await.unwrap();
                thread_name()
            }),
        )
        .route(
            "/slow",
            get(|| async move {
                pause(600).await;
                slow.ask().await.map_or_else(|error| error.to_string(), |()| "answered".to_owned())
            }),
        );
    let flush = Hook::on_stop("flush", move || async move { flushing.ask().await });
    let app = App::start_on(builder().hook(flush).serve(router), Workers::Threads(2));
    let home = app.get("/ask").body();
    // The kernel chooses a worker for each connection.
    let mut elsewhere = until("a connection to the other worker", || {
        let mut client = Client::connect(app.main);
        (client.get("/where").body() != home).then_some(client)
    });
    let started = app.status()["requests"]["started"].as_u64().unwrap();
    elsewhere.send_get("/slow");
    app.wait_for_started(started + 1);
    app.signal(Signal::Terminate);
    assert_eq!(elsewhere.answer().body(), "answered");
    let report = app.report();
    assert_eq!(report.code(), 0, "{report:?}");
}
