//! Files as documents.

use std::io;
use std::path::{Path, PathBuf};

use super::client::Document;
use super::html;
use crate::documents::{LONGEST_BODY, LONGEST_TITLE};
use crate::tags;

/// A file that may become a document.
#[derive(Debug)]
pub(crate) struct Found {
    path: PathBuf,
    /// Its path below the folder: the same wherever the folder is mounted.
    pub(crate) source: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Markdown,
    Text,
    Html,
}

/// What reading a file gave.
#[derive(Debug)]
pub(crate) enum Reading {
    Document(Document),
    /// No UTF-8, empty, or too large.
    Unfit,
}

/// Text files below a folder, in the order of their paths; links are not followed.
pub(crate) fn find(folder: &Path, limit: usize) -> io::Result<Vec<Found>> {
    let named = |error: io::Error, path: &Path| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match std::fs::read_dir(&next) {
            Ok(entries) => entries,
            // What may not be read below the folder is left out; the folder itself must be there.
            Err(error) if next == folder => return Err(named(error, &next)),
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => found.extend(fit(folder, path)),
                _ => {}
            }
        }
    }
    found.sort_by(|a, b| a.source.cmp(&b.source));
    found.truncate(limit);
    Ok(found)
}

fn fit(folder: &Path, path: PathBuf) -> Option<Found> {
    let kind = match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "md" | "markdown" => Kind::Markdown,
        "txt" | "text" | "rst" => Kind::Text,
        "html" | "htm" => Kind::Html,
        _ => return None,
    };
    let source = path.strip_prefix(folder).ok()?.to_str().filter(|source| source.len() <= 1_000)?.to_owned();
    Some(Found { path, source, kind })
}

/// Reads a file.
pub(crate) fn read(found: Found) -> io::Result<Reading> {
    if found.path.metadata()?.len() > 4 * LONGEST_BODY as u64 {
        return Ok(Reading::Unfit);
    }
    let Ok(text) = String::from_utf8(std::fs::read(&found.path)?) else { return Ok(Reading::Unfit) };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    let (title, body) = match found.kind {
        Kind::Html => html::text(&text),
        Kind::Markdown => (heading(&text), text),
        Kind::Text => (first_line(&text), text),
    };
    if body.trim().is_empty() || body.len() > LONGEST_BODY || body.contains('\0') {
        return Ok(Reading::Unfit);
    }
    let format = if found.kind == Kind::Text { "plain" } else { "markdown" };
    let title = title.unwrap_or_else(|| found.source.clone());
    let title: String = title.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST_TITLE).collect();
    Ok(Reading::Document(Document { title, body, tags: folder_tag(&found.source), format, source: found.source }))
}

/// The folder that a file is in, as a tag.
fn folder_tag(source: &str) -> Vec<String> {
    let folder = Path::new(source).parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let tag = folder.map(|name| name.trim().to_lowercase()).filter(|tag| (1..=tags::LONGEST).contains(&tag.chars().count()));
    tag.into_iter().collect()
}

fn heading(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("# "));
    line.map(|line| line.trim_matches([' ', '#']).to_owned()).filter(|title| !title.is_empty()).or_else(|| first_line(text))
}

/// The first line that says something in words.
fn first_line(text: &str) -> Option<String> {
    let line = text.lines().take(20).map(str::trim).find(|line| line.chars().filter(|c| c.is_alphanumeric()).count() >= 3)?;
    Some(line.trim_start_matches(['#', '=', '*', ' ', '.']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_becomes_documents_and_the_rest_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        write("Guides/start.md", b"\xef\xbb\xbfintro\r\n# The *start* #\r\ntext");
        write("a.txt", b"====\n  A title here\nbody");
        write("b.html", b"<title>T &amp; U</title><p>body</p>");
        write("latin.txt", b"caf\xe9");
        write("nul.txt", b"a\0b");
        write("empty.md", b" \n");
        write("huge.txt", &vec![b'x'; LONGEST_BODY + 1]);
        write("picture.png", b"png");
        std::os::unix::fs::symlink("/etc", folder.path().join("link")).unwrap();
        let found = find(folder.path(), usize::MAX).unwrap();
        assert_eq!(found.len(), 7);
        let read: Vec<_> =
            found.into_iter().filter_map(|f| if let Reading::Document(d) = read(f).unwrap() { Some(d) } else { None }).collect();
        let titles: Vec<_> = read.iter().map(|d| (d.source.as_str(), d.title.as_str(), d.format)).collect();
        assert_eq!(
            titles,
            [("Guides/start.md", "The *start*", "markdown"), ("a.txt", "A title here", "plain"), ("b.html", "T & U", "markdown")]
        );
        assert_eq!(read[0].tags, ["guides"]);
        assert_eq!(find(folder.path(), 2).unwrap().len(), 2);
        assert!(find(&folder.path().join("none"), 1).unwrap_err().to_string().contains("none"));
    }
}
