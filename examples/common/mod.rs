//! What the examples that train a network share: images, the network, the command line, plots.
#![allow(dead_code, reason = "every example uses a part of it")]

// debug builds, as those of `cargo test`, take the optimizers that are compiled there for all tests
use eigenstep_instances as _;

pub mod args;
pub mod compare;
pub mod data;
pub mod network;
pub mod plot;
pub mod random;

/// What the caller has to put right: an argument, or a data file. The exit code is 2.
#[derive(Debug)]
pub struct Problem(pub String);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// Writes the plots of a run, and says where.
pub fn write_plots(folder: &std::path::Path, plots: &[(&str, String)]) -> Result<(), Problem> {
    for (name, svg) in plots {
        let file = folder.join(name);
        std::fs::write(&file, svg).map_err(|error| denied(folder, &error))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

/// Makes the folder for the plots. Before the training: a folder that cannot be made should not cost
/// a minute.
pub fn make_folder(folder: &std::path::Path) -> Result<(), Problem> {
    std::fs::create_dir_all(folder).map_err(|error| denied(folder, &error))
}

fn denied(folder: &std::path::Path, error: &std::io::Error) -> Problem {
    Problem(format!("--out: expected a folder to write to, {}: {error}", folder.display()))
}
