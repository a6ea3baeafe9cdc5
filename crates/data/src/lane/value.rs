//! Parameters and rows in Postgres's binary format.

use bytes::{BufMut, Bytes, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::types as pg;

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Param<'a> {
    /// `boolean`.
    Bool(bool),
    /// `integer`.
    Int4(i32),
    /// `bigint`.
    Int8(i64),
    /// `double precision`.
    Float8(f64),
    /// `text`.
    Text(&'a str),
    /// `bytea`.
    Bytes(&'a [u8]),
    /// `uuid`.
    Uuid([u8; 16]),
    /// NULL of the type that the statement wants there.
    Null,
}

impl Param<'_> {
    /// The type's number in `pg_type`; 0 lets the server infer it.
    pub(super) const fn oid(&self) -> u32 {
        match self {
            Self::Bool(_) => 16,
            Self::Bytes(_) => 17,
            Self::Int8(_) => 20,
            Self::Int4(_) => 23,
            Self::Text(_) => 25,
            Self::Float8(_) => 701,
            Self::Uuid(_) => 2950,
            Self::Null => 0,
        }
    }

    pub(super) fn write(&self, buf: &mut BytesMut) -> IsNull {
        match self {
            Self::Bool(v) => pg::bool_to_sql(*v, buf),
            Self::Int4(v) => pg::int4_to_sql(*v, buf),
            Self::Int8(v) => pg::int8_to_sql(*v, buf),
            Self::Float8(v) => pg::float8_to_sql(*v, buf),
            Self::Text(v) => pg::text_to_sql(v, buf),
            Self::Bytes(v) => pg::bytea_to_sql(v, buf),
            Self::Uuid(v) => buf.put_slice(v),
            Self::Null => return IsNull::Yes,
        }
        IsNull::No
    }
}

/// A row as it came.
#[derive(Clone, Debug)]
pub struct Row(pub(super) Bytes);

/// A column cannot be read as what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("column {column} cannot be read as {wanted}")]
pub struct DecodeError {
    /// Which column, from 0.
    pub column: usize,
    /// The type asked for.
    pub wanted: &'static str,
}

/// A type that a column can be read as.
pub trait Column<'a>: Sized {
    /// Its name, for the error.
    const NAME: &'static str;

    /// Reads the value; `None` when the bytes are not one.
    fn read(bytes: Option<&'a [u8]>) -> Option<Self>;
}

macro_rules! column {
    ($($type:ty, $name:literal, $read:expr;)+) => {
        $(impl<'a> Column<'a> for $type {
            const NAME: &'static str = $name;
            fn read(bytes: Option<&'a [u8]>) -> Option<Self> {
                let read: fn(&'a [u8]) -> Option<Self> = $read;
                read(bytes?)
            }
        })+
    };
}

column! {
    bool, "boolean", |b| pg::bool_from_sql(b).ok();
    i32, "integer", |b| pg::int4_from_sql(b).ok();
    i64, "bigint", |b| pg::int8_from_sql(b).ok();
    f64, "double precision", |b| pg::float8_from_sql(b).ok();
    &'a str, "text", |b| std::str::from_utf8(b).ok();
    String, "text", |b| std::str::from_utf8(b).ok().map(str::to_owned);
    &'a [u8], "bytea", Some;
    [u8; 16], "uuid", |b| b.try_into().ok();
}

impl<'a, T: Column<'a>> Column<'a> for Option<T> {
    const NAME: &'static str = T::NAME;

    fn read(bytes: Option<&'a [u8]>) -> Option<Self> {
        match bytes {
            None => Some(None),
            some => T::read(some).map(Some),
        }
    }
}

impl Row {
    /// Reads a column, counted from 0.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn get<'a, T: Column<'a>>(&'a self, column: usize) -> Result<T, DecodeError> {
        self.bytes(column).and_then(T::read).ok_or(DecodeError { column, wanted: T::NAME })
    }

    /// The bytes of a column: `None` when it is not there, `Some(None)` when it is NULL.
    fn bytes(&self, column: usize) -> Option<Option<&[u8]>> {
        // Two bytes of count, then for each column a length (-1 is NULL) and the value.
        let mut rest = self.0.get(2..)?;
        for at in 0.. {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let value = length.map_or(Some(None), |n| after.get(..n).map(Some))?;
            if at == column {
                return Some(value);
            }
            rest = &after[length.unwrap_or(0)..];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_and_checked() {
        let row = Row(Bytes::from_static(b"\0\x03\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\0\0\x02hi"));
        assert_eq!(row.get::<i32>(0), Ok(7));
        assert_eq!(row.get::<Option<i64>>(1), Ok(None));
        assert_eq!(row.get::<&str>(2), Ok("hi"));
        assert_eq!(row.get::<i64>(0), Err(DecodeError { column: 0, wanted: "bigint" }));
        assert!(row.get::<i64>(1).is_err() && row.get::<i64>(3).is_err());
        for cut in 0..row.0.len() {
            let _ = Row(row.0.slice(..cut)).get::<&str>(2);
        }
    }
}
