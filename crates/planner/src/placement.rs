//! Where a new tenant goes.
//!
//! For: choosing one of the shared cells. Not for: dedicated cells (a provider makes those) or moves.
//! Always: the chosen cell meets every demand and has room; with equal demands the emptiest (by share) is chosen, so that
//! tenants spread; the same input gives the same answer.

use insula_core::CellName;

/// A cell as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: CellName,
    /// Where it stands.
    pub region: String,
    /// What it has.
    pub labels: Vec<String>,
    /// Whether it takes new tenants.
    pub open: bool,
    /// Tenants it may hold.
    pub capacity: u64,
    /// Tenants it holds.
    pub tenants: u64,
}

/// What a tenant asks of its cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// This one and no other.
    pub cell: Option<CellName>,
    /// Of this region.
    pub region: Option<String>,
    /// With all of these.
    pub labels: Vec<String>,
}

/// Why there is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no cell of that name.
    #[error("there is no cell {0}")]
    Unknown(CellName),
    /// No cell meets the demands.
    #[error("no cell meets the demand ({0}): register one that does, or ask for less")]
    NoMatch(String),
    /// Those that would do take no new tenants.
    #[error("no cell that would do takes new tenants ({0} are draining, down or not ready): undrain one or wait")]
    Closed(usize),
    /// Those that would do are full.
    #[error("every cell that would do is full ({0} of them): register another, or raise a capacity")]
    Full(usize),
}

/// Chooses the cell for a new tenant.
///
/// # Errors
/// A [`Refusal`] that says what to do.
pub fn choose<'a>(cells: &'a [Candidate], demand: &Demand) -> Result<&'a Candidate, Refusal> {
    if let Some(name) = &demand.cell
        && !cells.iter().any(|c| c.name == *name)
    {
        return Err(Refusal::Unknown(name.clone()));
    }
    let fitting: Vec<&Candidate> = cells.iter().filter(|c| fits(c, demand)).collect();
    if fitting.is_empty() {
        return Err(Refusal::NoMatch(describe(demand)));
    }
    let open: Vec<&Candidate> = fitting.iter().copied().filter(|c| c.open).collect();
    if open.is_empty() {
        return Err(Refusal::Closed(fitting.len()));
    }
    let roomy = open.iter().copied().filter(|c| c.tenants < c.capacity);
    roomy.min_by(|a, b| fuller(a, b)).ok_or(Refusal::Full(open.len()))
}

fn fits(cell: &Candidate, demand: &Demand) -> bool {
    demand.cell.as_ref().is_none_or(|name| *name == cell.name)
        && demand.region.as_ref().is_none_or(|region| *region == cell.region)
        && demand.labels.iter().all(|label| cell.labels.contains(label))
}

/// By share of capacity (a/b < c/d as a·d < c·b, exact); then fewer labels, so that special cells are kept for those who
/// ask for them; then more room; then the name, so that the answer is always the same.
fn fuller(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    let share = |x: &Candidate, y: &Candidate| u128::from(x.tenants) * u128::from(y.capacity);
    share(a, b)
        .cmp(&share(b, a))
        .then_with(|| a.labels.len().cmp(&b.labels.len()))
        .then_with(|| b.capacity.cmp(&a.capacity))
        .then_with(|| a.name.cmp(&b.name))
}

fn describe(demand: &Demand) -> String {
    let mut parts = Vec::new();
    if let Some(cell) = &demand.cell {
        parts.push(format!("cell {cell}"));
    }
    if let Some(region) = &demand.region {
        parts.push(format!("region {region}"));
    }
    if !demand.labels.is_empty() {
        parts.push(format!("labels {}", demand.labels.join(", ")));
    }
    if parts.is_empty() { "any cell".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate() -> impl Strategy<Value = Candidate> {
        let labels = prop::collection::vec(prop::sample::select(vec!["eu-only".to_owned(), "ssd".into(), "hipaa".into()]), 0..3);
        (0..8_u8, prop::sample::select(vec!["eu", "us"]), labels, any::<bool>(), 0..20_u64, 0..25_u64).prop_map(
            |(n, region, labels, open, capacity, tenants)| Candidate {
                name: format!("c{n}").parse().expect("a name"),
                region: region.into(),
                labels,
                open,
                capacity,
                tenants,
            },
        )
    }

    fn demand() -> impl Strategy<Value = Demand> {
        let labels = prop::collection::vec(prop::sample::select(vec!["eu-only".to_owned(), "ssd".into()]), 0..2);
        (prop::option::of(0..9_u8), prop::option::of(prop::sample::select(vec!["eu".to_owned(), "us".into()])), labels).prop_map(
            |(cell, region, labels)| Demand { cell: cell.map(|n| format!("c{n}").parse().expect("a name")), region, labels },
        )
    }

    proptest! {
        #[test]
        fn the_chosen_cell_will_do_and_none_is_emptier(cells in prop::collection::vec(candidate(), 0..8), demand in demand()) {
            let could: Vec<_> = cells.iter().filter(|c| fits(c, &demand) && c.open && c.tenants < c.capacity).collect();
            match choose(&cells, &demand) {
                Ok(chosen) => {
                    prop_assert!(could.contains(&chosen));
                    for other in could {
                        prop_assert!(chosen.tenants * other.capacity <= other.tenants * chosen.capacity);
                    }
                }
                Err(_) => prop_assert!(could.is_empty()),
            }
        }

        #[test]
        fn the_order_of_cells_does_not_matter(cells in prop::collection::vec(candidate(), 0..8), demand in demand()) {
            let mut cells = cells;
            cells.sort_by(|a, b| a.name.cmp(&b.name));
            cells.dedup_by(|a, b| a.name == b.name);
            let there = choose(&cells, &demand).map(|c| c.name.clone());
            let mut back = cells.clone();
            back.reverse();
            prop_assert_eq!(there, choose(&back, &demand).map(|c| c.name.clone()));
        }

        #[test]
        fn tenants_spread(sizes in prop::collection::vec(1..50_u64, 1..5)) {
            let mut cells: Vec<_> = sizes.iter().enumerate().map(|(i, capacity)| Candidate {
                name: format!("c{i}").parse().expect("a name"), region: "eu".into(), labels: vec![], open: true,
                capacity: *capacity, tenants: 0,
            }).collect();
            let room: u64 = sizes.iter().sum();
            for _ in 0..room {
                let name = choose(&cells, &Demand::default()).expect("there is room").name.clone();
                cells.iter_mut().filter(|c| c.name == name).for_each(|c| c.tenants += 1);
            }
            prop_assert!(cells.iter().all(|c| c.tenants == c.capacity));
            prop_assert_eq!(choose(&cells, &Demand::default()), Err(Refusal::Full(cells.len())));
        }
    }
}
