//! What the pages and the files of deployments name exists: every path, every command with its flags, every consumer.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use throughline::cli::Cli;
use throughline_schemas::STAGES;

const PAGES: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"];
/// Folders at the top: what begins with one of them is meant as a path.
const TOP: [&str; 6] = ["src/", "actors/", "schemas/", "tests/", "deploy/", ".ci/"];
/// What a user makes.
const MADE: &str = "deploy/secrets";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Lines of fenced blocks, and the code spans of the other lines.
fn code(page: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut blocks, mut spans, mut fenced) = (Vec::new(), Vec::new(), false);
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            blocks.push(line.trim());
        } else {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    (blocks, spans)
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn unbraced(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let Some((inside, after)) = rest.split_once('}') else { return vec![path.to_owned()] };
    inside.split(',').flat_map(|part| unbraced(&format!("{before}{}{after}", part.trim()))).collect()
}

/// Whether there is such a file or folder. A name with a `*` or a `<placeholder>` stands for at least one entry of its folder.
fn exists(path: &str) -> bool {
    let path = path.trim_end_matches(['/', '.', ',', ';', ':', ')']);
    let is_pattern = |part: &str| part.contains(['*', '<']);
    match path.split('/').position(is_pattern) {
        None => root().join(path).exists(),
        Some(place) => {
            let folder: PathBuf = path.split('/').take(place).collect();
            std::fs::read_dir(root().join(folder)).is_ok_and(|mut entries| entries.next().is_some())
        }
    }
}

#[test]
fn every_path_on_the_pages_exists() {
    let mut checked = 0;
    let mut missing = Vec::new();
    for name in PAGES {
        let page = page(name);
        let (blocks, spans) = code(&page);
        for word in blocks.into_iter().chain(spans).flat_map(str::split_whitespace) {
            let word = word.trim_start_matches("./").trim_matches(['"', '\'', '(']);
            let here = TOP.iter().any(|top| word.starts_with(top));
            // What another program serves or a user writes is no path of ours.
            if !here || word.starts_with(MADE) || word.contains("://") || word.contains('$') {
                continue;
            }
            for path in unbraced(word) {
                checked += 1;
                if !exists(&path) {
                    missing.push(format!("{name}: {path}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no such file or folder:\n{}", missing.join("\n"));
    assert!(checked > 150, "only {checked} paths were found");
}

/// The words of a command line up to a pipe or another command; `None` if it is not one of ours.
fn command_line(line: &str) -> Option<Vec<&str>> {
    let line = line.trim_start_matches("$ ");
    let line = line.strip_prefix("cargo run --release -- ").map_or(line, |rest| rest);
    let words: Vec<_> = line.split_whitespace().collect();
    let begin = words
        .iter()
        .position(|word| *word == "throughline" || word.ends_with("/throughline") && !word.contains("://"))?;
    // Variables may stand before it, nothing else.
    if !words[..begin].iter().all(|word| word.contains('=')) {
        return None;
    }
    let end = words[begin..].iter().position(|word| ["|", "&&", "&", ">", ";", "#"].contains(word));
    Some(words[begin + 1..end.map_or(words.len(), |end| begin + end)].to_vec())
}

/// What is wrong with a command line, if anything is: a command or a flag that there is not.
fn wrong(words: &[&str]) -> Option<String> {
    let root = Cli::command();
    let mut command = &root;
    let mut named = vec![&root];
    for word in words {
        let word = word.trim_matches(['"', '\'', ',', '.', ')', '[', ']', '`']);
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split(['=', '|']).next().unwrap_or_default();
            let known = |command: &&clap::Command| {
                command.get_arguments().any(|argument| {
                    argument.get_long() == Some(flag)
                        || argument.get_all_aliases().is_some_and(|names| names.contains(&flag))
                })
            };
            if !flag.is_empty() && !["help", "version"].contains(&flag) && !named.iter().any(known) {
                return Some(format!("`{}` has no --{flag}", command.get_name()));
            }
        } else if let Some(inner) = command.find_subcommand(word) {
            command = inner;
            named.push(inner);
        } else if command.has_subcommands()
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            && !word.is_empty()
        {
            return Some(format!("`{}` has no command `{word}`", command.get_name()));
        }
    }
    None
}

#[test]
fn every_command_on_the_pages_exists() {
    let mut checked = 0;
    let mut missing = Vec::new();
    for name in PAGES {
        let page = page(name);
        let (blocks, spans) = code(&page);
        for line in blocks.into_iter().chain(spans) {
            let Some(words) = command_line(line) else { continue };
            checked += 1;
            missing.extend(wrong(&words).map(|wrong| format!("{name}: {line}: {wrong}")));
        }
    }
    assert!(missing.is_empty(), "there is no such thing:\n{}", missing.join("\n"));
    assert!(checked > 50, "only {checked} command lines were found");
}

#[test]
fn a_wrong_name_is_found() {
    assert!(!exists("src/no_such_file.rs") && exists("src/cli/*.rs") && exists("actors/src/policy/"));
    assert_eq!(unbraced("src/{a,b}/c.rs"), ["src/a/c.rs", "src/b/c.rs"]);
    let line = |line| command_line(line).and_then(|words| wrong(&words));
    assert_eq!(line("throughline publish --wait \"Hello\""), None);
    assert_eq!(line("A=b throughline replay verify --file x | head --lines 3"), None);
    assert!(line("throughline publsh").is_some() && line("throughline publish --wiat x").is_some());
    assert!(Path::new(&root()).join("Cargo.toml").exists());
}

/// Files below a folder, as text; what is no text is left out.
fn texts(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            texts.extend(self::texts(&path));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            texts.push((path, text));
        }
    }
    texts
}

#[test]
fn every_consumer_that_a_file_of_deploy_names_is_a_stage_of_the_table() {
    let known: Vec<String> = STAGES.iter().map(|definition| format!("stage_{}", definition.name)).collect();
    let mut named = BTreeSet::new();
    for (path, text) in texts(&root().join("deploy")) {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("stage_")) {
            assert!(known.iter().any(|name| name == word), "{}: {word}", path.display());
            named.insert(word.to_owned());
        }
    }
    assert_eq!(named.len(), STAGES.len(), "accounts.conf names all of them: {named:?}");
}
