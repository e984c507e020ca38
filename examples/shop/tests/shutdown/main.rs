//! Stops the shop at every moment, in a simulated world with a Postgres server, a payment service
//! and a queue. The sound shop survives; each planted bug is found, and its cause is named.

mod bugs;
mod cookbook;
mod postgres;
mod queue;

use axum::{Router, routing::get};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lameduck::TowerService;
use lameduck_sim::{Connector, Downstream, Failure, TestWorld, Trial, Trials, explore};
use postgres::Database;
use queue::Queue;
use shop::{Bug, Dependencies, Dial, Stream, pool, shop};
use std::sync::Arc;

fn dial(service: Downstream) -> Dial {
    Arc::new(move || {
        let service = service.clone();
        Box::pin(async move { Ok(Box::new(service.connect().await?) as Box<dyn Stream>) })
    })
}

fn trial(world: TestWorld, bug: Bug) -> Trial<TowerService<Router>> {
    let (database, queue) = (Database::default(), Queue::default());
    let db = {
        let database = database.clone();
        world.tcp_downstream("postgres", move |socket| postgres::serve(socket, database.clone()))
    };
    let messages = {
        let queue = queue.clone();
        world.tcp_downstream("queue", move |socket| queue.clone().serve(socket))
    };
    let payments = world.downstream("payments", Router::new().route("/pay", get(|| async {})));
    let client = Client::builder(TokioExecutor::new()).build::<Connector, _>(payments.connector());
    let with = Dependencies { db: pool(dial(db)), payments: client, queue: dial(messages) };
    Trial::of(shop(world.host(), with, bug)).at_exit(move |_| {
        let lost = queue.acknowledged().into_iter().find(|n| !database.has("messages", n));
        lost.map_or(Ok(()), |n| Err(format!("message {n} was acknowledged and is not stored")))
    })
}

fn trials(bug: Bug) -> Trials<TowerService<Router>> {
    explore(move |world| trial(world, bug))
        .post("/orders", "tea")
        .expect(201)
        .get("/orders")
        .expect(200)
        .get("/prices")
        .expect(200)
}

/// Returns the output of the simulation for a bug.
fn found(bug: Bug) -> Failure {
    trials(bug).seeds(0..300).run().expect_err("a bug is planted")
}

#[test]
fn the_sound_shop_survives_whatever_fails_around_it() {
    trials(Bug::None).seeds(0..60).run().unwrap();
}
