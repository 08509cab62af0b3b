//! D4: changes to the ledger by anybody, told by fn_dot_verify.

use crate::harness::run::Ask;
use crate::harness::{Bench, until};
use postgres::GenericClient;
use uuid::Uuid;

#[derive(Debug, PartialEq, Clone)]
pub struct Finding {
    pub kind: String,
    pub run_id: Option<Uuid>,
    pub item: Option<i64>,
    pub verdict: String,
    pub detail: String,
}

pub fn verify(session: &mut impl GenericClient) -> Vec<Finding> {
    let rows = session.query("SELECT * FROM fn_dot_verify()", &[]).unwrap();
    rows.iter()
        .map(|row| Finding {
            kind: row.get(0),
            run_id: row.get(1),
            item: row.get(2),
            verdict: row.get(3),
            detail: row.get(4),
        })
        .collect()
}

#[test]
fn smoke() {
    let bench = Bench::shared();
    bench.until(&bench.apply("DOT-1"), "succeeded");
    bench.ask(&Ask::new("DOT-2", "plan"));
    bench.ask(&Ask::new("DOT-NONE", "apply"));
    until("sealed", || {
        let found = verify(&mut *bench.session());
        (!found[0].detail.contains("not sealed")).then_some(())
    });
    println!("{:#?}", verify(&mut *bench.session()));
    println!(
        "{}",
        bench
            .cluster
            .log()
            .lines()
            .filter(|l| l.contains("seal") || l.contains("ERROR") || l.contains("WARN"))
            .collect::<Vec<_>>()
            .join("\n")
    );
}
