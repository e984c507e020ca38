//! Stops the service at every moment, with a database that may fail at every moment.

// The server is the shop's.
#[path = "../../../../shop/tests/shutdown/postgres.rs"]
mod postgres;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool};
use downstream_postgres::{Close, host};
use lameduck_sim::{Downstream, Failure, Passed, Trial, explore};
use postgres::Database;
use std::{ops::Range, pin::Pin};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls, config::SslMode};
use tokio_util::either::Either;

/// Connects to the simulated database.
struct Simulated(Downstream);

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Simulated {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let config = config.clone();
        Box::pin(async move {
            // Errors of this type are made by tokio-postgres alone: it cannot read from this.
            let nothing = |_| Either::Right(tokio::io::empty());
            let stream = self.0.connect().await.map_or_else(nothing, Either::Left);
            let (client, connection) = config.connect_raw(stream, NoTls).await?;
            Ok((client, tokio::spawn(async move { drop(connection.await) })))
        })
    }
}

fn explored(close: Close, seeds: Range<u64>) -> Result<Passed, Failure> {
    explore(move |world| {
        let database = Database::default();
        let tables = database.clone();
        let postgres =
            world.tcp_downstream("postgres", move |it| postgres::serve(it, tables.clone()));
        let mut config = Config::new();
        config.user("shop").ssl_mode(SslMode::Disable);
        let manager = Manager::from_connect(config, Simulated(postgres), ManagerConfig::default());
        let db = Pool::builder(manager).max_size(4).build().expect("a pool without timeouts");
        Trial::of(host(world.host(), db, close)).at_exit(move |received| {
            let is_stored = received.succeeded("/orders") == 0 || database.has("orders", "tea");
            if is_stored { Ok(()) } else { Err("an order is lost".to_owned()) }
        })
    })
    .post("/orders", "tea")
    .expect(201)
    .seeds(seeds)
    .run()
}

#[test]
fn it_stops_cleanly_whatever_the_database_does() {
    explored(Close::AfterTheDrain, 0..40).unwrap();
}

#[test]
fn a_pool_that_is_closed_at_the_stop_is_found() {
    let failure = explored(Close::AtTheStop, 0..200).expect_err("the pool is closed too early");
    println!("{failure}");
    assert_eq!(failure.broken.promise, "S5");
    assert!(failure.broken.why.contains("Pool has been closed"));
}
