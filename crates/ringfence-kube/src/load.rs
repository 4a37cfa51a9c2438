//! Files and folders for the command line.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::decode::Decoded;
use crate::directory::{Catalog, ReadError, read_text, walk};
use crate::document;

/// A path that cannot be read. The text names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file or folder.
    #[error("{path}: there is no such file or folder")]
    NotFound {
        /// As it was given.
        path: PathBuf,
    },
    /// The folder cannot be listed.
    #[error("{path} cannot be read: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// The folder has no file that could be a manifest.
    #[error("{path} holds no *.yaml, *.yml or *.json file")]
    NoManifests {
        /// The folder.
        path: PathBuf,
    },
}

/// Reads files, whatever they are called, and folders: there all `*.yaml`, `*.yml` and `*.json` files, subfolders
/// included, in the order of their paths, without hidden files and what editors leave behind. A file that is named
/// twice is read once.
///
/// Of an object that is given twice the first counts, with a diagnostic that names both places.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Decoded>, LoadError> {
    let mut catalog = Catalog::default();
    for_each_file(paths, &mut |file, text| {
        catalog.replace(file, document::read(text, &file.to_string_lossy()));
    })?;
    Ok(catalog.in_order_of_files().map(|(_, decoded)| decoded).collect())
}

/// Hands out the text of each file, once.
pub(crate) fn for_each_file(paths: &[PathBuf], take: &mut dyn FnMut(&Path, &str)) -> Result<(), LoadError> {
    let mut seen = BTreeSet::new();
    for path in paths {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LoadError::NotFound { path: path.clone() });
            }
            Err(source) => return Err(file_error(path, source)),
        };
        let files = if metadata.is_dir() {
            let tree = walk(path).map_err(|source| LoadError::Folder {
                path: path.clone(),
                source,
            })?;
            if tree.files.is_empty() {
                return Err(LoadError::NoManifests { path: path.clone() });
            }
            tree.files
        } else {
            BTreeSet::from([path.clone()])
        };
        for file in files {
            // Not the given path: `a.yaml` and `./a.yaml` are one file. Pipes have no real path.
            let identity = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            if seen.insert(identity) {
                let text = read_text(&file).map_err(|source| LoadError::File {
                    path: file.clone(),
                    source,
                })?;
                take(&file, &text);
            }
        }
    }
    Ok(())
}

fn file_error(path: &Path, source: io::Error) -> LoadError {
    LoadError::File {
        path: path.to_owned(),
        source: ReadError::Io(source),
    }
}
