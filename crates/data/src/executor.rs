//! `&mut TenantTx` as an sqlx executor: the scope, the statement gate, then the connection; what the connection says is noted.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream};
use futures_util::{StreamExt, TryFutureExt};
use insula_telemetry::{Alarm, security_event};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Error, Execute, Executor, Postgres, SqlStr};

use crate::gate;
use crate::tx::{Flags, TenantTx};

type Step = Result<Either<PgQueryResult, PgRow>, Error>;

/// A query that passed the gate. It always has arguments, none at least: sqlx then takes the extended protocol, in which the
/// server refuses a second statement.
struct Checked {
    sql: SqlStr,
    statement: Option<PgStatement>,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl<'q> Execute<'q, Postgres> for Checked {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.statement.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        Ok(Some(self.arguments.take().unwrap_or_default()))
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

impl TenantTx {
    fn gate(&self, sql: &str) -> Result<(), Error> {
        self.in_scope()?;
        gate::check(sql).map_err(|refusal| {
            let (tenant, request) = (&self.context().tenant, &*self.context().request_id);
            security_event!(Alarm::StatementRefused, %tenant, %request, word = %refusal.word, "a statement was refused at the gate");
            crate::Error::from(refusal).into()
        })
    }

    fn checked<'q>(&self, mut query: impl Execute<'q, Postgres>) -> Result<Checked, Error> {
        let arguments = Some(query.take_arguments().map_err(Error::Encode)?.unwrap_or_default());
        let (statement, persistent) = (query.statement().cloned(), query.persistent());
        let sql = query.sql();
        self.gate(sql.as_str())?;
        Ok(Checked { sql, statement, arguments, persistent })
    }
}

impl<'c> Executor<'c> for &'c mut TenantTx {
    type Database = Postgres;

    fn fetch_many<'e, 'q, E>(self, query: E) -> BoxStream<'e, Step>
    where
        'c: 'e,
        E: Execute<'q, Self::Database>,
        'q: 'e,
        E: 'q,
    {
        let prepared = self.checked(query).and_then(|checked| Ok((checked, self.connection()?)));
        match prepared {
            Ok((checked, (pg, flags))) => {
                flags.in_flight = true;
                Watched { steps: pg.fetch_many(checked), flags }.boxed()
            }
            Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
        }
    }

    fn fetch_optional<'e, 'q, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: Execute<'q, Self::Database>,
        'q: 'e,
        E: 'q,
    {
        let prepared = self.checked(query).and_then(|checked| Ok((checked, self.connection()?)));
        match prepared {
            Ok((checked, (pg, flags))) => {
                flags.in_flight = true;
                Box::pin(async move {
                    let row = noted(flags, pg.fetch_optional(checked)).await?;
                    flags.rows += u64::from(row.is_some());
                    Ok(row)
                })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            self.gate(sql.as_str())?;
            let (pg, flags) = self.connection()?;
            flags.in_flight = true;
            noted(flags, pg.prepare_with(sql, parameters)).await
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Self::Database>, Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            self.gate(sql.as_str())?;
            let (pg, flags) = self.connection()?;
            flags.in_flight = true;
            noted(flags, pg.describe(sql)).await
        })
    }
}

async fn noted<T>(flags: &mut Flags, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let result = work.inspect_err(|error| flags.note(error)).await;
    flags.in_flight = false;
    result
}

/// A statement's answers on their way; the statement is over when the stream is.
struct Watched<'e> {
    steps: BoxStream<'e, Step>,
    flags: &'e mut Flags,
}

impl Stream for Watched<'_> {
    type Item = Step;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        let step = self.steps.poll_next_unpin(cx);
        match &step {
            Poll::Ready(None) => self.flags.in_flight = false,
            // Of a SELECT they are those that it gave.
            Poll::Ready(Some(Ok(Either::Left(done)))) => self.flags.rows += done.rows_affected(),
            Poll::Ready(Some(Err(error))) => {
                self.flags.note(error);
                self.flags.in_flight = false;
            }
            _ => {}
        }
        step
    }
}
