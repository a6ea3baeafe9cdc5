//! Interleaved rounds: A, B, B, A, A, B, … so that neither side always runs first, or on the warmer machine.

/// Figures of one side, a round each.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The median; 0 without samples.
    #[must_use]
    pub fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    /// The value below which `q` (0 to 1) of the samples lie.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        quantile(&self.0, q)
    }
}

/// Two sides, measured in the same rounds.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// Ours.
    pub ours: Samples,
    /// The peer.
    pub peer: Samples,
}

impl Pair {
    /// Ours over the peer: the median of same-round ratios.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.ours.0.iter().zip(&self.peer.0).map(|(ours, peer)| ours / peer).collect();
        quantile(&ratios, 0.5)
    }

    /// Both medians and the spread of the ratios, for an outcome's detail.
    #[must_use]
    pub fn detail(&self, unit: &str) -> String {
        let ratios: Vec<f64> = self.ours.0.iter().zip(&self.peer.0).map(|(ours, peer)| ours / peer).collect();
        format!(
            "{:.1} {unit} against {:.1} {unit}; {} rounds, ratios {:.2} to {:.2} (quartiles)",
            self.ours.median(),
            self.peer.median(),
            ratios.len(),
            quantile(&ratios, 0.25),
            quantile(&ratios, 0.75)
        )
    }
}

/// Runs both sides `rounds` times in alternating order after one unmeasured round each. A side returns its figure for the round (a time, a rate).
///
/// # Errors
/// The first error of either side.
pub fn interleave<E>(
    rounds: usize,
    mut ours: impl FnMut() -> Result<f64, E>,
    mut peer: impl FnMut() -> Result<f64, E>,
) -> Result<Pair, E> {
    ours()?;
    peer()?;
    let mut pair = Pair::default();
    for round in 0..rounds {
        if round % 2 == 0 {
            pair.ours.0.push(ours()?);
            pair.peer.0.push(peer()?);
        } else {
            pair.peer.0.push(peer()?);
            pair.ours.0.push(ours()?);
        }
    }
    Ok(pair)
}

fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    // Nearest rank, by linear interpolation between neighbours.
    #[allow(clippy::cast_precision_loss, reason = "a few hundred samples")]
    let place = q.clamp(0.0, 1.0) * last as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the last index")]
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    (sorted[high] - sorted[low]).mul_add(place.fract(), sorted[low])
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn medians_and_quartiles() {
        let samples = Samples(vec![4.0, 1.0, 3.0, 2.0]);
        assert!((samples.median() - 2.5).abs() < 1e-9);
        assert!((samples.quantile(0.0) - 1.0).abs() < 1e-9 && (samples.quantile(1.0) - 4.0).abs() < 1e-9);
        assert!(Samples::default().median().abs() < 1e-9);
    }

    #[test]
    fn sides_alternate_and_the_first_round_is_not_counted() {
        let order = RefCell::new(String::new());
        let pair = interleave::<Infallible>(
            3,
            || {
                order.borrow_mut().push('a');
                Ok(1.0)
            },
            || {
                order.borrow_mut().push('b');
                Ok(2.0)
            },
        )
        .unwrap();
        assert_eq!(order.into_inner(), "ababbaab");
        assert_eq!((pair.ours.0.len(), pair.peer.0.len()), (3, 3));
        assert!((pair.ratio() - 0.5).abs() < 1e-9);
    }
}
