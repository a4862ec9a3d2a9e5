//! What a run leaves as it found it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};
use bench::conntrack::Settings;

/// Puts back on its drop what was there before.
pub(crate) enum PutBack {
    /// The table's settings.
    Settings(Settings),
    /// A file's content.
    File(&'static str, String),
}

impl PutBack {
    /// Writes a file, whose content of now comes back.
    pub fn file(path: &'static str, content: &str) -> Result<Self> {
        let found = fs::read_to_string(path).context(path)?;
        fs::write(path, content).context(path)?;
        Ok(Self::File(path, found))
    }
}

impl Drop for PutBack {
    fn drop(&mut self) {
        let outcome = match self {
            Self::Settings(settings) => settings.write(),
            Self::File(path, content) => fs::write(*path, content).context(*path),
        };
        if let Err(error) = outcome {
            eprintln!("cannot put a setting back: {error:#}");
        }
    }
}

/// What this process is called in the environment of the programs that it starts; `pid` is its number.
pub(crate) fn run_name(pid: u32) -> String {
    format!("conntrack-guard-bench-{pid}")
}

/// A folder in memory, for this run only.
pub(crate) struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let folder = Self::of(process::id());
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }

    /// That of the process with this number.
    pub fn of(pid: u32) -> PathBuf {
        Path::new("/run").join(run_name(pid))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A copy of a program in it. The folder is in memory: a guest's clock that counts instructions leaps while everybody
    /// waits for a disk, and on a busy machine that is long.
    pub fn copy(&self, program: &Path) -> Result<PathBuf> {
        let name = program.file_name().with_context(|| format!("{} is no program", program.display()))?;
        let copy = self.0.join(name);
        fs::copy(program, &copy).with_context(|| format!("copying {}", program.display()))?;
        Ok(copy)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
