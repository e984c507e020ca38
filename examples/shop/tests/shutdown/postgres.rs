//! A Postgres server, as a function over a byte stream: tables of one column.

use async_trait::async_trait;
use futures::{Sink, StreamExt, stream};
use lameduck_sim::ServerConnection;
use pgwire::{
    api::{
        ClientInfo, ClientPortalStore, DefaultClient, NoopHandler, PgWireConnectionState, Type,
        portal::{Format, Portal},
        query::{ExtendedQueryHandler, SimpleQueryHandler},
        results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag},
        stmt::QueryParser,
        store::PortalStore,
    },
    error::{PgWireError, PgWireResult},
    messages::PgWireBackendMessage,
    tokio::server::{PgWireMessageServerCodec, process_error, process_message},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio_util::codec::Framed;

/// The tables.
#[derive(Clone, Default)]
pub struct Database(Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>);

impl Database {
    pub fn has(&self, table: &str, value: &str) -> bool {
        let tables = self.0.lock().expect("no server panics");
        tables.get(table).is_some_and(|rows| rows.contains(value))
    }

    /// Runs `INSERT INTO table VALUES ($1)` or `SELECT count(*) FROM table`.
    fn run(&self, statement: &str, value: Option<String>) -> PgWireResult<Response> {
        let mut tables = self.0.lock().expect("no server panics");
        if let Some(rest) = statement.strip_prefix("INSERT INTO ") {
            let table = rest.split(' ').next().unwrap_or_default();
            tables.entry(table.to_owned()).or_default().insert(value.unwrap_or_default());
            return Ok(Response::Execution(Tag::new("INSERT").with_oid(0).with_rows(1)));
        }
        let table = statement.rsplit(' ').next().unwrap_or_default();
        let fields = Arc::new(fields(statement));
        let mut row = DataRowEncoder::new(Arc::clone(&fields));
        row.encode_field(&(tables.get(table).map_or(0, BTreeSet::len) as i64))?;
        Ok(Response::Query(QueryResponse::new(fields, stream::iter([Ok(row.take_row())]))))
    }
}

fn fields(statement: &str) -> Vec<FieldInfo> {
    if statement.starts_with("SELECT") {
        let count = FieldInfo::new("count".into(), None, None, Type::INT8, FieldFormat::Binary);
        return vec![count];
    }
    Vec::new()
}

/// Statements are kept as text. Each `$` is a parameter.
pub struct Parser;

#[async_trait]
impl QueryParser for Parser {
    type Statement = String;

    async fn parse_sql<C>(
        &self,
        _: &C,
        sql: &str,
        _: &[Option<Type>],
    ) -> PgWireResult<Option<String>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        Ok(Some(sql.to_owned()))
    }

    fn get_parameter_types(&self, statement: &String) -> PgWireResult<Vec<Type>> {
        Ok(statement.matches('$').map(|_| Type::TEXT).collect())
    }

    fn get_result_schema(
        &self,
        statement: &String,
        _: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        Ok(fields(statement))
    }
}

#[async_trait]
impl SimpleQueryHandler for Database {
    async fn do_query<C>(&self, _: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Ok(vec![self.run(query, None)?])
    }
}

#[async_trait]
impl ExtendedQueryHandler for Database {
    type Statement = String;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        Arc::new(Parser)
    }

    async fn do_query<C>(
        &self,
        _: &mut C,
        portal: &Portal<String>,
        _: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = String>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let value = match portal.parameter_len() {
            0 => None,
            _ => portal.parameter::<String>(0, &Type::TEXT)?,
        };
        self.run(&portal.statement.statement, value)
    }
}

/// Serves one connection.
pub async fn serve(connection: ServerConnection, database: Database) {
    let client = DefaultClient::new(SocketAddr::from(([127, 0, 0, 1], 0)), false);
    let mut socket = Framed::new(connection, PgWireMessageServerCodec::new(client));
    socket.set_state(PgWireConnectionState::AwaitingStartup);
    let (database, noop) = (Arc::new(database), Arc::new(NoopHandler));
    while let Some(Ok(message)) = socket.next().await {
        let is_extended = message.is_extended_query();
        let (simple, extended) = (Arc::clone(&database), Arc::clone(&database));
        let (startup, copy, cancel) = (noop.clone(), noop.clone(), noop.clone());
        let done =
            process_message(message, &mut socket, startup, simple, extended, copy, cancel).await;
        if let Err(error) = done
            && process_error(&mut socket, error, is_extended).await.is_err()
        {
            return;
        }
    }
}
