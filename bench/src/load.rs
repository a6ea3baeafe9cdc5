//! How much of the machine other programs used during a measurement: a figure taken on a busy machine is to say so.

use std::collections::HashMap;

/// CPU time so far, in clock ticks: of the whole machine, and of this process with its living descendants and what they reaped.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    busy: u64,
    total: u64,
    own: u64,
}

impl Usage {
    /// Now. `None` where `/proc` is not Linux's.
    #[must_use]
    pub fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<u64> =
            stat.lines().next()?.split_whitespace().skip(1).take(8).filter_map(|text| text.parse().ok()).collect();
        let total = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { busy: total - idle, total, own: own_ticks() })
    }

    /// The share of the machine (0 to 1) that others used since `earlier`.
    #[must_use]
    pub fn foreign_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        let foreign = self.busy.saturating_sub(earlier.busy).saturating_sub(self.own.saturating_sub(earlier.own));
        #[allow(clippy::cast_precision_loss, reason = "ticks of a benchmark")]
        let share = foreign as f64 / total as f64;
        share
    }
}

/// A process and all that it started and that still runs.
#[must_use]
pub fn descendants(of: u32) -> Vec<u32> {
    let processes = processes();
    processes.keys().copied().filter(|pid| is_below(&processes, *pid, of)).collect()
}

/// CPU ticks (a hundredth of a second) of a process and all that it started.
#[must_use]
pub fn cpu_ticks(of: u32) -> u64 {
    let processes = processes();
    processes.iter().filter(|(pid, _)| is_below(&processes, **pid, of)).map(|(_, (_, ticks))| ticks).sum()
}

fn own_ticks() -> u64 {
    cpu_ticks(std::process::id())
}

fn is_below(processes: &HashMap<u32, (u32, u64)>, mut pid: u32, of: u32) -> bool {
    while pid > 1 {
        if pid == of {
            return true;
        }
        pid = processes.get(&pid).map_or(0, |(parent, _)| *parent);
    }
    false
}

/// Parent and CPU ticks by process id.
fn processes() -> HashMap<u32, (u32, u64)> {
    let mut processes: HashMap<u32, (u32, u64)> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        if let Some(found) = std::fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| parse(&stat)) {
            processes.insert(pid, found);
        }
    }
    processes
}

/// Parent and CPU ticks (own and reaped children's) of a `/proc/PID/stat` line; the name in parentheses may hold anything.
fn parse(stat: &str) -> Option<(u32, u64)> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|text| text.parse::<u64>().ok()).sum();
    Some((fields.get(1)?.parse().ok()?, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_an_odd_name() {
        let line = "42 (a) b (c) S 7 1 1 0 -1 0 0 0 0 0 10 20 30 40 20 0 1 0";
        assert_eq!(parse(line), Some((7, 100)));
    }
}
