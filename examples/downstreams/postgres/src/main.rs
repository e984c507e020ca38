//! The process, connected to a real database.

use deadpool_postgres::{Manager, Pool};
use downstream_postgres::{Close, host};
use lameduck::{Host, Settings};
use tokio_postgres::NoTls;

fn main() {
    lameduck::run(|| {
        let config = "host=localhost user=shop".parse()?;
        let db = Pool::builder(Manager::new(config, NoTls)).max_size(4).build()?;
        Ok(host(Host::builder(Settings::from_env()?), db, Close::AfterTheDrain))
    })
}
