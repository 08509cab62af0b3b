//! Holds the layout up: who may depend on whom, where `unsafe` and SQL may live, how long things may grow.
//!
//! No server and no crate but std: it reads the sources as text, with comments and literals blanked out. It is a net
//! with known holes (macros that assemble paths, glob imports through lib.rs); clippy's disallowed-methods is the other.
#![allow(clippy::expect_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

#[path = "layout/inventory.rs"]
mod inventory;
#[path = "layout/scan.rs"]
mod scan;
use scan::{Source, functions, paths_from_crate, words};

/// What each layer may name with `crate::…`; `lib.rs` is the map and may name all of them.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("api", &["run", "domain", "pg", "error", "guc"]),
    ("run", &["domain", "store", "pg", "host", "error", "guc"]),
    ("worker", &["run", "domain", "store", "engine", "pg", "error", "guc"]),
    ("store", &["domain", "pg", "error", "guc"]),
    ("engine", &["domain", "host"]),
    ("host", &["domain"]),
    ("domain", &[]),
    ("pg", &[]),
    ("error", &["domain", "pg"]),
    ("guc", &["domain", "pg"]),
];

/// The edges that go another way, each in one file and with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("src/api/mod.rs", "worker", "asks for a wake at commit, and for the doctor's facts")];

/// Whether cells of docs/inventory.md may still be to be done.
const INVENTORY_IS_OPEN: bool = false;

type Rule = fn(&Source) -> Vec<String>;

const MAX_FILE: usize = 400;
const MAX_MEDIAN: usize = 150;
const MAX_FUNCTION: usize = 59;

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("directory entry").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Every Rust file below the given folders of the repository, in a stable order.
fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    assert!(!paths.is_empty(), "no Rust files under {folders:?}");
    let read = |p: PathBuf| {
        let name = p.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        Source::new(&name, &std::fs::read_to_string(&p).expect("readable source"))
    };
    paths.into_iter().map(read).collect()
}

/// Runs one rule over the files and fails with every place that breaks it.
fn hold(folders: &[&str], rule: Rule) {
    let broken: Vec<String> = sources(folders).iter().flat_map(rule).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

fn pure(s: &Source) -> Vec<String> {
    if !matches!(s.layer(), "domain" | "engine" | "host") {
        return Vec::new();
    }
    ["pgrx", "pg_sys"].iter().flat_map(|w| words(s, w)).map(|at| s.say(at, "names pgrx")).collect()
}

fn spi(s: &Source) -> Vec<String> {
    // domain, engine and host cannot name pgrx at all, so their `.update(` is a hash, not SPI.
    if matches!(s.layer(), "store" | "pg" | "domain" | "engine" | "host") {
        return Vec::new();
    }
    let hits = ["Spi::", ".select(", ".update("].iter().flat_map(|n| s.code.match_indices(n));
    hits.map(|(at, what)| s.say(at, &format!("`{what}`: SPI belongs in src/store"))).collect()
}

fn no_unsafe(s: &Source) -> Vec<String> {
    if s.layer() == "pg" {
        return Vec::new();
    }
    words(s, "unsafe").map(|at| s.say(at, "`unsafe` belongs in src/pg")).collect()
}

fn no_api(s: &Source) -> Vec<String> {
    if s.layer() == "api" {
        return Vec::new();
    }
    paths_from_crate(s).filter(|(_, to)| to == "api").map(|(at, _)| s.say(at, "imports crate::api")).collect()
}

fn directions(s: &Source) -> Vec<String> {
    let layer = s.layer();
    if layer == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = DIRECTIONS.iter().find(|(name, _)| *name == layer) else {
        return vec![s.say(0, "is in no layer that the design knows")];
    };
    let known = |to: &str| DIRECTIONS.iter().any(|(name, _)| *name == to);
    let excepted = |to: &str| EXCEPTIONS.iter().any(|(file, layer, _)| *file == s.path && *layer == to);
    paths_from_crate(s)
        .filter(|(_, to)| to != layer && known(to) && !allowed.contains(&to.as_str()) && !excepted(to))
        .map(|(at, to)| s.say(at, &format!("{layer} may not depend on {to}")))
        .collect()
}

fn opens_with_doc(s: &Source) -> Vec<String> {
    let first = s.text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    if first.starts_with("//!") { Vec::new() } else { vec![s.say(0, "does not open with `//!`")] }
}

fn short_file(s: &Source) -> Vec<String> {
    let n = s.text.lines().count();
    if n <= MAX_FILE { Vec::new() } else { vec![s.say(0, &format!("{n} lines, more than {MAX_FILE}"))] }
}

fn short_functions(s: &Source) -> Vec<String> {
    let long = functions(s).filter(|f| f.lines > MAX_FUNCTION);
    long.map(|f| s.say(f.at, &format!("fn {} has {} lines, more than {MAX_FUNCTION}", f.name, f.lines))).collect()
}

fn finished(s: &Source) -> Vec<String> {
    let hits = ["todo!", "unimplemented!", "#[ignore"].iter().flat_map(|n| s.code.match_indices(n));
    hits.map(|(at, what)| s.say(at, &format!("`{what}`"))).collect()
}

#[test]
fn domain_engine_and_host_never_name_pgrx() {
    hold(&["src"], pure);
}

#[test]
fn spi_only_in_store_and_pg() {
    hold(&["src"], spi);
}

#[test]
fn unsafe_only_in_pg() {
    hold(&["src", "examples", "benches"], no_unsafe);
}

#[test]
fn nothing_imports_api() {
    hold(&["src", "pg_test", "benches"], no_api);
}

#[test]
fn layers_depend_downwards() {
    hold(&["src"], directions);
}

#[test]
fn every_file_says_what_it_is() {
    hold(&["src", "pg_test", "examples", "benches"], opens_with_doc);
}

#[test]
fn no_long_file() {
    hold(&["src", "pg_test", "examples", "benches"], short_file);
}

#[test]
fn the_median_file_is_short() {
    let mut lengths: Vec<usize> = sources(&["src"]).iter().map(|s| s.text.lines().count()).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= MAX_MEDIAN, "the median file under src has {median} lines, more than {MAX_MEDIAN}");
}

#[test]
fn no_long_function() {
    hold(&["src", "pg_test", "examples", "benches"], short_functions);
}

#[test]
fn nothing_left_to_do_and_nothing_ignored() {
    hold(&["src", "pg_test", "examples", "benches"], finished);
}

#[test]
fn every_cell_of_the_inventory_is_answered_by_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/inventory.md")).expect("the page");
    let faults = inventory::faults(&page, root, INVENTORY_IS_OPEN);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    // And each of these must be able to fail.
    for (good, bad, open) in [
        ("Cannot apply: a command is one row", "TBD-events", false),
        ("`observe.sql`", "", true),
        ("`observe.sql`", "`unheard_of.sql`", true),
        ("`observe.sql`", "yes", true),
        ("Cannot apply: a command is one row", "no", true),
        ("dry_run.rs::all_103_kg", "dry_run.rs::no_103_kg", true),
        ("dry_run.rs::all_103_kg", "dry_ran.rs::all_103_kg", true),
        ("| Triggers (event, and dual) |", "Triggers |", true),
    ] {
        assert!(page.contains(good), "{good}");
        assert!(!inventory::faults(&page.replace(good, bad), root, open).is_empty(), "{good} -> {bad}");
    }
}

/// Each rule must be able to fail: one source that keeps it, one that breaks it.
#[test]
fn every_rule_can_fail() {
    let long = format!("fn f() {{\n{}}}", "let _ = 1;\n".repeat(60));
    let cases: &[(Rule, &str, &str, &str)] = &[
        (pure, "src/domain/a.rs", "// pgrx\nconst A: &str = \"pgrx\";", "use pgrx::prelude::*;"),
        (spi, "src/run/a.rs", "store::find(c)", "Spi::connect(|c| c.select(q, None, &[]))"),
        (no_unsafe, "src/run/a.rs", "// unsafe\nfn f(unsafely: u8) {}", "unsafe { f() }"),
        (no_api, "src/run/a.rs", "use crate::run::api;", "use crate::{store, api::f};"),
        (directions, "src/store/a.rs", "use crate::{domain::Mode, pg};", "use crate::{domain::{self, x}, run};"),
        (directions, "src/store/mod.rs", "use super::elsewhere;", "use super::worker::wake;"),
        (opens_with_doc, "src/a.rs", "//! Says it.", "use a;"),
        (short_file, "src/a.rs", "x\n", &"x\n".repeat(401)),
        (short_functions, "src/a.rs", "fn f(a: [u8; 2]) { let s = \"}}{{\"; }\nfn g() {\n}", &long),
        (finished, "src/a.rs", "// todo!()", "fn f() { todo!() }"),
    ];
    for (n, (rule, path, good, bad)) in cases.iter().enumerate() {
        assert_eq!(rule(&Source::new(path, good)), Vec::<String>::new(), "case {n}, the good source");
        assert!(!rule(&Source::new(path, bad)).is_empty(), "case {n}, the bad source");
    }
}
