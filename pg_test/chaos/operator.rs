//! The operator: resolves what is in doubt and cannot be asked about, with what the agent's people tell him, and lets go
//! on what was set aside.

use std::sync::atomic::Ordering;
use std::time::Duration;

use postgres::{Client, Error};

use super::ledger;
use super::server::DATABASE;
use super::world::World;

/// Looks after the database until the storm is over.
pub fn run(world: &World) {
    while !world.is_over() {
        std::thread::sleep(Duration::from_millis(300));
        if let Ok(mut session) = world.server().session(DATABASE, "postgres") {
            // What fails in a crash is done at the next look.
            let _ = look_after(world, &mut session);
        }
    }
}

/// Once.
pub fn look_after(world: &World, session: &mut Client) -> Result<(), Error> {
    for run in ledger::mute_doubts(session)? {
        let done = world.agent.book().runs.get(&run).is_some_and(|kept| kept.effects > 0);
        let outcome = if done { "succeeded" } else { "failed" };
        session.execute("SELECT fn_dot_resolve($1, $2, 'the agent''s people say so')", &[&run, &outcome])?;
        world.resolved.fetch_add(1, Ordering::Relaxed);
    }
    let set_aside = ledger::quarantined(session)?;
    if !set_aside.is_empty() {
        session.execute("SELECT fn_dot_resume($1)", &[&set_aside])?;
        world.set_aside.fetch_add(set_aside.len(), Ordering::Relaxed);
    }
    Ok(())
}
