//! `insula up`, already built: from the command to the ready file, the first time (servers made, demo tenants and documents loaded) and later.

use std::time::Instant;

use anyhow::Result;
use insula_e2e::up::Up;

use crate::rounds::Samples;
use crate::row::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "up", about: "insula up, already built: ready first time with demo data, and later", run };

const ROUNDS: usize = 3;

fn run() -> Result<Vec<Outcome>> {
    let (mut first, mut later) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        for samples in [&mut first, &mut later] {
            let start = Instant::now();
            let up = Up::start_with(&data, &[])?;
            samples.0.push(start.elapsed().as_secs_f64());
            up.stop()?;
        }
    }
    let worst = |samples: &Samples| format!("median of {ROUNDS}, the slowest {:.1} s", samples.quantile(1.0));
    Ok(vec![
        Outcome::figure("insula up, first time, with demo data", first.median(), "s", Target::AtMost(8.0), worst(&first)),
        Outcome::figure("insula up, later", later.median(), "s", Target::AtMost(2.0), worst(&later)),
    ])
}
