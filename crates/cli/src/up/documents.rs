//! Real documents that are on the machine: the guides of this project where there are any, and what packages left in
//! `/usr/share/doc`.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where to look, best first.
const PLACES: [&str; 4] = ["docs", "README.md", "ARCHITECTURE.md", "/usr/share/doc"];
/// Too short to read, too long for a demo: bytes.
const SIZE: std::ops::Range<u64> = 400..60_000;
/// Folders are walked until this many entries were seen.
const MOST_ENTRIES: usize = 20_000;

/// Up to `count` files of text, Markdown or HTML; those with a file name of that kind first, licence texts last.
pub(crate) fn find(count: usize) -> Vec<PathBuf> {
    let mut found: Vec<(u8, PathBuf)> = Vec::new();
    let mut queue: VecDeque<PathBuf> = PLACES.iter().map(PathBuf::from).collect();
    let mut seen = 0;
    while let Some(path) = queue.pop_front() {
        seen += 1;
        let good = found.iter().filter(|(rank, _)| *rank == 0).count();
        if seen > MOST_ENTRIES || good >= count {
            break;
        }
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            let mut entries: Vec<_> = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()).collect();
            entries.sort();
            queue.extend(entries);
        } else if meta.is_file() && SIZE.contains(&meta.len()) {
            found.extend(rank(&path).map(|rank| (rank, path)));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().take(count).map(|(_, path)| path).collect()
}

fn rank(path: &Path) -> Option<u8> {
    let name = path.file_name()?.to_str()?;
    match path.extension().and_then(OsStr::to_str) {
        Some("md" | "txt" | "html" | "htm") => Some(0),
        None if name == "copyright" => Some(2),
        None if name.starts_with("README") || name.starts_with("NEWS") || name.starts_with("FAQ") => Some(1),
        _ => None,
    }
}

/// Copies the files into one new folder, under names that say where they come from.
pub(crate) fn copy(files: &[PathBuf], folder: &Path) -> std::io::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    for (index, file) in files.iter().enumerate() {
        // Not every file is text, whatever its name.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        let parent = file.parent().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or("file");
        let stem = file.file_stem().and_then(OsStr::to_str).unwrap_or("document");
        let extension = file.extension().and_then(OsStr::to_str).unwrap_or("txt");
        let mut target = folder.join(format!("{parent} {stem}.{extension}"));
        if target.exists() {
            target = folder.join(format!("{parent} {stem} {index}.{extension}"));
        }
        std::fs::write(target, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_text_under_telling_names() {
        let from = tempfile::tempdir().expect("folder");
        let package = from.path().join("curl");
        std::fs::create_dir(&package).expect("made");
        std::fs::write(package.join("copyright"), "text").expect("written");
        std::fs::write(package.join("noise.txt"), [0xff, 0xfe, 0x00]).expect("written");
        let to = from.path().join("to");
        copy(&[package.join("copyright"), package.join("noise.txt")], &to).expect("copied");
        let names: Vec<_> = std::fs::read_dir(&to).expect("there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["curl copyright.txt"]);
    }
}
