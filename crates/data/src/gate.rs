//! The statement gate: closes what grants in the database cannot (LISTEN, LOCK TABLE, EXPLAIN, SET, PREPARE, ...).
//!
//! One statement, extended protocol, first word one of seven. The extended protocol makes the server itself refuse a second
//! statement in the same text, so the first word decides for the whole. What passes leaves nothing behind on the connection:
//! no setting, no held cursor, no prepared name, no listen; that is why a connection is used again without DISCARD ALL.
//! Not for: judging what a statement reads or writes; that is the database's own work.

/// A statement that may not run in a tenant's transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{word} may not run in a tenant's transaction: only SELECT, INSERT, UPDATE, DELETE, WITH, VALUES and TABLE may; \
     transactions end with commit() or by dropping"
)]
pub struct Refusal {
    /// The first word, at most 20 characters of it, upper case.
    pub word: String,
}

/// Checks a statement.
///
/// # Errors
/// [`Refusal`] with the first word.
pub fn check(sql: &str) -> Result<(), Refusal> {
    const ALLOWED: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES", "TABLE"];
    let word = first_word(sql);
    if ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(word)) {
        return Ok(());
    }
    let mut word: String = word.chars().take(20).collect::<String>().to_uppercase();
    if word.is_empty() {
        word.push_str("an empty or unreadable statement");
    }
    Err(Refusal { word })
}

/// The first keyword: after white space, comments and opening parentheses. Empty when there is none.
fn first_word(sql: &str) -> &str {
    let bytes = sql.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at) {
            // What Postgres's scanner takes for space, and no more: \v became space in 16 only, so it is not skipped.
            Some(b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b'(') => at += 1,
            Some(b'-') if bytes.get(at + 1) == Some(&b'-') => {
                at = bytes[at..].iter().position(|b| matches!(b, b'\n' | b'\r')).map_or(bytes.len(), |n| at + n);
            }
            Some(b'/') if bytes.get(at + 1) == Some(&b'*') => match comment_end(bytes, at) {
                Some(end) => at = end,
                None => return "",
            },
            _ => break,
        }
    }
    let end = bytes[at..].iter().position(|b| !b.is_ascii_alphabetic()).map_or(bytes.len(), |n| at + n);
    // `SELECT_x`, `SELECT$` or `SELECTé` would be other words.
    if matches!(bytes.get(end), Some(b) if *b == b'_' || *b == b'$' || b.is_ascii_digit() || !b.is_ascii()) {
        return "";
    }
    sql.get(at..end).unwrap_or_default()
}

/// Where a block comment ends; they nest in Postgres.
fn comment_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        match bytes.get(at..at + 2)? {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_changes_pass() {
        for sql in [
            "SELECT 1",
            "  select\t1",
            "((select 1) union (select 2))",
            "-- why\n/* a /* nested */ one */ WITH x AS (SELECT 1) TABLE x",
            "VALUES (1)",
            "insert into t values (1)",
            "DELETE FROM t",
            "UPDATE t SET a = 1",
            "select/**/1",
            "select'x'",
            "--\rselect 1",
        ] {
            assert_eq!(check(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for sql in [
            "",
            ";",
            "; SELECT 1",
            "/* SELECT",
            "-- SELECT 1",
            "/**/*/ SELECT 1",
            "SET x = 1",
            "set local role none",
            "RESET ALL",
            "COPY t TO STDOUT",
            "LISTEN c",
            "NOTIFY c",
            "UNLISTEN *",
            "LOCK TABLE t",
            "EXPLAIN SELECT 1",
            "DO $$ BEGIN END $$",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "END",
            "ABORT",
            "SAVEPOINT a",
            "PREPARE p AS SELECT 1",
            "EXECUTE p",
            "DEALLOCATE ALL",
            "DECLARE c CURSOR FOR SELECT 1",
            "FETCH c",
            "CLOSE ALL",
            "DISCARD ALL",
            "CALL p()",
            "CREATE TEMP TABLE t()",
            "ALTER ROLE r PASSWORD 'x'",
            "GRANT ALL ON t TO public",
            "TRUNCATE t",
            "VACUUM",
            "SHOW ALL",
            "\u{b}SELECT 1",
            "\u{a0}SELECT 1",
            "\u{feff}SELECT 1",
            "SELECTED",
            "SELECT_1",
            "\"SELECT\"",
            "\0SELECT 1",
            "merge into a using b on true when matched then do nothing",
            "REFRESH MATERIALIZED VIEW v",
            "IMPORT FOREIGN SCHEMA s",
            "SECURITY LABEL ON ROLE r IS 'x'",
        ] {
            assert!(check(sql).is_err(), "{sql:?}");
        }
    }
}
