//! What is printed and what is left in the target folder: the table, the JSON beside it, the plots.

use std::path::Path;

use serde_json::{Value, json};

use crate::figure::{Outcome, short};
use crate::plot;
use crate::stats::median;
use crate::world::Options;

/// Writes bench.json and the plots into the folder, and prints the table.
pub fn report(dir: &Path, facts: &Value, options: Options, outcome: &Outcome) {
    std::fs::create_dir_all(dir).expect("a writable target folder");
    let figures: Vec<Value> = outcome.figures.iter().map(|figure| figure.json()).collect();
    let all = json!({ "machine": facts, "quick": options.quick, "rounds": options.rounds, "figures": figures });
    let file = dir.join("bench.json");
    std::fs::write(&file, serde_json::to_string_pretty(&all).unwrap_or_default() + "\n").expect("room on the disk");
    let mut written = vec![file];
    for picture in &outcome.plots {
        let file = dir.join(format!("{}.svg", picture.file));
        std::fs::write(&file, plot::svg(picture)).expect("room on the disk");
        written.push(file);
    }
    println!("\n{}", machine(facts, options));
    print!("{}", table(outcome));
    let written: Vec<String> = written.iter().map(|file| file.display().to_string()).collect();
    println!("\nwritten: {}", written.join(" "));
}

fn machine(facts: &Value, options: Options) -> String {
    let text = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    let version = text("postgresql");
    let version = version.split(" on ").next().unwrap_or_default();
    let quick = if options.quick { "; QUICK: not to be quoted" } else { "" };
    format!(
        "{} x {}, {}, {version}, node {}, graphile-worker {}, dot_wrapper {}\n8 kB and fdatasync: {} ms; medians of {}{quick}\n",
        facts["cores"],
        text("cpu"),
        text("memory"),
        text("node"),
        text("graphile_worker"),
        text("dot_wrapper"),
        short(facts["fsync_ms"].as_f64().unwrap_or_default()),
        options.rounds,
    )
}

fn table(outcome: &Outcome) -> String {
    let head = ["what", "unit", "ours", "beside", "", "ratio", "target", "met"].map(str::to_owned);
    let mut rows = vec![head];
    for figure in &outcome.figures {
        let beside = if figure.theirs.is_empty() { String::new() } else { short(median(&figure.theirs)) };
        let ratio = figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let met = figure.met().map_or("", |met| if met { "yes" } else { "NO" });
        rows.push([
            figure.name.clone(),
            figure.unit.to_owned(),
            short(median(&figure.ours)),
            beside,
            figure.versus.to_owned(),
            ratio,
            figure.wanted(),
            met.to_owned(),
        ]);
    }
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cell = |n: usize| {
            let (cell, width) = (&row[n], widths[n]);
            if matches!(n, 2 | 3 | 5) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        };
        let line: Vec<String> = (0..8).map(cell).collect();
        out += line.join("  ").trim_end();
        out += "\n";
        let note = n.checked_sub(1).map_or("", |n| outcome.figures[n].note.as_str());
        if !note.is_empty() {
            out += &format!("    {note}\n");
        }
    }
    out
}
