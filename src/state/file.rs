//! Files that are replaced as a whole: a reader sees the old bytes or the new ones.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How the names of unfinished files begin and end; what is in between belongs to one saver.
const PREFIX: &str = ".eigenstep-";
const SUFFIX: &str = ".partial";
/// How many names are tried; one is lost if another saver sees the file before it is locked.
const ATTEMPTS: usize = 64;
/// As many symbolic links as Linux follows.
const LINKS: usize = 40;

/// Writes `bytes` as the file `path`, or as the file that a symbolic link `path` points to.
///
/// The bytes go to a new file of a unique name in the same folder, are flushed to the disk, and take
/// the name. After an error the old file is as it was. A file that exists keeps its permissions, and
/// its owner if the system allows it. What is no plain file (a device, a pipe) has no contents to
/// protect, and is written as it is.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = behind_links(path)?;
    let folder = match (target.file_name(), target.parent()) {
        (None, _) => {
            return Err(io::Error::new(ErrorKind::InvalidInput, "is not the name of a file"));
        }
        (_, Some(folder)) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let old = match fs::metadata(&target) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(old) = &old {
        // who may not write the file may not replace it; nor is a folder a file
        let mut file = OpenOptions::new().write(true).open(&target)?;
        if !old.is_file() {
            return file.write_all(bytes);
        }
    }
    remove_leftovers(folder);
    for _ in 0..ATTEMPTS {
        let aside = folder.join(unique_name());
        let file = create(&aside, old.is_some())?;
        let outcome = fill(file, old.as_ref(), bytes, || fs::rename(&aside, &target));
        match outcome {
            Ok(Outcome::Lost) => {}
            Err(error) if error.kind() == ErrorKind::NotFound && !aside.exists() => {}
            Ok(Outcome::Replaced) => {
                sync_folder(folder);
                return Ok(());
            }
            Err(error) => {
                // the half-written file is of no use; the first error is the one to report
                let _ = fs::remove_file(&aside);
                return Err(error);
            }
        }
    }
    Err(io::Error::other("the unfinished file was removed again and again"))
}

/// The path at the end of a chain of symbolic links; nothing needs to be there.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&target) {
            // relative to the folder of the link; an absolute one replaces it
            Ok(next) => target = target.parent().map(|folder| folder.join(&next)).unwrap_or(next),
            // no link, or nothing at all
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// What all unfinished files of this process have in their names, and no other's.
fn process_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        // in containers every launch may have the same number
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{PREFIX}{}-{:x}-", std::process::id(), started.as_nanos())
    })
}

fn unique_name() -> String {
    static SAVED: AtomicU64 = AtomicU64::new(0);
    format!("{}{}{SUFFIX}", process_name(), SAVED.fetch_add(1, Ordering::Relaxed))
}

/// Creates a file where nothing is, not even a link.
fn create(path: &Path, private: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if private {
        // until it has the permissions of the old file
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = private;
    options.open(path)
}

enum Outcome {
    Replaced,
    /// Another saver took the file for the leftover of a dead one.
    Lost,
}

/// Writes a new file and calls `rename`, all under a lock, which says that its saver is alive.
fn fill(
    mut file: File,
    old: Option<&Metadata>,
    bytes: &[u8],
    rename: impl FnOnce() -> io::Result<()>,
) -> io::Result<Outcome> {
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Ok(Outcome::Lost);
    }
    if let Some(old) = old {
        keep_owner(&file, old);
        file.set_permissions(old.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    rename()?;
    Ok(Outcome::Replaced)
}

/// Gives a file the owner of another; only an administrator can, and nobody else needs to.
fn keep_owner(file: &File, old: &Metadata) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let differs = |new: Metadata| (new.uid(), new.gid()) != (old.uid(), old.gid());
        if file.metadata().is_ok_and(differs) {
            let _ = fchown(file, Some(old.uid()), Some(old.gid()));
        }
    }
    #[cfg(not(unix))]
    let _ = (file, old);
}

/// Removes unfinished files of savers that are dead. Those of live ones are locked; where a file
/// system has no locks, nothing is removed. What cannot be removed is no reason not to save.
fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // some file systems lock against other processes only
        let theirs = name.starts_with(PREFIX) && !name.starts_with(process_name());
        let is_file = || entry.file_type().is_ok_and(|kind| kind.is_file());
        if theirs && name.ends_with(SUFFIX) && is_file() {
            let file = OpenOptions::new().write(true).open(entry.path());
            if file.is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Brings the new name itself to the disk, where a folder can be opened.
fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}
