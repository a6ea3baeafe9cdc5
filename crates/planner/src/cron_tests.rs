//! Patterns against the clocks of the world: held against counting minute by minute.

use jiff::civil::DateTime;
use proptest::prelude::*;

use super::*;

fn zone(name: &str) -> Zone {
    Zone::find(name).expect("a zone")
}

fn micros(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a moment").as_microsecond()
}

fn text(moment: i64) -> String {
    Timestamp::from_microsecond(moment).expect("a moment").to_string()
}

/// The moments from one to before another.
fn all(cron: &str, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
    let cron = Cron::parse(cron).expect("a pattern");
    let mut found = Vec::new();
    let mut at = from;
    while let Some(next) = cron.next(zone, at).filter(|next| *next < to) {
        assert!(next > at, "it goes on: {cron} {}", text(next));
        found.push(next);
        at = next;
    }
    found
}

fn texts(cron: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    all(cron, &self::zone(zone), micros(from), micros(to)).into_iter().map(text).collect()
}

#[test]
fn a_nightly_firing_follows_the_local_clock() {
    let found = texts("0 2 * * *", "Europe/Vienna", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
    assert_eq!(found.len(), 365, "one a day");
    assert_eq!(found[0], "2026-01-01T01:00:00Z");
    assert!(found.contains(&"2026-07-01T00:00:00Z".to_owned()), "summer");
}

#[test]
fn what_spring_leaps_over_comes_once_when_it_has_leapt() {
    // On the 29th of March 2026, Vienna's clock goes from 02:00 to 03:00.
    let found = texts("30 2 * * *", "Europe/Vienna", "2026-03-28T12:00:00Z", "2026-03-31T12:00:00Z");
    assert_eq!(found, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]);
    // Several that are leapt over, and the one at the leap, are one.
    let found = texts("0,30 2,3 * * *", "Europe/Vienna", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
    assert_eq!(found, ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
    // Where the leap is at midnight, the day begins later.
    let found = texts("0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", "2026-09-07T12:00:00Z");
    assert_eq!(found, ["2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"]);
}

#[test]
fn what_autumn_has_twice_comes_once() {
    // On the 25th of October 2026, Vienna's clock goes from 03:00 back to 02:00.
    let found = texts("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    // Also when somebody asks in the second of the two hours.
    let next = Cron::parse("30 2 * * *").expect("a pattern").next(&zone("Europe/Vienna"), micros("2026-10-25T01:10:00Z"));
    assert_eq!(next.map(text).as_deref(), Some("2026-10-26T01:30:00Z"));
}

#[test]
fn every_hour_is_every_hour() {
    for day in ["2026-03-29", "2026-10-25"] {
        let (from, to) = (format!("{day}T00:00:00Z"), format!("{day}T05:00:00Z"));
        let found = texts("0 * * * *", "Europe/Vienna", &from, &to);
        assert_eq!(found.len(), 4, "{day}: {found:?}");
        let found = texts("*/15 * * * *", "Europe/Vienna", &from, &to);
        assert_eq!(found.len(), 19, "{day}: {found:?}");
    }
    // Half an hour's leap back, from two to half past one: that comes twice, half an hour apart.
    let found = texts("30 * * * *", "Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-04T17:00:00Z");
    assert_eq!(found, ["2026-04-04T13:30:00Z", "2026-04-04T14:30:00Z", "2026-04-04T15:00:00Z", "2026-04-04T16:00:00Z"]);
}

#[test]
fn days_and_months_are_as_cron_has_them() {
    let vienna =
        |cron: &str, from: &str| Cron::parse(cron).expect("a pattern").next(&zone("Europe/Vienna"), micros(from)).map(text);
    assert_eq!(vienna("0 0 29 2 *", "2026-01-01T00:00:00Z").as_deref(), Some("2028-02-28T23:00:00Z"));
    assert_eq!(vienna("15 8 * * MON-FRI", "2026-11-21T00:00:00Z").as_deref(), Some("2026-11-23T07:15:00Z"));
    assert_eq!(vienna("0 12 L * *", "2026-11-21T00:00:00Z").as_deref(), Some("2026-11-30T11:00:00Z"));
    assert_eq!(vienna("0 12 13 * FRI", "2026-11-01T00:00:00Z").as_deref(), Some("2026-11-06T11:00:00Z"), "either day");
    assert_eq!(vienna("@weekly", "2026-11-21T00:00:00Z").as_deref(), Some("2026-11-21T23:00:00Z"));
}

#[test]
fn texts_that_are_no_patterns_are_refused_with_the_reason() {
    for bad in [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 24 * * *",
        "x y z a b",
        "0 0 32 1 *",
        "@reboot",
        "@hourly @daily",
        "0 2 * * *\0",
    ] {
        assert!(matches!(Cron::parse(bad), Err(CronError::Pattern { .. })), "{bad}: {:?}", Cron::parse(bad));
    }
    assert!(matches!(Cron::parse(&"* ".repeat(500)), Err(CronError::Pattern { .. })));
    assert!(matches!(Cron::parse("0 0 30 2 *"), Err(CronError::Never(_))));
    // Soon: 500 of them took minutes when days were looked for until the year 5000.
    for n in 0..500 {
        let never = format!("{} {} 31 2,4,6,9,11 *", n % 60, n % 24);
        assert!(matches!(Cron::parse(&never), Err(CronError::Never(_))), "{never}");
    }
    // What is rarest comes: a leap day on each day of the week, and the last of what months have.
    for rare in ["0 0 29 2 *", "59 23 31 12 *", "0 0 * 2 MON#5", "0 0 31 1 *", "0 0 L 2 *", "0 0 29W 2 *"] {
        assert!(Cron::parse(rare).is_ok(), "{rare}");
    }
    for day in 0..7 {
        let rare = format!("0 0 29 2 +{day}");
        let cron = Cron::parse(&rare).expect("a leap day");
        assert!(cron.next(&Zone::utc(), micros("2026-01-01T00:00:00Z")).is_some(), "{rare}");
    }
    assert!(matches!(Zone::find("Nowhere/At_All"), Err(CronError::Zone(_))));
    assert_eq!(Cron::parse("  0   2 * * *  ").expect("a pattern").as_str(), "0 2 * * *");
}

#[test]
fn windows_hold_put_off_and_go_past_midnight() {
    let vienna = zone("Europe/Vienna");
    let night = Window::parse("22:00-06:00").expect("a window");
    assert_eq!(night.to_string(), "22:00-06:00");
    let put_off = |window: Window, at: &str| text(window.put_off(&vienna, micros(at)));
    assert_eq!(put_off(night, "2026-11-21T23:30:00Z"), "2026-11-21T23:30:00Z", "half past midnight");
    assert_eq!(put_off(night, "2026-11-21T12:00:00Z"), "2026-11-21T21:00:00Z");
    let early = Window::new(60, 300).expect("a window");
    assert_eq!(put_off(early, "2026-11-21T12:00:00Z"), "2026-11-22T00:00:00Z", "tomorrow");
    assert_eq!(put_off(early, "2026-11-20T23:30:00Z"), "2026-11-21T00:00:00Z", "today");
    // It begins in the hour that spring leaps over: with the leap.
    let leapt = Window::parse("02:30-05:00").expect("a window");
    assert_eq!(put_off(leapt, "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
    for bad in ["", "22:00", "22-06", "24:00-06:00", "22:60-06:00", "06:00-06:00", "-1:00-2:00"] {
        assert!(Window::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn tenants_are_spread_by_tier_and_evenly() {
    let span = Duration::from_secs(900);
    let place = |tier, no| spread(span, tier, 3, TenantNo::new(no).expect("a number"));
    for tier in 0..3 {
        let mut places: Vec<Duration> = (1..=1_000).map(|no| place(tier, no)).collect();
        places.sort_unstable();
        let begin = span / 3 * u32::try_from(tier).expect("small");
        assert!(places[0] >= begin && places[999] < begin + span / 3);
        let widest = places.windows(2).map(|pair| pair[1] - pair[0]).max().expect("gaps");
        assert!(widest < Duration::from_secs(1), "300 s for 1000: {widest:?}");
    }
    assert_eq!(place(1, 7), place(1, 7));
    assert_eq!(spread(Duration::ZERO, 0, 0, TenantNo::new(1).expect("a number")), Duration::ZERO);
}

/// Fields as people write them.
fn field(from: u8, to: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just("*".to_owned()),
        3 => (from..=to).prop_map(|n| n.to_string()),
        2 => (from..=to, from..=to).prop_map(|(a, b)| format!("{},{}", a.min(b), a.max(b))),
        1 => (from..=to, from..=to).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (2_u8..20).prop_map(|n| format!("*/{n}")),
    ]
}

const ZONES: &[&str] = &[
    "UTC",
    "Europe/Vienna",
    "America/Chicago",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Five days around each change of the clock: what comes is what counting local minutes says, each once.
    #[test]
    fn each_local_time_comes_exactly_once(
        (minute, hour) in (field(0, 59), field(0, 23)), at in 0..ZONES.len(), day in 0..366_i64,
    ) {
        prop_assume!(hour != "*");
        let zone = zone(ZONES[at]);
        let cron = format!("{minute} {hour} * * *");
        let pattern = cron.parse::<croner::Cron>().expect("a pattern");
        let near = micros("2026-01-01T00:00:00Z") + day * 86_400_000_000;
        let change = zone.0.following(Timestamp::from_microsecond(near).expect("a moment")).next().map_or(near, |c| c.timestamp().as_microsecond() / 60_000_000 * 60_000_000);
        let (from, to) = (change - 2 * 86_400_000_000, change + 3 * 86_400_000_000);
        let mut expected = Vec::new();
        let mut local: DateTime = zone.0.to_datetime(Timestamp::from_microsecond(from).expect("a moment") ).date().yesterday().expect("a day").at(0, 0, 0, 0);
        for _ in 0..(7 * 1_440) {
            if pattern.is_time_matching(&local).expect("an answer") {
                let moment = zone.first(local).expect("a moment").as_microsecond();
                if moment > from && moment < to && expected.last() != Some(&moment) {
                    expected.push(moment);
                }
            }
            local = local.checked_add(1.minute()).expect("a minute");
        }
        let found = all(&cron, &zone, from, to);
        let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected).map(|(a, b)| (text(*a), text(*b)));
        prop_assert!(found == expected, "{} in {}: {} for {}, {:?}", cron, ZONES[at], found.len(), expected.len(), differs);
    }

    /// Every moment whose local time matches, and no other.
    #[test]
    fn every_hour_counts_all_hours(minute in field(0, 59), at in 0..ZONES.len(), day in 0..366_i64) {
        let zone = zone(ZONES[at]);
        let cron = format!("{minute} * * * *");
        let pattern = cron.parse::<croner::Cron>().expect("a pattern");
        let near = micros("2026-01-01T00:00:00Z") + day * 86_400_000_000;
        let change = zone.0.following(Timestamp::from_microsecond(near).expect("a moment")).next().map_or(near, |c| c.timestamp().as_microsecond() / 60_000_000 * 60_000_000);
        let (from, to) = (change - 36_000_000_000, change + 36_000_000_000);
        let expected: Vec<i64> = (1..1_200).map(|n| from + n * 60_000_000).filter(|moment| {
            let local = zone.0.to_datetime(Timestamp::from_microsecond(*moment).expect("a moment"));
            pattern.is_time_matching(&local).expect("an answer")
        }).collect();
        let found = all(&cron, &zone, from, to);
        let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected).map(|(a, b)| (text(*a), text(*b)));
        prop_assert!(found == expected, "{} in {}: {} for {}, {:?}", cron, ZONES[at], found.len(), expected.len(), differs);
    }

    #[test]
    fn what_a_window_puts_off_is_in_it(from in 0..1_440_u16, to in 0..1_440_u16, at in 0..ZONES.len(), minute in 0..527_040_i64) {
        prop_assume!(from != to);
        let window = Window::new(from, to).expect("a window");
        let zone = zone(ZONES[at]);
        let moment = micros("2026-01-01T00:00:00Z") + minute * 60_000_000;
        let later = window.put_off(&zone, moment);
        prop_assert!(later >= moment && later - moment <= 26 * 3_600_000_000);
        prop_assert_eq!(window.put_off(&zone, moment), later);
        // A short window may lie in the hour that spring leaps over, as a whole: then it begins where the leap ends.
        let local = zone.0.to_datetime(Timestamp::from_microsecond(later).expect("a moment"));
        let leapt = i32::from(local.hour()) * 60 + i32::from(local.minute()) != i32::from(from);
        prop_assert!(window.holds(&zone, later) || leapt, "{} {}", window, text(later));
    }

    #[test]
    fn no_text_panics(text in ".{0,40}") {
        let _ = Cron::parse(&text);
        let _ = Window::parse(&text);
        let _ = Zone::find(&text);
    }
}
