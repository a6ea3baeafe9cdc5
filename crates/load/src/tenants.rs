//! Who sends how much: `heavy:1000rps,light:10rps`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// How often a tenant asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Requests a second, whatever the answers do.
    PerSecond(f64),
    /// As fast as its connections go: a closed loop, for measuring the most that goes through. Latency then has no intended start to
    /// count from, and says little.
    Max,
}

/// One tenant's part of the load.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantLoad {
    /// A slug, or a whole host name when it holds a dot.
    pub name: String,
    /// How much.
    pub rate: Rate,
}

/// The most tenants of one run: each has histograms and connections.
pub const MOST_TENANTS: usize = 500;

/// The fastest rate that is meant seriously.
const FASTEST: f64 = 10_000_000.0;

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}rps"),
            Self::Max => f.write_str("max"),
        }
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let (number, per) = if let Some(number) = text.strip_suffix("rps").or_else(|| text.strip_suffix("/s")) {
            (number, 1.0)
        } else if let Some(number) = text.strip_suffix("rpm").or_else(|| text.strip_suffix("/min")) {
            (number, 60.0)
        } else {
            return Err(Error::Invalid(format!("{text:?} is no rate: write 10rps, 90rpm or max")));
        };
        match decimal(number).map(|rate| rate / per) {
            Some(rate) if rate > 0.0 && rate <= FASTEST => Ok(Self::PerSecond(rate)),
            _ => Err(Error::Invalid(format!("{text:?} is no rate: a number above 0, up to {FASTEST}, then rps or rpm"))),
        }
    }
}

/// Digits with at most one point: neither signs nor exponents, neither `inf` nor `nan`.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text != ".";
    plain.then(|| text.parse().ok()).flatten()
}

/// Reads a comma-separated list of `NAME:RATE`; `t[1-50]:10rps` stands for fifty tenants.
///
/// # Errors
/// [`Error::Invalid`], quoting the part that is wrong.
pub fn parse(text: &str) -> Result<Vec<TenantLoad>, Error> {
    let mut loads = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (name, rate) = part
            .rsplit_once(':')
            .ok_or_else(|| Error::Invalid(format!("{part:?} is no tenant with its rate: write NAME:RATE, as light:10rps")))?;
        let rate = rate.parse()?;
        for name in expand(name)? {
            check_name(&name)?;
            loads.push(TenantLoad { name, rate });
        }
        if loads.len() > MOST_TENANTS {
            return Err(Error::Invalid(format!("more than {MOST_TENANTS} tenants")));
        }
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = loads.iter().find(|load| !seen.insert(load.name.as_str())) {
        return Err(Error::Invalid(format!("{:?} is there twice", twice.name)));
    }
    Ok(loads)
}

fn check_name(name: &str) -> Result<(), Error> {
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
    if good {
        return Ok(());
    }
    Err(Error::Invalid(format!("{name:?} is no tenant: write its slug, or a whole host name (a-z, 0-9, hyphens, dots)")))
}

/// `t[1-3]x` is `t1x`, `t2x`, `t3x`; `t[01-10]` keeps the width.
fn expand(name: &str) -> Result<Vec<String>, Error> {
    let Some((head, rest)) = name.split_once('[') else { return Ok(vec![name.to_owned()]) };
    let fault = || Error::Invalid(format!("{name:?} has no range like [1-50]"));
    let (range, tail) = rest.split_once(']').ok_or_else(fault)?;
    let (from, to) = range.split_once('-').ok_or_else(fault)?;
    let (first, last): (usize, usize) = (from.parse().map_err(|_| fault())?, to.parse().map_err(|_| fault())?);
    if last < first || last - first >= MOST_TENANTS {
        return Err(fault());
    }
    let width = if from.starts_with('0') { from.len() } else { 0 };
    Ok((first..=last).map(|n| format!("{head}{n:0width$}{tail}")).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> String {
        parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn a_list_of_tenants_with_rates() {
        let loads = parse("heavy:1000rps, light:90rpm,docs.acme.example:max").unwrap();
        let pairs: Vec<_> = loads.iter().map(|l| (l.name.as_str(), l.rate)).collect();
        assert_eq!(
            pairs,
            [("heavy", Rate::PerSecond(1000.0)), ("light", Rate::PerSecond(1.5)), ("docs.acme.example", Rate::Max)]
        );
        let names: Vec<_> = parse("t[08-11]:1rps").unwrap().into_iter().map(|l| l.name).collect();
        assert_eq!(names, ["t08", "t09", "t10", "t11"]);
    }

    #[test]
    fn faults_quote_the_part_and_say_what_is_right() {
        assert_eq!(fault("heavy"), "\"heavy\" is no tenant with its rate: write NAME:RATE, as light:10rps");
        assert_eq!(fault("a:1rps,b:fast"), "\"fast\" is no rate: write 10rps, 90rpm or max");
        assert!(
            fault("a:0rps").contains("above 0")
                && fault("a:1e9rps").contains("is no rate")
                && fault("a:infrps").contains("no rate")
        );
        assert_eq!(fault("a:1rps,a:2rps"), "\"a\" is there twice");
        assert!(fault("Ä:1rps").contains("is no tenant"));
        assert!(fault("t[3-1]:1rps").contains("range like [1-50]"));
    }

    proptest! {
        #[test]
        fn rates_read_back_as_written(rate in 0.001f64..1e6) {
            prop_assert_eq!(Rate::PerSecond(rate).to_string().parse::<Rate>().unwrap(), Rate::PerSecond(rate));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
