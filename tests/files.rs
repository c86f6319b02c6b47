//! Saved files: whole at every moment, whoever saves, reads or dies; permissions, links and names kept.
// a test that fails says so by panicking
#![cfg(feature = "safetensors")]
#![allow(clippy::unwrap_used, clippy::panic)]

use eigenstep::Error;
use eigenstep::state::{Scalar, StateDict, StateTensor};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A folder that is gone at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("eigenstep_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A dict that says in every element which one it is.
fn dict(number: i64, len: usize) -> StateDict {
    let mut dict = StateDict::new("Sgd");
    dict.scalars.insert("number".into(), Scalar::Int(number));
    dict.tensors.insert("values".into(), StateTensor::new(&[len], &vec![number as f64; len]));
    dict
}

/// The number of a file that is whole.
fn number(path: &Path, len: usize) -> i64 {
    let found = StateDict::load_safetensors(path).unwrap();
    let Some(&Scalar::Int(number)) = found.scalars.get("number") else { panic!("{found:?}") };
    assert_eq!(found, dict(number, len));
    number
}

#[test]
fn savers_of_one_path_and_readers_meet_whole_files() {
    let folder = Folder::new("concurrent");
    let path = folder.join("state.safetensors");
    let len = 20_000;
    dict(0, len).save_safetensors(&path).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let savers: Vec<_> = (1..5)
            .map(|saver| {
                let path = &path;
                scope.spawn(move || {
                    (0..40).for_each(|_| dict(saver, len).save_safetensors(path).unwrap());
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!((0..5).contains(&number(&path, len)));
                }
            });
        }
        savers.into_iter().for_each(|saver| saver.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(folder.names(), ["state.safetensors"]);
}

const PATH: &str = "EIGENSTEP_TEST_SAVES_TO";
const KILLED_LEN: usize = 100_000;

/// What the killed processes do: this program, started once more with a path in the environment.
#[test]
fn saves_for_ever_when_asked_to() {
    let Some(path) = std::env::var_os(PATH) else { return };
    for number in 1.. {
        dict(number, KILLED_LEN).save_safetensors(&path).unwrap();
    }
}

#[test]
fn a_killed_saver_leaves_a_whole_file() {
    let folder = Folder::new("killed");
    let path = folder.join("state.safetensors");
    dict(0, KILLED_LEN).save_safetensors(&path).unwrap();
    let (mut replaced, mut leftovers) = (0, 0);
    for kill in 0..300u64 {
        let before = number(&path, KILLED_LEN);
        let mut saver = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "saves_for_ever_when_asked_to"])
            .env(PATH, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // from before its first save to some saves later
        std::thread::sleep(Duration::from_micros(4_000 + kill * 7_919 % 40_000));
        saver.kill().unwrap();
        assert_eq!(saver.wait().unwrap().code(), None, "it ended by itself");
        replaced += usize::from(number(&path, KILLED_LEN) != before);
        // each saver has cleaned up after those before it
        let aside = folder.names().len() - 1;
        assert!(aside <= 2, "{:?}", folder.names());
        leftovers += aside;
    }
    assert!(replaced > 5 && leftovers > 5, "{replaced} replaced, {leftovers} leftovers");
    dict(7, KILLED_LEN).save_safetensors(&path).unwrap();
    assert_eq!(folder.names(), ["state.safetensors"]);
    assert_eq!(number(&path, KILLED_LEN), 7);
}

#[test]
fn names_of_any_length_that_the_system_allows() {
    let folder = Folder::new("names");
    for len in [1, 240, 255] {
        let path = folder.join(&"n".repeat(len));
        (0..2).for_each(|i| dict(i, 3).save_safetensors(&path).unwrap());
        assert_eq!(number(&path, 3), 1);
    }
    let error = dict(0, 3).save_safetensors(folder.join(&"n".repeat(256))).unwrap_err();
    assert!(matches!(error, Error::StateDict { .. }), "{error}");
    for no_file in ["/", "", ".."] {
        assert!(matches!(dict(0, 3).save_safetensors(no_file), Err(Error::StateDict { .. })));
    }
    assert_eq!(folder.names().len(), 3);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_before_anything_is_touched() {
    let folder = Folder::new("folders");
    let file = folder.join("file");
    dict(1, 3).save_safetensors(&file).unwrap();
    // no folder, a file instead of one, and a folder instead of a file
    for path in [folder.join("none/state"), file.join("state"), folder.0.clone()] {
        let Err(Error::StateDict { key, problem }) = dict(2, 3).save_safetensors(&path) else {
            panic!("{} was written", path.display());
        };
        assert!(key == path.display().to_string() && !problem.is_empty(), "{key}: {problem}");
    }
    assert_eq!(number(&file, 3), 1);
    assert_eq!(folder.names(), ["file"]);
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn permissions_stay() {
        let folder = Folder::new("permissions");
        let path = folder.join("state");
        dict(0, 3).save_safetensors(&path).unwrap();
        fs::write(folder.join("plain"), b"").unwrap();
        assert_eq!(mode(&path), mode(&folder.join("plain")), "a new file as any other");
        for wanted in [0o600, 0o640, 0o666, 0o777, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
            dict(1, 3).save_safetensors(&path).unwrap();
            assert_eq!(mode(&path), wanted, "{wanted:o}");
        }
        assert_eq!(number(&path, 3), 1);
    }

    /// A link at the target is followed, however many there are, and stays.
    #[test]
    fn links_to_the_file_stay() {
        let folder = Folder::new("links");
        fs::create_dir(folder.join("store")).unwrap();
        let file = folder.join("store/state");
        dict(0, 3).save_safetensors(&file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink("store/state", folder.join("relative")).unwrap();
        symlink(folder.join("relative"), folder.join("latest")).unwrap();
        for (number_now, link) in [(1, "relative"), (2, "latest")] {
            dict(number_now, 3).save_safetensors(folder.join(link)).unwrap();
            assert_eq!((number(&file, 3), mode(&file)), (number_now, 0o600));
            assert!(folder.join(link).is_symlink());
        }
        // to nothing yet, and to itself
        symlink("store/new", folder.join("dangling")).unwrap();
        dict(3, 3).save_safetensors(folder.join("dangling")).unwrap();
        assert_eq!(number(&folder.join("store/new"), 3), 3);
        symlink("circle", folder.join("circle")).unwrap();
        assert!(dict(3, 3).save_safetensors(folder.join("circle")).is_err());
        assert_eq!(folder.names(), ["circle", "dangling", "latest", "relative", "store"]);
    }

    /// Links that someone has put where unfinished files go are neither followed nor removed.
    #[test]
    fn planted_links_are_not_followed() {
        let folder = Folder::new("planted");
        let (path, precious) = (folder.join("state"), folder.join("precious"));
        fs::write(&precious, b"precious").unwrap();
        let own = std::process::id();
        for name in [
            format!("state.{own}.partial"),
            format!(".eigenstep-{own}-0-0.partial"),
            ".eigenstep-1-1-1.partial".into(),
        ] {
            symlink(&precious, folder.join(&name)).unwrap();
        }
        (0..3).for_each(|i| dict(i, 3).save_safetensors(&path).unwrap());
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert_eq!((number(&path, 3), folder.names().len()), (2, 5));
    }

    #[test]
    fn devices_are_written_and_stay() {
        dict(0, 3).save_safetensors("/dev/null").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
