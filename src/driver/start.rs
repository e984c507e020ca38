//! What must be there before the first turn: ports that are ours, and an internal server that answers.

use super::{CutOnDrop, Driver, hooks::Slot};
#[cfg(feature = "metrics")]
use crate::internal::Metrics;
use crate::{
    env::{Audience, Clock, Env, JobEnd, Listener, Network, Reservation, Room, Rooms, Seed, SignalSource},
    errors::chain,
    guests::Guests,
    hook::HookState,
    host::{Bound, Parts},
    http::{CloseRaces, Crew, EvictionGrace, HttpService, Order, Sealing, Side, SideConfig, WorkerRuntime, work},
    internal::{AllowedHosts, Board, Heartbeats, InternalService, watch},
    lifecycle::{Lifecycle, Phase},
    settings::Settings,
    unwind::unwind,
};
use std::{future::pending, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Ports that are ours and do not listen yet.
pub(super) struct Reserved<N: Network> {
    pub(super) main: Vec<N::Reservation>,
    pub(super) internal: N::Reservation,
}

pub(super) fn reserve<N: Network, G, R: Rooms>(parts: &Parts, env: &Env<N, G, R>) -> Result<Reserved<N>, String> {
    let settings = &parts.settings;
    let workers = env.rooms.workers().get();
    let main = settings
        .main_addresses_or_default()
        .iter()
        .map(|address| {
            env.network.reserve(address, Audience::World, workers).map_err(|error| {
                let knobs = settings.knobs(&["addr", "port"]);
                format!("cannot bind the main address {address}{knobs}: {}", chain(&error))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let address = &settings.internal_address;
    let internal = env.network.reserve(address, Audience::Operators, 1).map_err(|error| {
        let knobs = settings.knobs(&["internal-addr", "internal-port"]);
        format!("cannot bind the internal address {address}{knobs}: {}", chain(&error))
    })?;
    Ok(Reserved { main, internal })
}

impl<S, N, G, R> Driver<S, N, G, R>
where
    S: HttpService,
    N: Network,
    G: SignalSource,
    R: Rooms,
{
    /// Everything is in place before the first turn, and the internal server answers.
    pub(super) async fn new(
        life: Lifecycle,
        service: S,
        mut parts: Parts,
        env: Env<N, G, R>,
        reserved: Reserved<N>,
    ) -> Result<Self, String> {
        let Env { clock, network: _, signals, rooms, seed } = env;
        let (main, internal) = sides(&parts.settings, &clock, seed);
        let heartbeats = Arc::new(Heartbeats::new(rooms.workers().get()));
        let checks = std::mem::take(&mut parts.checks);
        let boards: Vec<_> = checks.iter().map(crate::check::Check::result_board).collect();
        let board = Arc::new(Board::new(
            main.clone(),
            heartbeats.clone(),
            boards.clone(),
            parts.settings.plan,
            reserved.internal.local(),
            reserved.main.iter().map(Reservation::local).collect(),
        ));
        if let Some(tell) = parts.on_bound.take() {
            let bound = Bound { main: board.main_addresses.clone(), internal: board.internal_address.clone() };
            unwind(async move { tell(&bound) }).await.map_err(|panic| format!("on_bound panicked: {panic}"))?;
        }
        let address = reserved.internal.local();
        let listeners = reserved
            .internal
            .listen()
            .await
            .map_err(|error| format!("cannot listen on the internal address {address}: {}", chain(&error)))?;
        let (internal_orders, orders) = mpsc::unbounded_channel();
        let internal_end = open_internal(&mut parts, &rooms, &internal, &board, listeners, orders)?;
        let check_tasks = Guests::new();
        for (check, result) in checks.into_iter().zip(boards) {
            check_tasks
                .admit(&rooms, (), check.run(clock.clone(), result, board.serving.clone()))
                .map_err(|error| format!("cannot run the checks: {}", chain(&error)))?;
        }
        let hooks = std::mem::take(&mut parts.hooks);
        Ok(Self {
            _guard: CutOnDrop([main.clone(), internal.clone()]),
            life,
            clock,
            signals,
            rooms,
            main,
            internal,
            board,
            heartbeats,
            service: Arc::new(service),
            reservations: reserved.main,
            hooks: hooks
                .into_iter()
                .map(|hook| Slot {
                    name: hook.name,
                    state: HookState::Waiting(hook.start),
                    give_up: CancellationToken::new(),
                })
                .collect(),
            hook_tasks: Guests::new(),
            listening: None,
            background: Guests::new(),
            checks: check_tasks,
            workers: Vec::new(),
            emptying: None,
            releasing: None,
            internal_orders,
            internal_end: Some(internal_end),
            stop_asked: false,
            failure: None,
            parts,
        })
    }
}

/// What the connections of each side share, main and internal.
fn sides(settings: &Settings, clock: &Arc<dyn Clock>, seed: Seed) -> (Arc<Side>, Arc<Side>) {
    let main = SideConfig {
        app_version: settings.app_version.as_str().into(),
        request_timeout: settings.request_timeout,
        lame_duck: settings.plan.lame_duck,
        limits: settings.limits,
        close_races: CloseRaces::Counted,
        eviction_grace: EvictionGrace::MAIN,
        seed,
    };
    let internal = SideConfig {
        app_version: main.app_version.clone(),
        request_timeout: None,
        lame_duck: Duration::ZERO,
        limits: settings.limits.internal(),
        close_races: CloseRaces::Ignored,
        eviction_grace: EvictionGrace::INTERNAL,
        seed,
    };
    (Arc::new(Side::new(clock.clone(), main)), Arc::new(Side::new(clock.clone(), internal)))
}

/// The internal server in its room, with whoever watches from there; the end of it.
fn open_internal<L: Listener>(
    parts: &mut Parts,
    rooms: &impl Rooms,
    side: &Arc<Side>,
    board: &Arc<Board>,
    listeners: Vec<L>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Result<JobEnd, String> {
    let routes = InternalService::new(
        board.clone(),
        std::mem::take(&mut parts.routes),
        AllowedHosts::new(&parts.settings.internal_hosts, parts.settings.knobs(&["internal-hosts"])),
        #[cfg(feature = "metrics")]
        Metrics::new(board.clone(), parts.meter.take()),
    );
    let clock = board.clock.clone();
    side.publish(Phase::Serving, clock.now());
    let side = side.clone();
    let serving = async move {
        let crew = Arc::new(Crew::new(side, Arc::new(routes), Arc::default(), WorkerRuntime::current()));
        work(crew, listeners, &mut orders, Arc::new(Sealing::new(1))).await;
    };
    let watching = watch(clock, board.main.clone(), board.heartbeats.clone());
    let observing = parts.observer.take().map(|observe| observe(board.clone()));
    // Whether it ends is its own affair: the internal server goes on.
    let observing = async move {
        if let Some(observing) = observing {
            observing.await;
        }
        pending::<()>().await;
    };
    let room = Box::pin(async move {
        tokio::select! {
            biased;
            // Before the end, so that the last phase is told, too.
            () = observing => {}
            () = serving => {}
            () = watching => {}
        }
    });
    rooms.enter(Room::Internal, room).map_err(|error| format!("cannot start the internal server: {}", chain(&error)))
}
