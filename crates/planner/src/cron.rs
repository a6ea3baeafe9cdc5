//! When something comes again: cron patterns in a time zone, windows of the day, a tenant's place among many.
//!
//! For: arithmetic on moments, which are microseconds since 1970 (as databases count). Not for: clocks, or carrying anything out.
//! Always:
//! - the next moment is after the one asked for, and the same for whoever asks;
//! - a pattern that names hours follows the local clock: each local time that it names comes exactly once. One that the clock leaps over
//!   in spring comes when it has leapt; of one that comes twice in autumn the first counts;
//! - a pattern for every hour (`*` in its second field) follows time as it passes: nothing is left out in spring, and the hour that comes
//!   twice in autumn counts twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use insula_core::TenantNo;
use jiff::civil::{DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;

/// The longest pattern, in bytes.
const LONGEST: usize = 200;

/// Why a text is no pattern, no zone or no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields as cron has them.
    #[error("\"{text}\" is no cron pattern (minute, hour, day of month, month, day of week): {reason}")]
    Pattern {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It names no day that there is.
    #[error("\"{0}\" never comes: it names no day that there is")]
    Never(String),
    /// No zone of that name.
    #[error("there is no time zone \"{0}\"; names are those of IANA, like Europe/Vienna")]
    Zone(String),
    /// Not a window of the day.
    #[error("\"{0}\" is no window of the day; one is written 22:00-06:00")]
    Window(String),
}

/// A cron pattern: minute, hour, day of month, month, day of week, as POSIX and Vixie cron have them, with names, steps, `L`, `W` and `#`;
/// or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
#[derive(Clone)]
pub struct Cron {
    text: Arc<str>,
    pattern: Arc<croner::Cron>,
    every_hour: bool,
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).finish()
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl std::str::FromStr for Cron {
    type Err = CronError;
    fn from_str(text: &str) -> Result<Self, CronError> {
        Self::parse(text)
    }
}

impl Cron {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`CronError::Pattern`] with the reason; [`CronError::Never`] for one like the 30th of February.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        use croner::parser::{CronParser, Seconds, Year};
        let fault = |reason: String| CronError::Pattern { text: text.chars().take(LONGEST).collect(), reason };
        if text.len() > LONGEST {
            return Err(fault(format!("it has more than {LONGEST} bytes")));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let nickname = fields.len() == 1 && text.trim().starts_with('@');
        if fields.len() != 5 && !nickname {
            return Err(fault(format!("it has {} fields", fields.len())));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|error| fault(error.to_string()))?;
        let every_hour = fields.get(1).is_some_and(|hours| *hours == "*") || text.trim().eq_ignore_ascii_case("@hourly");
        let cron = Self { text: fields.join(" ").into(), pattern: Arc::new(pattern), every_hour };
        if cron.comes() { Ok(cron) } else { Err(CronError::Never(text.to_owned())) }
    }

    /// Whether there is a day that it names. The search goes on to the end of croner's calendar, so it begins near that: in the last forty years,
    /// of which ten are leap years, each day of the year falls on each day of the week.
    fn comes(&self) -> bool {
        let years = i16::try_from(croner::YEAR_UPPER_LIMIT - 40);
        let from = years.ok().and_then(|year| DateTime::new(year, 1, 1, 0, 0, 0, 0).ok());
        from.is_some_and(|from| self.pattern.find_next_occurrence(&from, true).is_ok())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first moment after `after` at which it comes. `None` past the end of the calendar.
    #[must_use]
    pub fn next(&self, zone: &Zone, after: i64) -> Option<i64> {
        let after = Timestamp::from_microsecond(after).ok()?;
        let next = if self.every_hour { self.next_as_time_passes(&zone.0, after) } else { self.next_local(zone, after) };
        next.map(Timestamp::as_microsecond)
    }

    /// Local times in their order; each has its one moment, and moments do not go back while local times go on.
    fn next_local(&self, zone: &Zone, after: Timestamp) -> Option<Timestamp> {
        let mut local = zone.0.to_datetime(after);
        loop {
            local = self.pattern.find_next_occurrence(&local, false).ok()?;
            let moment = zone.first(local)?;
            // What comes for the second time in autumn has been; what spring leapt over came with the leap.
            if moment > after {
                return Some(moment);
            }
        }
    }

    /// From one change of the zone's offset to the next; in between, local time passes as time does.
    fn next_as_time_passes(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        loop {
            let offset = zone.to_offset(from);
            let local = self.pattern.find_next_occurrence(&offset.to_datetime(from), inclusive).ok()?;
            let moment = offset.to_timestamp(local).ok()?;
            match zone.following(from).next() {
                Some(change) if moment >= change.timestamp() => (from, inclusive) = (change.timestamp(), true),
                _ => return Some(moment),
            }
        }
    }
}

/// A time zone with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone of a name that IANA gives: this machine's rules, or those that came with the program where it has none.
    ///
    /// # Errors
    /// [`CronError::Zone`].
    pub fn find(name: &str) -> Result<Self, CronError> {
        TimeZone::get(name).map(Self).map_err(|_| CronError::Zone(name.chars().take(LONGEST).collect()))
    }

    /// The one moment that a local time stands for: the first of two, and the end of a gap for one that is in it.
    fn first(&self, local: DateTime) -> Option<Timestamp> {
        let ambiguous = self.0.to_ambiguous_timestamp(local);
        match ambiguous.offset() {
            AmbiguousOffset::Gap { before, .. } => {
                // With the offset from before the gap it lies at or behind the leap.
                let behind = before.to_timestamp(local).ok()?.checked_add(1.nanosecond()).ok()?;
                self.0.preceding(behind).next().map(|leap| leap.timestamp())
            }
            _ => ambiguous.earlier().ok(),
        }
    }
}

/// A window of each day in a zone, in minutes since midnight: may go past midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    from: u16,
    to: u16,
}

impl Window {
    /// From one minute of the day to before another.
    ///
    /// # Errors
    /// [`CronError::Window`] when one is no minute of a day, or both are the same.
    pub fn new(from: u16, to: u16) -> Result<Self, CronError> {
        if from >= 1_440 || to >= 1_440 || from == to {
            return Err(CronError::Window(format!("{from}-{to} (minutes)")));
        }
        Ok(Self { from, to })
    }

    /// Reads `22:00-06:00`.
    ///
    /// # Errors
    /// [`CronError::Window`].
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let fault = || CronError::Window(text.chars().take(LONGEST).collect());
        let minute = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let (from, to) = text.split_once('-').ok_or_else(fault)?;
        Self::new(minute(from).ok_or_else(fault)?, minute(to).ok_or_else(fault)?)
    }

    /// Its first minute.
    #[must_use]
    pub const fn from(self) -> u16 {
        self.from
    }

    /// The minute that it ends before.
    #[must_use]
    pub const fn to(self) -> u16 {
        self.to
    }

    /// Whether a moment is in it.
    #[must_use]
    pub fn holds(self, zone: &Zone, moment: i64) -> bool {
        Timestamp::from_microsecond(moment).is_ok_and(|moment| self.has(zone.0.to_datetime(moment)))
    }

    fn has(self, local: DateTime) -> bool {
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or_default();
        if self.from < self.to { (self.from..self.to).contains(&minute) } else { minute >= self.from || minute < self.to }
    }

    /// The moment itself when it is in the window, else when the window next begins.
    #[must_use]
    pub fn put_off(self, zone: &Zone, moment: i64) -> i64 {
        let put_off = || {
            let now = Timestamp::from_microsecond(moment).ok()?;
            let local = zone.0.to_datetime(now);
            if self.has(local) {
                return Some(moment);
            }
            let time = Time::new(i8::try_from(self.from / 60).ok()?, i8::try_from(self.from % 60).ok()?, 0, 0).ok()?;
            let day = if time > local.time() { local.date() } else { local.date().tomorrow().ok()? };
            Some(zone.first(day.to_datetime(time))?.as_microsecond().max(moment))
        };
        put_off().unwrap_or(moment)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, self.to / 60, self.to % 60)
    }
}

/// How long after the common moment a tenant's turn comes, when what falls together is spread over `span`: the tenants of one tier after
/// those of the tier before, each tier over a part of the same length, evenly. Depends on nobody else: a tenant keeps its
/// place while others come and go.
#[must_use]
pub fn spread(span: Duration, tier: usize, tiers: usize, tenant: TenantNo) -> Duration {
    // Multiples of the golden ratio fill an interval evenly, however many there are (Knuth, TAOCP 3, 6.4).
    let hash = tenant.get().cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let part = span / u32::try_from(tiers.max(1)).unwrap_or(u32::MAX);
    let begin = part * u32::try_from(tier.min(tiers.saturating_sub(1))).unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "a place in a span")]
    let place = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    begin + part.mul_f64(place)
}
