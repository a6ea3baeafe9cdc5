//! Which machine the figures are of, and which build.

use std::process::Command;

/// In one line a fact.
#[must_use]
pub fn describe() -> Vec<(&'static str, String)> {
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
        .map(|kib| kib / 1024 / 1024);
    vec![
        ("CPU", field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned())),
        ("cores", std::thread::available_parallelism().map_or(0, std::num::NonZero::get).to_string()),
        ("memory", memory.map_or_else(|| "unknown".to_owned(), |gib| format!("{gib} GiB"))),
        ("kernel", said("uname", &["-sr"])),
        ("Postgres", postgres()),
        ("Rust", said("rustc", &["--version"])),
    ]
}

/// What was built.
#[must_use]
pub fn build() -> String {
    match (cfg!(debug_assertions), option_env!("INSULA_BUILD")) {
        (true, _) => "debug (figures mean nothing)".to_owned(),
        (false, None) => "optimised".to_owned(),
        (false, Some(how)) => format!("optimised, {how}"),
    }
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .ok()
        .filter(|o| o.status.success())
        .map_or_else(|| "unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn postgres() -> String {
    let mut folders: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/postgres"))
        .collect();
    folders.sort();
    let newest = folders.pop().map(|path| said(&path.to_string_lossy(), &["--version"]));
    newest.unwrap_or_else(|| said("postgres", &["--version"]))
}
