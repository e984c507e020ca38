//! The command `compare`.

use crate::{
    compare::{List, grade_all, write_page},
    scenario::matches,
};
use clap::Args;
use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// List of the servers, in JSON
    list: PathBuf,
    /// Only these servers, for example 'axum*'; may be repeated. The results of the others stay
    #[arg(long, value_name = "PATTERN")]
    server: Vec<String>,
    /// Folder for the results, one file a server
    #[arg(long, value_name = "DIR", default_value = "target/conformance")]
    results: PathBuf,
    /// Page to write in Markdown, of all results; its picture has the ending .svg
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Grade nothing: write the page of the results that are there
    #[arg(long)]
    no_grading: bool,
    /// Options of `run` for all servers, for example --repeat 5. They replace those of the list
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

pub(super) fn compare(args: &CompareArgs) -> Result<ExitCode, String> {
    let list = List::read(&args.list)?;
    for pattern in &args.server {
        if !list.entries.iter().any(|entry| matches(pattern, &entry.name)) {
            return Err(format!("no server of the list matches `{pattern}`"));
        }
    }
    if !args.no_grading {
        let is_selected = |name: &str| {
            args.server.is_empty() || args.server.iter().any(|pattern| matches(pattern, name))
        };
        grade_all(&list, is_selected, &args.options, &args.results)?;
    }
    if let Some(page) = &args.page {
        write_page(&list, &args.results, page)?;
    }
    Ok(ExitCode::SUCCESS)
}
