//! Certificates whose time runs out: said in the log and by two metrics, while there is time to put new ones.
//!
//! For: those of the catalog. Not for: renewing them. Always: a certificate is named in the log once for each day that it has left, and in no label.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use insula_api::certificate::Certificate;

use crate::handle::Control;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(600);

/// Less than this is worth a warning: enough for people, and more than automatic renewal leaves (a third of 90 days, or of 47).
const SOON: TimeDelta = TimeDelta::days(14);

/// Looks again and again.
pub(crate) async fn run(control: Control) {
    let mut told = Told::default();
    loop {
        match control.certificates().await {
            Ok(all) => told.look(&all, Utc::now()),
            Err(error) => tracing::debug!(%error, "the certificates were not looked at"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// For how many whole days from now it is good, when that is a matter of days; negative when it is over.
fn days_left(one: &Certificate, now: DateTime<Utc>) -> Option<i64> {
    let left = one.not_after? - now;
    (left < SOON).then(|| left.num_seconds().div_euclid(86_400))
}

/// What the log was told last, by name: days.
#[derive(Default)]
struct Told(BTreeMap<String, i64>);

impl Told {
    fn look(&mut self, all: &[Certificate], now: DateTime<Utc>) {
        for (name, days) in self.news(all, now) {
            if days < 0 {
                tracing::warn!(name, "a certificate is not good any more: put a new one, or take it away");
            } else {
                tracing::warn!(name, days, "a certificate is good for some days only: put a new one");
            }
        }
        let ended = self.0.values().filter(|days| **days < 0).count();
        // There are 10,000 at most.
        metrics::gauge!("insula_certificates_ending").set(self.0.len() as f64);
        metrics::gauge!("insula_certificates_ended").set(ended as f64);
    }

    /// Those that the log has not been told of today.
    fn news<'a>(&mut self, all: &'a [Certificate], now: DateTime<Utc>) -> Vec<(&'a str, i64)> {
        let soon: Vec<_> = all.iter().filter_map(|one| Some((one.name.as_str(), days_left(one, now)?))).collect();
        let news = soon.iter().copied().filter(|(name, days)| self.0.get(*name) != Some(days)).collect();
        self.0 = soon.into_iter().map(|(name, days)| (name.to_owned(), days)).collect();
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_once_a_day_while_its_time_runs_out() {
        let now: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
        let one = |name: &str, left: Option<TimeDelta>| Certificate {
            name: name.into(),
            fingerprint: String::new(),
            updated_at: now,
            not_after: left.map(|left| now + left),
        };
        let mut all = vec![
            one("long", Some(TimeDelta::days(14))),
            one("over", Some(TimeDelta::seconds(-1))),
            one("soon", Some(TimeDelta::days(14) - TimeDelta::seconds(1))),
            one("unknown", None),
        ];
        let mut told = Told::default();
        assert_eq!(told.news(&all, now), [("over", -1), ("soon", 13)]);
        assert_eq!(told.news(&all, now + TimeDelta::hours(1)), [("long", 13)]);
        assert_eq!(told.news(&all, now + TimeDelta::hours(2)), []);
        assert_eq!(told.news(&all, now + TimeDelta::days(1)), [("over", -2), ("soon", 12)]);
        // Renewed, or taken away.
        all[0].not_after = Some(now + TimeDelta::days(90));
        all.truncate(2);
        assert_eq!(told.news(&all, now + TimeDelta::days(1)), []);
        assert_eq!(told.0.keys().collect::<Vec<_>>(), ["over"]);
    }
}
