//! Reads docs/inventory.md: every cell of its table is answered, and every test that is named there exists.

use std::path::Path;

/// The mechanisms of the table.
const MECHANISMS: usize = 7;
/// Mechanism, what was found, and the five columns of the report.
const CELLS: usize = 7;

/// What is wrong with the page. `open`: whether cells may still be to be done.
pub fn faults(page: &str, root: &Path, open: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let rows: Vec<Vec<&str>> = page.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect();
    if rows.len() != MECHANISMS {
        faults.push(format!("{} mechanisms, not {MECHANISMS}", rows.len()));
    }
    for row in &rows {
        let name = row.first().copied().unwrap_or_default();
        if row.len() != CELLS {
            faults.push(format!("{name}: {} cells, not {CELLS}", row.len()));
        }
        for (n, cell) in row.iter().enumerate().skip(2) {
            faults.extend(cell_faults(cell, root, open).into_iter().map(|why| format!("{name}, column {n}: {why}")));
        }
    }
    faults
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

fn cell_faults(cell: &str, root: &Path, open: bool) -> Vec<String> {
    if cell.contains("TBD") {
        return if open { Vec::new() } else { vec![format!("{cell} is not answered")] };
    }
    let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    let tests: Vec<&&str> = named.iter().filter(|name| name.contains("::") || name.ends_with(".sql")).collect();
    if tests.is_empty() && !cell.starts_with("Cannot apply: ") {
        return vec![format!("\"{cell}\" names no test and no reason")];
    }
    tests.into_iter().filter(|test| !exists(test, root)).map(|test| format!("there is no test {test}")).collect()
}

/// `file::test` below pg_test/cluster, pg_test or the root; or a scheduled golden test.
fn exists(test: &str, root: &Path) -> bool {
    let read = |path: String| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let Some((file, name)) = test.split_once("::") else {
        let schedule = read("pg_test/regress/schedule".into());
        let stem = test.trim_end_matches(".sql");
        let is_scheduled = schedule.lines().any(|line| line.trim() == format!("test: {stem}"));
        return is_scheduled && root.join("pg_test/regress/sql").join(test).is_file();
    };
    ["pg_test/cluster/", "pg_test/", ""].iter().any(|folder| {
        let text = read(format!("{folder}{file}"));
        let head = format!("fn {name}(");
        text.match_indices(&head).any(|(at, _)| text[..at].trim_end().ends_with("#[test]"))
    })
}
