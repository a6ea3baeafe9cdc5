//! Benchmarks: ratios against real peers, measured in one run.
