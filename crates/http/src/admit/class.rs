//! Classes of routes: which requests are expensive, or otherwise to be told apart by limits.
//!
//! The process says which routes are in a class (here); the plan says what a tenant may do with the class
//! ([`insula_core::ClassLimits`]). What is in no class is in the default one. Always: at most [`MOST`] classes; a lookup
//! allocates nothing, unless the path is written in a way that only some applications read as the plain one: it is in the class of the plain one,
//! too, so that nobody escapes a limit by another spelling.

use std::borrow::Cow;

use http::Method;
use insula_core::RouteClass;
use serde::{Deserialize, Serialize};

/// Classes beside the default one.
pub const MOST: usize = 7;

/// A class's number in this process; 0 is the default class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassNo(pub(crate) u8);

impl ClassNo {
    /// What is in no class.
    pub const DEFAULT: Self = Self(0);

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A class as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassConfig {
    /// Its name, as plans know it.
    pub name: RouteClass,
    /// Paths: `/exports` and nothing below it, `/exports/*/run` with any one segment, `/exports/**` and all below.
    pub paths: Vec<String>,
    /// Methods in capitals; all when empty.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Bulkhead: most requests of the class at work in one cell, of all tenants together. Unbounded when absent.
    #[serde(default)]
    pub max_in_flight: Option<u32>,
}

/// Why classes cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// Too many.
    #[error("{0} route classes; at most {MOST} can be told apart")]
    TooMany(usize),
    /// The same name twice.
    #[error("route class {0} is there twice")]
    Twice(RouteClass),
    /// A path is not one.
    #[error("route class {class}: {path:?} is not a path like /exports/** (`**` only as the last segment)")]
    Path {
        /// Of which class.
        class: RouteClass,
        /// What was written.
        path: String,
    },
    /// A method is not one.
    #[error("route class {class}: {method:?} is not a method like POST")]
    Method {
        /// Of which class.
        class: RouteClass,
        /// What was written.
        method: String,
    },
}

/// The classes of a process; the first that matches counts.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    all: Vec<Class>,
}

#[derive(Clone, Debug)]
struct Class {
    name: RouteClass,
    patterns: Vec<Pattern>,
    methods: Vec<Method>,
    max_in_flight: u32,
}

#[derive(Clone, Debug)]
struct Pattern {
    segments: Vec<String>,
    open: bool,
}

impl Classes {
    /// From the configuration.
    ///
    /// # Errors
    /// [`ClassError`], in words for whoever wrote it.
    pub fn new(configured: &[ClassConfig]) -> Result<Self, ClassError> {
        if configured.len() > MOST {
            return Err(ClassError::TooMany(configured.len()));
        }
        let mut all: Vec<Class> = Vec::with_capacity(configured.len());
        for class in configured {
            let name = class.name.clone();
            if all.iter().any(|known| known.name == name) {
                return Err(ClassError::Twice(name));
            }
            let pattern =
                |path: &String| Pattern::new(path).ok_or_else(|| ClassError::Path { class: name.clone(), path: path.clone() });
            let method = |method: &String| {
                let fault = || ClassError::Method { class: name.clone(), method: method.clone() };
                method.parse::<Method>().map_err(|_| fault())
            };
            let patterns = class.paths.iter().map(pattern).collect::<Result<_, _>>()?;
            let methods = class.methods.iter().map(method).collect::<Result<_, _>>()?;
            let max_in_flight = class.max_in_flight.unwrap_or(u32::MAX).max(1);
            all.push(Class { name, patterns, methods, max_in_flight });
        }
        Ok(Self { all })
    }

    /// The class of a request.
    #[must_use]
    pub fn of(&self, method: &Method, path: &str) -> ClassNo {
        if self.all.is_empty() {
            return ClassNo::DEFAULT;
        }
        let among = |path: &str| {
            self.all.iter().position(|class| {
                (class.methods.is_empty() || class.methods.contains(method)) && class.patterns.iter().any(|p| p.matches(path))
            })
        };
        let found = among(path).or_else(|| is_odd(path).then(|| among(&plain(path)))?);
        // At most MOST.
        ClassNo(found.map_or(0, |at| at as u8 + 1))
    }

    /// The class of a name, when there is one.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<ClassNo> {
        self.all.iter().position(|class| class.name.as_str() == name).map(|at| ClassNo(at as u8 + 1))
    }

    /// A class's name; `default` for what is in none.
    #[must_use]
    pub fn name(&self, class: ClassNo) -> &str {
        class.index().checked_sub(1).and_then(|at| self.all.get(at)).map_or("default", |class| class.name.as_str())
    }

    pub(crate) fn bulkhead(&self, class: ClassNo) -> u32 {
        class.index().checked_sub(1).and_then(|at| self.all.get(at)).map_or(u32::MAX, |class| class.max_in_flight)
    }
}

impl Pattern {
    fn new(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        let open = segments.last().is_some_and(|last| last == "**");
        if open {
            segments.pop();
        }
        let plain = |s: &String| s == "*" || !(s.contains('*') || s.contains('?') || s.contains('#'));
        segments.iter().all(plain).then_some(Self { segments, open })
    }

    fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let mut given = path.split('/');
        for wanted in &self.segments {
            match given.next() {
                // Some applications do not tell letters of either case apart.
                Some(segment) if wanted == "*" || wanted.eq_ignore_ascii_case(segment) => {}
                // `/exports/**` is also `/exports`.
                _ => return false,
            }
        }
        self.open || given.next().is_none()
    }
}

/// Whether applications differ in what they read there.
fn is_odd(path: &str) -> bool {
    // In one pass without branches: nearly all paths are read to their end.
    let (mut odd, mut before) = (false, 0);
    for b in path.bytes() {
        odd |= matches!(b, b'%' | b';' | b'\\') | ((before == b'/') & matches!(b, b'/' | b'.'));
        before = b;
    }
    odd || (path.len() > 1 && before == b'/')
}

/// The path as the most lenient application reads it: decoded, without empty segments, dots and parameters (`;`).
fn plain(path: &str) -> String {
    let decoded: Cow<'_, str> = percent_decode(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn percent_decode(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    let (bytes, mut decoded, mut at) = (path.as_bytes(), Vec::with_capacity(path.len()), 0);
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                // Two digits of sixteen make a byte.
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, paths: &[&str], methods: &[&str]) -> ClassConfig {
        let text = |all: &[&str]| all.iter().map(|&t| t.to_owned()).collect();
        ClassConfig { name: name.parse().unwrap(), paths: text(paths), methods: text(methods), max_in_flight: None }
    }

    #[test]
    fn the_first_class_that_matches_counts() {
        let classes = Classes::new(&[
            class("export", &["/exports/**", "/documents/*/export"], &["POST"]),
            class("search", &["/search"], &[]),
            class("root", &["/"], &[]),
        ])
        .unwrap();
        let of = |method: &str, path: &str| classes.name(classes.of(&method.parse().unwrap(), path)).to_owned();
        for (method, path, name) in [
            ("POST", "/exports", "export"),
            ("POST", "/exports/a/b", "export"),
            ("GET", "/exports", "default"),
            ("POST", "/exportsx", "default"),
            ("POST", "/documents/7/export", "export"),
            ("POST", "/documents/7/8/export", "default"),
            ("GET", "/search", "search"),
            ("GET", "/search/x", "default"),
            ("GET", "/", "root"),
            ("OPTIONS", "*", "default"),
        ] {
            assert_eq!(of(method, path), name, "{method} {path}");
        }
        assert_eq!(classes.named("search"), Some(ClassNo(2)));
    }

    #[test]
    fn another_spelling_is_no_way_around() {
        let classes = Classes::new(&[class("export", &["/exports/**"], &["POST"]), class("search", &["/search"], &[])]).unwrap();
        let of = |path: &str| classes.name(classes.of(&Method::POST, path)).to_owned();
        for path in [
            "/%65xports",
            "/%65%78%70orts/7",
            "/exports%2f7",
            "//exports",
            "/./exports",
            "/x/../exports",
            "/x/%2e%2E/exports",
            "/exports;v=1",
            "/exports;v=1/7",
            "/\\exports",
            "/EXPORTS/7",
            "/Exports/",
        ] {
            assert_eq!(of(path), "export", "{path}");
        }
        assert_eq!((of("/search/"), of("/SEARCH"), of("//search//")), ("search".into(), "search".into(), "search".into()));
        for path in ["/", "//", "/%", "/%6", "/%zzexports", "/..", "/search/../", "/export%73x", "/%ff", "*", ""] {
            assert_eq!(of(path), "default", "{path}");
        }
    }

    #[test]
    fn what_is_no_class_is_refused_in_words() {
        let fault = |all: &[ClassConfig]| Classes::new(all).unwrap_err().to_string();
        assert!(fault(&[class("a", &["exports"], &[])]).contains("exports"));
        assert!(fault(&[class("a", &["/**/x"], &[])]).contains("last segment"));
        assert!(fault(&[class("a", &["/x"], &["GE T"])]).contains("GE T"));
        assert!(fault(&[class("a", &["/x"], &[]), class("a", &["/y"], &[])]).contains("twice"));
        assert!(fault(&vec![class("a", &[], &[]); 8]).contains('8'));
    }
}
