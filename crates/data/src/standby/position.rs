//! How far a server's log has come, and how far a standby has followed. No I/O but the one query.

use std::collections::VecDeque;
use std::time::Instant;

use sqlx::{FromRow, PgConnection};

/// Where a server stands in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub(super) struct Position {
    /// It follows another.
    pub(super) standby: bool,
    /// What is on disk of the log, or what a standby has replayed: bytes from its beginning.
    pub(super) at: i64,
    /// Positions of two timelines (after a failover) or of two systems have nothing to do with each other.
    pub(super) timeline: i32,
    pub(super) system: i64,
}

/// What is flushed, and not what is merely inserted: a commit is flushed before anybody is told of it, and only what is flushed is
/// sent to standbys. `min_recovery_end_timeline` moves on with a standby's replay, at the latest with its next restart point.
const QUERY: &str = "SELECT pg_catalog.pg_is_in_recovery() AS standby,
    (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END
        - '0/0'::pg_catalog.pg_lsn)::bigint AS at,
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())
        ELSE ('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 8))::bit(32)::int END AS timeline,
    (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system";

impl Position {
    pub(super) async fn of(conn: &mut PgConnection) -> Result<Self, sqlx::Error> {
        sqlx::query_as(QUERY).fetch_one(conn).await
    }
}

/// Where the server stood at some moments of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<(Instant, Position)>);

/// A standby that is further behind than this many rounds is of no use anyway.
const MOST: usize = 64;

impl Samples {
    /// Notes where the server stands; it was asked not before `asked`.
    pub(super) fn note(&mut self, asked: Instant, position: Position) {
        let goes_on =
            |last: &Position| (last.system, last.timeline) == (position.system, position.timeline) && last.at <= position.at;
        if !self.0.back().is_none_or(|(_, last)| goes_on(last)) {
            self.0.clear();
        }
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((asked, position));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The last moment before which everything that was committed has been replayed at `position`.
    pub(super) fn shown_at(&self, position: Position) -> Option<Instant> {
        let replayed = |server: &Position| {
            position.standby
                && (server.system, server.timeline) == (position.system, position.timeline)
                && server.at <= position.at
        };
        self.0.iter().rev().find(|(_, server)| replayed(server)).map(|(asked, _)| *asked)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn server(at: i64) -> Position {
        Position { standby: false, at, timeline: 1, system: 7 }
    }

    const fn standby(at: i64) -> Position {
        Position { standby: true, at, timeline: 1, system: 7 }
    }

    #[test]
    fn a_standby_shows_what_it_has_replayed() {
        let began = Instant::now();
        let second = |n: u64| began + Duration::from_secs(n);
        let mut samples = Samples::default();
        for (n, at) in [(0, 100), (1, 200), (2, 200), (3, 300)] {
            samples.note(second(n), server(at));
        }
        assert_eq!(samples.shown_at(standby(99)), None);
        assert_eq!(samples.shown_at(standby(150)), Some(second(0)));
        assert_eq!(samples.shown_at(standby(299)), Some(second(2)), "nothing was written in between");
        assert_eq!(samples.shown_at(standby(300)), Some(second(3)));
    }

    #[test]
    fn what_is_no_standby_of_this_server_on_its_timeline_proves_nothing() {
        let mut samples = Samples::default();
        samples.note(Instant::now(), server(100));
        for other in [server(500), Position { timeline: 2, ..standby(500) }, Position { system: 8, ..standby(500) }, standby(99)]
        {
            assert_eq!(samples.shown_at(other), None, "{other:?}");
        }
        // A failover: the new server's log began somewhere in the middle of the old one's.
        let later = Instant::now() + Duration::from_secs(1);
        samples.note(later, Position { timeline: 2, ..server(90) });
        assert_eq!(samples.shown_at(standby(500)), None, "it follows the old one");
        assert_eq!(samples.shown_at(Position { timeline: 2, ..standby(95) }), Some(later));
    }

    #[test]
    fn memory_is_bounded() {
        let mut samples = Samples::default();
        let began = Instant::now();
        (0..1_000).for_each(|at| samples.note(began, server(at)));
        assert_eq!(samples.0.len(), MOST);
    }
}
