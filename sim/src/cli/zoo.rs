//! The bug zoo: wrong variants of the host, as patches. Exploration must find each of them.
//!
//! ```text
//!  sim/zoo/*.patch ──▶ copy of the tree ──▶ build ──▶ census of failing seeds ──▶ seeds to detect
//! ```
//! Production code has no switches for the variants. A patch that no longer applies is an error,
//! since the zoo must follow the code. "Seeds to detect" is the median over blocks of seeds: for
//! each block, the number of seeds from its beginning until one fails.
#![expect(
    clippy::disallowed_methods,
    reason = "how long a build takes is no matter of a simulated world"
)]

use super::{Held, print, print_error};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// Number of seeds in a block.
const BLOCK: u64 = 100;

/// Tests all patches whose names contain one of `names`, with `seeds` seeds each.
pub(super) fn zoo(names: &[String], seeds: u64) -> io::Result<Held> {
    let root = root();
    let mut patches: Vec<PathBuf> = fs::read_dir(root.join("sim/zoo"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_patch(path))
        .collect();
    patches.sort();
    patches.retain(|path| {
        names.is_empty() || names.iter().any(|name| path.to_string_lossy().contains(name.as_str()))
    });
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("zoo");
    print(&format!(
        "{:<38} {:<8} {:<8} {:>6} {:>7} {:>9}\n",
        "bug", "promise", "found by", "first", "median", "of seeds"
    ))?;
    let mut held = Held::Yes;
    for patch in &patches {
        let began = Instant::now();
        let tree = copy(&root, &target.join("tree"))?;
        apply(&tree, patch)?;
        let binary = build(&tree, &target)?;
        let network = header(patch, "Network: ")?.unwrap_or_else(|| "turmoil-net".to_owned());
        let census = Census::take(&binary, seeds, &network)?;
        print_error(&format!("{}: {:.0?}", name(patch), began.elapsed()));
        print(&census.line(patch)?)?;
        if census.failing.is_empty() {
            held = Held::No;
        }
    }
    print(&format!(
        "{} bugs, {}\n",
        patches.len(),
        if held == Held::Yes { "each was found" } else { "not all were found" }
    ))?;
    Ok(held)
}

/// Returns the workspace: the current folder, or the one in which this binary was built.
fn root() -> PathBuf {
    let here = PathBuf::from(".");
    let root = if here.join("sim/zoo").is_dir() {
        here
    } else {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    };
    // The build of the copy runs in the copy, so the path must be absolute.
    fs::canonicalize(&root).unwrap_or(root)
}

fn is_patch(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "patch")
}

fn name(patch: &Path) -> String {
    patch.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns what a line at the beginning of a patch says: its promise, its story, or the network
/// that can see it, if that is not the usual one.
fn header(patch: &Path, name: &str) -> io::Result<Option<String>> {
    let text = fs::read_to_string(patch)?;
    let mut lines = text.lines().take_while(|line| !line.is_empty());
    Ok(lines.find_map(|line| line.strip_prefix(name)).map(str::to_owned))
}

/// Makes a fresh copy of the files that git tracks, with uncommitted changes.
fn copy(root: &Path, tree: &Path) -> io::Result<PathBuf> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    let files = run(Command::new("git").current_dir(root).args(["ls-files", "-z"]))?;
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root.join(file), tree.join(file));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        if from.is_file() {
            fs::copy(from, to)?;
        }
    }
    fs::canonicalize(tree)
}

fn apply(tree: &Path, patch: &Path) -> io::Result<()> {
    let patch = fs::canonicalize(patch)?;
    // In a repository, `git apply` would skip files that the index does not contain.
    let ceiling = tree.parent().unwrap_or(tree);
    run(Command::new("git")
        .current_dir(tree)
        .env("GIT_CEILING_DIRECTORIES", ceiling)
        .arg("apply")
        .arg(patch))
    .map(drop)
}

/// Builds the copy with settings for a short build time. Seeds are measured, not time.
fn build(tree: &Path, target: &Path) -> io::Result<PathBuf> {
    let target = target.join("target");
    run(Command::new("cargo")
        .current_dir(tree)
        .args(["build", "--quiet", "--release", "--package", "lameduck-sim"])
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"))?;
    Ok(target.join("release/lameduck-sim"))
}

/// Runs a command and returns its output; fails if the command fails.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "{:?} failed: {}",
            command.get_program(),
            said.trim_end()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The failing seeds, each with the broken promise.
struct Census {
    seeds: u64,
    /// In the order of the seeds. A seed that broke several promises occurs several times.
    failing: Vec<(u64, String)>,
}

impl Census {
    fn take(binary: &Path, seeds: u64, network: &str) -> io::Result<Self> {
        let seeds_of = format!("0..{seeds}");
        let args = ["--census", "--network", network, "--seeds", &seeds_of];
        let output = Command::new(binary).args(args).output()?;
        // 0: no promise broken; 1: some promise broken.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!(
                "{} failed: {}",
                binary.display(),
                said.trim_end()
            )));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = |line: &str| {
            let (seed, promise) = line.split_once(' ')?;
            Some((seed.parse().ok()?, promise.to_owned()))
        };
        Ok(Self { seeds, failing: text.lines().filter_map(line).collect() })
    }

    fn first_from(&self, from: u64) -> Option<u64> {
        self.failing.iter().find(|(seed, _)| *seed >= from).map(|(seed, _)| seed - from + 1)
    }

    /// Returns the median over all blocks; `None` if at least half of the blocks contain no
    /// failure.
    fn median(&self) -> Option<u64> {
        let mut all: Vec<u64> = (0..self.seeds / BLOCK)
            .map(|block| self.first_from(block * BLOCK).unwrap_or(u64::MAX))
            .collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().filter(|median| *median < u64::MAX)
    }

    fn line(&self, patch: &Path) -> io::Result<String> {
        let promise = header(patch, "Promise: ")?.unwrap_or_else(|| "?".to_owned());
        let (mut seeds, mut by): (Vec<u64>, Vec<&str>) =
            self.failing.iter().map(|(seed, promise)| (*seed, promise.as_str())).unzip();
        seeds.dedup();
        by.sort_by_key(|promise| {
            promise.trim_matches(char::is_alphabetic).parse::<u32>().unwrap_or(0)
        });
        by.dedup();
        let number = |number: Option<u64>| {
            number.map_or_else(|| "never".to_owned(), |number| number.to_string())
        };
        let (first, median) = (number(self.first_from(0)), number(self.median()));
        let by = by.join(",");
        Ok(format!(
            "{:<38} {promise:<8} {by:<8} {first:>6} {median:>7} {:>9}\n",
            name(patch),
            seeds.len()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Census;

    #[test]
    fn seeds_to_detect_is_counted_from_the_beginning_of_a_block() {
        let census = Census {
            seeds: 300,
            failing: [4, 150, 299].map(|seed| (seed, "P1".to_owned())).into(),
        };
        assert_eq!(
            (census.first_from(0), census.first_from(100), census.first_from(200)),
            (Some(5), Some(51), Some(100))
        );
        assert_eq!(census.median(), Some(51));
        assert_eq!(Census { seeds: 300, failing: Vec::new() }.median(), None);
    }
}
