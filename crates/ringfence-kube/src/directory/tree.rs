//! Which files of a folder are manifests, and how they are read.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes. A large cluster as one JSON `List` is about half of it.
const LARGEST_FILE: u64 = 1 << 30;

/// Why a file has no text.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refuses.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Not UTF-8.
    #[error("the file is no UTF-8 text; give manifests in YAML or JSON")]
    NoText,
    /// Too large for a manifest.
    #[error("the file has {0} bytes; files up to {LARGEST_FILE} bytes are read")]
    TooLarge(u64),
}

/// The text of a file.
pub(crate) fn read_text(path: &Path) -> Result<String, ReadError> {
    let length = fs::metadata(path)?.len();
    if length > LARGEST_FILE {
        return Err(ReadError::TooLarge(length));
    }
    String::from_utf8(fs::read(path)?).map_err(|_| ReadError::NoText)
}

/// A folder's manifests and the folders that they are in.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: BTreeSet<PathBuf>,
    /// Those of the files that are symbolic links.
    pub(crate) links: BTreeSet<PathBuf>,
    pub(crate) folders: BTreeSet<PathBuf>,
}

/// Everything below a folder, and itself. Symbolic links are followed, each real folder is entered once. What
/// disappears meanwhile is left out; only the folder itself must be readable.
pub(crate) fn walk(folder: &Path) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let mut visited = BTreeSet::new();
    visit(folder, &mut tree, &mut visited, &mut |_| {})?;
    Ok(tree)
}

/// As [`walk`], calling `before` for each folder before it is listed: a watch that is set only after the listing
/// misses what is created in between.
pub(crate) fn walk_with(folder: &Path, before: &mut dyn FnMut(&Path)) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let mut visited = BTreeSet::new();
    visit(folder, &mut tree, &mut visited, before)?;
    Ok(tree)
}

fn visit(
    folder: &Path,
    tree: &mut Tree,
    visited: &mut BTreeSet<(u64, u64)>,
    before: &mut dyn FnMut(&Path),
) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    if !visited.insert((metadata.dev(), metadata.ino())) {
        return Ok(());
    }
    before(folder);
    tree.folders.insert(folder.to_owned());
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|it| it.path()))
        .collect();
    entries.sort();
    for path in entries {
        // Broken links and files that are gone by now have no metadata.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && is_folder_name(&path) {
            if let Err(error) = visit(&path, tree, visited, before) {
                tracing::warn!(folder = %path.display(), %error, "Folder cannot be listed; its files are not read");
            }
        } else if metadata.is_file() && is_manifest_name(&path) {
            // Not sockets and pipes: reading a pipe would wait for its writer.
            if is_link(&path) {
                tree.links.insert(path.clone());
            }
            tree.files.insert(path);
        }
    }
    Ok(())
}

/// Whether the path itself is a symbolic link.
pub(crate) fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// Hidden folders are version control's, or the generations of a mounted ConfigMap (`..2024_05_01`), whose files
/// appear through links in the folder above.
pub(crate) fn is_folder_name(path: &Path) -> bool {
    let name = name(path);
    !name.is_empty() && !name.starts_with('.')
}

/// `*.yaml`, `*.yml`, `*.json`, but not what editors leave beside them: `.x.yaml.swp`, `.#x.yaml`, `#x.yaml#`,
/// `x.yaml~`.
pub(crate) fn is_manifest_name(path: &Path) -> bool {
    let name = name(path);
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    !name.starts_with(['.', '#'])
        && ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether an event on this name means that a ConfigMap mount was swapped: `..data` then points elsewhere, and every
/// file with it, although none of their names has changed.
pub(crate) fn is_mount_swap(path: &Path) -> bool {
    name(path) == "..data"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_editors_are_no_manifests() {
        let check = |name: &str, expected: bool| assert_eq!(is_manifest_name(Path::new(name)), expected, "{name}");
        for good in ["a.yaml", "x/a.yml", "a.json", "a.b.yaml", "A.YAML", "a~b.yaml"] {
            check(good, true);
        }
        for bad in [
            "",
            "a",
            "a.txt",
            ".a.yaml",
            ".#a.yaml",
            "#a.yaml#",
            "a.yaml~",
            ".a.yaml.swp",
            "a.yaml.tmp",
            "4913",
            "..data",
        ] {
            check(bad, false);
        }
    }
}
