//! How a tenant begins: the application's seed, cut into statements that can be sent with parameters, one by one.
//!
//! Postgres takes parameters with a single statement only, and exactly those that the statement names; a seed is several
//! statements with up to four. Knows strings, quoted names, dollar quotes and comments (PostgreSQL manual, 4.1).

use insula_core::TenantNo;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::{Error, transient};
use crate::server::{name, run as run_sql};
use crate::tenant::bind;

/// What a seed is given.
#[derive(Clone, Copy, Debug)]
pub struct SeedValues<'a> {
    /// `$1`: the first user's email.
    pub email: &'a str,
    /// `$2`: the Argon2 hash of its password, in PHC form.
    pub hash: &'a str,
    /// `$3`: the tenant's name.
    pub name: &'a str,
    /// `$4`: its settings.
    pub settings: &'a Value,
}

/// Runs the seed for a tenant in a schema, inside the transaction that is open on `conn`: bound to the tenant, so that row security
/// holds for the seed too.
///
/// # Errors
/// [`Error::Seed`], or what Postgres says.
pub async fn seed(conn: &mut PgConnection, no: TenantNo, schema: &str, seed: &str, values: SeedValues<'_>) -> Result<(), Error> {
    bind(conn, no).await?;
    run_sql(conn, format!("SET LOCAL search_path = {}", name(schema)?)).await?;
    for statement in statements(seed) {
        run(conn, statement, values).await?;
    }
    Ok(())
}

async fn run(conn: &mut PgConnection, statement: Statement, values: SeedValues<'_>) -> Result<(), Error> {
    let mut query = sqlx::query(AssertSqlSafe(statement.sql));
    for parameter in statement.parameters {
        query = match parameter {
            1 => query.bind(values.email),
            2 => query.bind(values.hash),
            3 => query.bind(values.name),
            4 => query.bind(values.settings),
            other => return Err(Error::Seed(format!("${other}: a seed has $1 (email), $2 (hash), $3 (name) and $4 (settings)"))),
        };
    }
    match query.execute(conn).await {
        Ok(_) => Ok(()),
        Err(error) if transient(&error) => Err(error.into()),
        Err(error) => Err(Error::Seed(error.as_database_error().map_or_else(|| error.to_string(), |e| e.message().to_owned()))),
    }
}

/// One statement, with its parameters numbered from one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    sql: String,
    /// Which of the seed's parameters are its own first, second, ...
    parameters: Vec<usize>,
}

/// Cuts at the semicolons that end statements.
fn statements(seed: &str) -> Vec<Statement> {
    let mut cut = Vec::new();
    let mut now = Statement { sql: String::new(), parameters: Vec::new() };
    let mut rest = seed;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let len = match c {
            ';' => {
                cut.push(std::mem::replace(&mut now, Statement { sql: String::new(), parameters: Vec::new() }));
                rest = &rest[1..];
                before = ' ';
                continue;
            }
            '\'' => quoted(rest, '\'', matches!(before, 'e' | 'E')),
            '"' => quoted(rest, '"', false),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            '$' if !is_name(before) => match parameter(rest) {
                Some((number, len)) => {
                    let own = now.parameters.iter().position(|p| *p == number).unwrap_or_else(|| {
                        now.parameters.push(number);
                        now.parameters.len() - 1
                    });
                    now.sql += &format!("${}", own + 1);
                    rest = &rest[len..];
                    before = '0';
                    continue;
                }
                None => dollar_quoted(rest),
            },
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at(len);
        before = token.chars().next_back().unwrap_or(' ');
        now.sql += token;
        rest = after;
    }
    cut.push(now);
    cut.retain(|s| !only_space_and_comments(&s.sql));
    cut
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Length of a quoted token, its quotes included; to the end when it is not closed (Postgres then says so).
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => drop(chars.next()),
                _ => return at + c.len_utf8(),
            }
        }
    }
    text.len()
}

/// Length of a comment; they nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// `$12`: the number and its length.
fn parameter(text: &str) -> Option<(usize, usize)> {
    let digits = text[1..].bytes().take_while(u8::is_ascii_digit).count();
    Some((text[1..=digits].parse().ok()?, digits + 1))
}

/// Length of `$tag$…$tag$`, or 1 when this is a dollar of its own.
fn dollar_quoted(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    if !tag[1..=end].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
}

fn only_space_and_comments(sql: &str) -> bool {
    let rest = sql.trim_start();
    if let Some(comment) = rest.strip_prefix("--") {
        return comment.split_once('\n').is_none_or(|(_, after)| only_space_and_comments(after));
    }
    if rest.starts_with("/*") {
        return only_space_and_comments(&rest[comment(rest)..]);
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(seed: &str) -> Vec<(String, Vec<usize>)> {
        statements(seed).into_iter().map(|s| (s.sql.trim().to_owned(), s.parameters)).collect()
    }

    #[test]
    fn statements_are_cut_and_their_parameters_renumbered() {
        let seed = "INSERT INTO a VALUES ($2, $1, $2); -- $3; ;\nINSERT INTO b VALUES ('it''s; $1', E'a\\';$4', $3);;\n /* ; /* ; */ */ ";
        assert_eq!(
            cut(seed),
            vec![
                ("INSERT INTO a VALUES ($1, $2, $1)".to_owned(), vec![2, 1]),
                ("-- $3; ;\nINSERT INTO b VALUES ('it''s; $1', E'a\\';$4', $1)".to_owned(), vec![3]),
            ]
        );
    }

    #[test]
    fn bodies_and_quoted_names_stay_whole() {
        let seed = "DO $do$ BEGIN PERFORM ';$1'; END $do$; SELECT $$;$1$$, \"a;$1\" , x$1 FROM t";
        let cut = cut(seed);
        assert_eq!(cut.len(), 2);
        assert_eq!(cut[0], ("DO $do$ BEGIN PERFORM ';$1'; END $do$".to_owned(), vec![]));
        assert_eq!(cut[1].1, Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_cut_without_loss(seed in "[-a-zE$'\"/*; 0-9\\\\é\n]{0,60}") {
            let cut = statements(&seed);
            prop_assert!(cut.iter().map(|s| s.sql.len()).sum::<usize>() <= seed.len());
        }
    }
}
