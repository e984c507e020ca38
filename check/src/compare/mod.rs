//! Grades several servers, each with its own options, and makes a page of the results.
//!
//! A list in JSON has the servers. The result of each is a file, so that one server can be graded
//! again, and the page is made of all results.

mod page;
mod picture;

use crate::{
    cli::{expect_run, grade_by},
    formats::{Format, format},
    grading::Report,
    server::Server,
    target::Target,
};
use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A server of the list.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where to get it.
    pub install: String,
    /// The command that builds it, or none.
    pub build: Vec<String>,
    /// The command whose output has its version.
    pub version: Vec<String>,
    /// Whether it is a proxy, and needs a server to forward to.
    pub needs_backend: bool,
    /// Its options of `lameduck-check run`.
    pub options: Vec<String>,
    /// Its command. `{backend}` is the port of the backend, `{folder}` one for its files.
    pub command: Vec<String>,
    /// The settings of its graceful shutdown, in Markdown.
    pub settings: String,
    /// Where they are recommended.
    pub source: String,
    /// Remarks on its results, in Markdown.
    pub notes: Vec<String>,
}

/// The servers, and what they share.
#[derive(Clone, Debug)]
pub struct List {
    /// Options of all.
    pub options: Vec<String>,
    /// The server behind the proxies: its build, its readiness and its command.
    pub backend: (Vec<String>, Option<String>, Vec<String>),
    /// The servers.
    pub entries: Vec<Entry>,
}

impl List {
    /// Reads a list.
    ///
    /// # Errors
    /// If the file cannot be read, or is not such a list.
    pub fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: String| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let all = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        Self::of(&all).map_err(failed)
    }

    fn of(all: &Value) -> Result<Self, String> {
        let entries = all["servers"].as_array().ok_or("`servers` is missing")?;
        let backend = &all["backend"];
        let ready = backend["ready"].as_str().map(str::to_owned);
        Ok(Self {
            options: words(all, "options")?,
            backend: (words(backend, "build")?, ready, words(backend, "command")?),
            entries: entries.iter().map(Entry::of).collect::<Result<_, _>>()?,
        })
    }
}

impl Entry {
    fn of(entry: &Value) -> Result<Self, String> {
        let text = |key: &str| {
            let value = entry[key].as_str().map(str::to_owned);
            value.ok_or_else(|| format!("`{key}` is missing in {entry}"))
        };
        Ok(Self {
            name: text("name")?,
            install: text("install")?,
            build: words(entry, "build")?,
            version: words(entry, "version")?,
            needs_backend: entry["backend"].as_bool().unwrap_or(false),
            options: words(entry, "options")?,
            command: words(entry, "command")?,
            settings: text("settings")?,
            source: text("source")?,
            notes: words(entry, "notes")?,
        })
    }

    /// Returns the command line that grades it. Later options replace earlier ones.
    fn arguments(&self, options: &[String], backend: u16, folder: &Path) -> Vec<String> {
        let fill = |word: &String| {
            word.replace("{backend}", &backend.to_string())
                .replace("{folder}", &folder.display().to_string())
        };
        let words = ["lameduck-check", "run"].map(str::to_owned).into_iter();
        let words = words.chain(options.iter().cloned()).chain(["--".to_owned()]);
        words.chain(self.command.iter().map(fill)).collect()
    }

    /// Returns the file of its result.
    fn file(&self, results: &Path) -> PathBuf {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        results.join(format!("{}.json", self.name.chars().map(letter).collect::<String>()))
    }
}

/// Returns a list of words, which is empty if it is missing.
fn words(of: &Value, key: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{key}` is no list of strings in {of}");
    match &of[key] {
        Value::Null => Ok(Vec::new()),
        Value::Array(words) => {
            words.iter().map(|word| word.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Err(wrong()),
    }
}

/// Grades the servers whose name is selected. Writes one result each into the folder `results`.
///
/// # Errors
/// If an option is wrong, a result cannot be written, or the backend of a proxy does not start.
pub fn grade_all(
    list: &List,
    is_selected: impl Fn(&str) -> bool,
    options: &[String],
    results: &Path,
) -> Result<(), String> {
    let selected: Vec<_> = list.entries.iter().filter(|entry| is_selected(&entry.name)).collect();
    let arguments = |entry: &Entry, backend: u16, folder: &Path| {
        let options = [&list.options, &entry.options, options].concat();
        entry.arguments(&options, backend, folder)
    };
    // Before the results of an earlier run are replaced.
    for entry in &selected {
        let checked = expect_run(arguments(entry, 1, Path::new("/")));
        checked.map_err(|error| format!("{}: {error}", entry.name))?;
    }
    let failed = |error: io::Error| format!("{}: {error}", results.display());
    let folder = results.join("tmp");
    fs::create_dir_all(&folder).map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    let backend = match selected.iter().any(|entry| entry.needs_backend) {
        true => Some(start_backend(list)?),
        false => None,
    };
    for entry in selected {
        let port = backend.as_ref().map(|server| server.address.port()).unwrap_or_default();
        let result = grade_one(entry, arguments(entry, port, &folder));
        let value = match &result {
            Ok((version, report)) => {
                let report: Value = serde_json::from_str(&format(report, Format::Json, false))
                    .map_err(|error| error.to_string())?;
                json!({"name": entry.name, "version": version, "report": report})
            }
            Err(why) => json!({"name": entry.name, "not_graded": why}),
        };
        fs::write(entry.file(results), format!("{value:#}\n")).map_err(failed)?;
        match result {
            Ok((version, report)) => {
                let line = format(&report, Format::Human, false);
                eprintln!("{} {version}: {}", entry.name, line.lines().last().unwrap_or_default());
            }
            Err(why) => eprintln!("{}: not graded: {why}", entry.name),
        }
    }
    let _ = fs::remove_dir_all(folder);
    Ok(())
}

fn start_backend(list: &List) -> Result<Server, String> {
    let (build, ready, command) = &list.backend;
    run(build)?;
    let mut target = Target::new(command.clone());
    target.ready.clone_from(ready);
    Server::start(&target).map_err(|error| format!("the backend: {error}"))
}

/// Returns the version of the server and its report, or why there is none.
fn grade_one(entry: &Entry, arguments: Vec<String>) -> Result<(String, Report), String> {
    let missing = |error| format!("{error} ({})", entry.install);
    run(&entry.build).map_err(missing)?;
    let output = run(&entry.version).map_err(missing)?;
    let version = version_in(&output).unwrap_or("of unknown version").to_owned();
    let report = grade_by(arguments)?;
    Ok((version, report))
}

/// Runs a command, if there is one. Returns its output.
fn run(words: &[String]) -> Result<String, String> {
    let Some((program, arguments)) = words.split_first() else { return Ok(String::new()) };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{program}`: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("`{}`: {}: {last}", words.join(" "), output.status))
}

/// Returns the first number with a point: `1.22.1` of `nginx/1.22.1`.
fn version_in(text: &str) -> Option<&str> {
    let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .map(|word| word.trim_matches('.'))
        .filter(is_number)
        .find(|word| word.contains('.'))
}

/// Writes the page and its picture, of all results that are there.
///
/// # Errors
/// If a file cannot be read or written.
pub fn write_page(list: &List, results: &Path, page: &Path) -> Result<(), String> {
    let mut graded = Vec::new();
    for entry in &list.entries {
        let file = entry.file(results);
        let failed = |error: String| format!("{}: {error}", file.display());
        let result = match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                json!({"not_graded": "it was not tried"})
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        graded.push((entry, result));
    }
    let picture = page.with_extension("svg");
    let name = picture.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(&picture, picture::draw(&graded))?;
    write(page, page::format(&graded, &name))
}

/// A server and its result.
type Graded<'a> = (&'a Entry, Value);

/// Returns the scenarios of a result, and none if it was not graded.
fn scenarios(result: &Value) -> &[Value] {
    result["report"]["scenarios"].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::{List, expect_run, grade_all, page, picture, version_in};
    use serde_json::{Value, json};
    use std::{fs, path::Path};

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("registry+https://example.org/index#axum@0.8.9", "0.8.9"),
            ("go version go1.19.8 linux/amd64", "1.19.8"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17", "2.6.12"),
            ("gunicorn (version 27.0.1)", "27.0.1"),
            ("v20.20.2", "20.20.2"),
        ] {
            assert_eq!(version_in(text), Some(version));
        }
        assert_eq!(version_in("no version 7"), None);
    }

    #[test]
    fn the_list_of_the_repository_is_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let list = List::read(&root.join("servers/servers.json")).unwrap();
        assert!(list.entries.len() >= 16);
        for entry in list.entries {
            let options = [&list.options[..], &entry.options].concat();
            expect_run(entry.arguments(&options, 1, root)).unwrap();
            assert!(entry.source.starts_with("https://") && !entry.settings.is_empty());
            assert!(!entry.command.is_empty() && !entry.version.is_empty(), "{}", entry.name);
        }
    }

    #[test]
    fn bad_lists_have_an_error_with_their_key() {
        for (list, words) in [
            (json!({}), "`servers` is missing"),
            (json!({"servers": [{}]}), "`name` is missing in {}"),
            (json!({"servers": [], "options": "--repeat"}), "`options` is no list of strings"),
        ] {
            let error = List::of(&list).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    // `compare … -- --jobs 1` replaced the results of all servers by "not graded", since the list
    // set that option, too, and ended with success.
    #[test]
    fn wrong_options_end_a_comparison_before_it_writes() {
        let entry = json!({"name": "a", "install": "apt", "settings": "-", "source": "-",
            "build": ["false"], "options": ["--repeat", "2"], "command": ["true", "{port}"]});
        let list = json!({"servers": [entry], "options": ["--jobs", "4"]});
        let list = List::of(&list).unwrap();
        let results = std::env::temp_dir().join(format!("lameduck-compare-{}", std::process::id()));
        let graded = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
            grade_all(&list, |_| true, &options, &results)
        };
        for (options, words) in [
            (&["--jbos", "1"][..], "a: error: unexpected argument '--jbos'"),
            (&["--only", "none/*"], "a: no scenario matches `none/*`"),
            // These were ignored.
            (&["--evidence", "x"], "a: --evidence: only `run` has it"),
            (&["--strict"], "a: --strict: only `run` has it"),
            (&["--list"], "a: --list: only `run` has it"),
            (&["--format", "junit"], "a: --format: only `run` has it"),
        ] {
            let error = graded(options).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(!results.exists());
        }
        graded(&["--jobs", "1", "--repeat", "1"]).unwrap();
        let result = fs::read_to_string(results.join("a.json")).unwrap();
        assert!(result.contains("`false`"), "{result}");
        fs::remove_dir_all(&results).unwrap();
    }

    #[test]
    fn the_page_has_scores_failures_and_what_was_not_graded() {
        let entry = |name: &str| {
            json!({"name": name, "install": "apt", "settings": "`none`", "source": "https://s",
                   "notes": ["A remark."]})
        };
        let servers = [entry("good"), entry("bad"), entry("absent"), entry("a & b <c>")];
        let list = List::of(&json!({"servers": servers}));
        let list = list.unwrap();
        let result = |verdict: &str, story: &[&str]| {
            let scenario = json!({"name": "accept/backlog", "grade": "MUST", "verdict": verdict,
                "tries": 4, "failures": story.len(), "stories": story});
            json!({"version": "1.2", "report": {"scenarios": [scenario], "took_ms": 1000}})
        };
        let failed = result("fail", &["queued 1: the connection was reset"]);
        let absent = json!({"not_graded": "cannot run `absent` (apt)"});
        let results: [Value; 4] = [result("pass", &[]), failed, absent, result("skip", &[])];
        let graded: Vec<_> = list.entries.iter().zip(results).collect();
        let text = page::format(&graded, "table.svg");
        for line in [
            "| good | 1.2 | 1 of 1 | – | – |",
            "| bad | 1.2 | 0 of 1 | – | – |",
            "| `accept/backlog` | MUST | 1 of 4 | queued 1: the connection was reset |",
            "A remark.",
            "- absent: cannot run `absent` (apt)",
            "![",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let svg = picture::draw(&graded);
        assert!(svg.contains("accept/backlog") && !svg.contains(">absent<"), "{svg}");
        assert!(svg.contains(">a &amp; b &lt;c&gt;<"), "{svg}");
        assert_eq!(svg.matches("class=\"pass\"").count(), 1 + 1, "a cell and the legend");
    }
}
