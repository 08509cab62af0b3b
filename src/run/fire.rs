//! What a trigger of ours does: a run for an event, in the transaction that wrote to the table.

use crate::domain::binding::{Binding, Event};
use crate::domain::call::Raw;
use crate::domain::error::DotError;
use crate::pg::trigger::Firing;
use crate::pg::{role, user};
use crate::store::{binding, extension, mirror};

use super::request::{self, Requested, WorkerFacts};

/// What came of an event.
pub enum Fired {
    /// A run, refused or not.
    Run(Box<Requested>),
    /// Nothing, and there is nothing to say about it.
    Nothing,
    /// Nothing, and somebody should know why.
    Stale(String),
}

/// Asks for the run that the binding of this trigger wants.
///
/// # Errors
/// What [`request::one_via`] raises: the write fails with it.
pub fn fire(firing: Firing, worker: WorkerFacts) -> Result<Fired, DotError> {
    // What a toggle, a guard, a lease function or the worker's counting writes is dot_wrapper's own doing: a run for that
    // would ask them again, and again.
    // That goes for what keeps dot_run_request up, too, which is done in the worker's own transactions.
    if user::is_restricted() || mirror::is_ours() {
        return Ok(Fired::Nothing);
    }
    let [code, relation] = &firing.arguments[..] else { return Ok(stale("it has other arguments")) };
    let extension = extension::current()?;
    let Some(binding) = extension::as_owner(&extension, || binding::find(code, relation))? else {
        return Ok(stale("nothing binds it any more"));
    };
    if !firing.tables.contains(relation) {
        return Ok(stale("the table has another name"));
    }
    let Some(run_as) = role::lookup(&binding.run_as) else { return Ok(stale("its role does not exist any more")) };
    let event = Event { op: firing.op, key: firing.key };
    if !binding.wants(&event) {
        return Ok(stale("it is bound otherwise"));
    }
    let via = binding.via(run_as.to_u32());
    request::one_via(raw(&binding, event), via, worker).map(|requested| Fired::Run(Box::new(requested)))
}

fn stale(why: &str) -> Fired {
    Fired::Stale(why.to_owned())
}

fn raw(binding: &Binding, event: Event) -> Raw {
    Raw {
        code: Some(binding.code.clone()),
        mode: Some(binding.mode.as_str().to_owned()),
        process_run_id: None,
        args: Some(binding.args(event)),
        idempotency_key: None,
    }
}
