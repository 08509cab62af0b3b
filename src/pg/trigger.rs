//! The trigger function `dot_wrapper.fire()`: what happened to which table, as plain values.
//!
//! Lives here: the symbol, and the reading of what PostgreSQL passes to a trigger. Does not live here: what follows from it;
//! that is handed in when the library is loaded.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::{pg_guard, pg_sys};
use serde_json::Value;

/// What happened, and to what.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    /// The table and, where that is a partition, what it is a part of: each with its schema, quoted.
    pub tables: Vec<String>,
    /// The trigger's name.
    pub trigger: String,
    /// The trigger's arguments.
    pub arguments: Vec<String>,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub op: &'static str,
    /// For each row: its primary key, as an object of column names and values.
    pub key: Option<Value>,
}

unsafe extern "C-unwind" {
    /// The nearest first; the same in 15 to 18.
    fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
}

/// What is done about it; may raise, and then the write fails.
pub type Handler = fn(Firing);

static HANDLER: OnceLock<Handler> = OnceLock::new();

/// Says what is done. From `_PG_init`, preloaded or not.
pub fn install(handler: Handler) {
    let _ = HANDLER.set(handler);
}

/// The trigger function.
// SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn dot_wrapper_fire(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes its call information; the context is NULL or a node, and a TriggerData node where the
    // function is called by a trigger, which stays valid for the call.
    let firing = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            pgrx::error!("dot_wrapper: this function is for a trigger");
        }
        read(&*context.cast::<pg_sys::TriggerData>())
    };
    if let Some(handler) = HANDLER.get() {
        handler(firing);
    }
    pg_sys::Datum::from(0)
}

/// What PostgreSQL looks for before it calls the function above.
// SAFETY: the symbol is unique to this library, and its type is what PostgreSQL calls.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_finfo_dot_wrapper_fire() -> *const pg_sys::Pg_finfo_record {
    static VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &raw const VERSION_1
}

/// # Safety
/// What PostgreSQL passes to a trigger.
unsafe fn read(data: &pg_sys::TriggerData) -> Firing {
    let per_row = data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
    let op = match data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
        pg_sys::TRIGGER_EVENT_INSERT => "INSERT",
        pg_sys::TRIGGER_EVENT_DELETE => "DELETE",
        pg_sys::TRIGGER_EVENT_UPDATE => "UPDATE",
        _ => "TRUNCATE",
    };
    // SAFETY: relation and trigger are valid for the call; the trigger's strings are C strings, as many as it says. The row
    // is there for row triggers, and for updates the new one as well.
    unsafe {
        let trigger = &*data.tg_trigger;
        let count = usize::try_from(trigger.tgnargs).unwrap_or(0);
        let arguments = if count == 0 { &[] } else { std::slice::from_raw_parts(trigger.tgargs, count) };
        let row = if op == "UPDATE" { data.tg_newtuple } else { data.tg_trigtuple };
        Firing {
            tables: names(data.tg_relation),
            trigger: text(trigger.tgname),
            arguments: arguments.iter().map(|argument| text(*argument)).collect(),
            op,
            key: per_row.then(|| key(data.tg_relation, row)),
        }
    }
}

/// # Safety
/// A C string.
unsafe fn text(string: *const std::ffi::c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// The relation's name, and those of what it is a partition of.
///
/// # Safety
/// An open relation.
unsafe fn names(relation: pg_sys::Relation) -> Vec<String> {
    // SAFETY: the caller's promise; the list of ancestors is NULL or one of OIDs; the lookups are of the catalogues, in a
    // transaction, and give NULL or palloc'd C strings.
    unsafe {
        let mut oids = vec![(*relation).rd_id];
        if (*(*relation).rd_rel).relispartition
            && let Some(list) = get_partition_ancestors((*relation).rd_id).as_ref()
        {
            let cells = std::slice::from_raw_parts(list.elements, usize::try_from(list.length).unwrap_or(0));
            oids.extend(cells.iter().map(|cell| cell.oid_value));
        }
        let name = |oid: pg_sys::Oid| {
            let (schema, name) =
                (pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid)), pg_sys::get_rel_name(oid));
            (!schema.is_null() && !name.is_null()).then(|| text(pg_sys::quote_qualified_identifier(schema, name)))
        };
        oids.into_iter().filter_map(name).collect()
    }
}

/// The primary key's columns of a row, as to_json would have them; an empty object where there is no such key (any more).
/// With the rights of whoever writes: a type's own cast to json may be run.
///
/// # Safety
/// An open relation, and a row of it.
unsafe fn key(relation: pg_sys::Relation, row: pg_sys::HeapTuple) -> Value {
    // SAFETY: attribute numbers of a primary key are those of ordinary columns of the relation; values that are taken out of
    // the row stay valid as long as the row; the tuple that is made of them lives in the trigger's memory context.
    unsafe {
        let columns = key_columns(relation);
        let of_table = (*relation).rd_att;
        let width = i32::try_from(columns.len()).unwrap_or(0);
        let shape = pg_sys::CreateTemplateTupleDesc(width);
        let (mut values, mut nulls) = (Vec::new(), Vec::new());
        for (at, column) in (1..).zip(&columns) {
            pg_sys::TupleDescCopyEntry(shape, at, of_table, *column);
            let mut is_null = false;
            values.push(pg_sys::heap_getattr(row, i32::from(*column), of_table, &mut is_null));
            nulls.push(is_null);
        }
        let shape = pg_sys::BlessTupleDesc(shape);
        let tuple = pg_sys::heap_form_tuple(shape, values.as_mut_ptr(), nulls.as_mut_ptr());
        let datum = pg_sys::heap_copy_tuple_as_datum(tuple, shape);
        let json: Option<String> = pgrx::direct_function_call(pg_sys::row_to_json, &[Some(datum)]);
        json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
    }
}

/// # Safety
/// An open relation.
unsafe fn key_columns(relation: pg_sys::Relation) -> Vec<pg_sys::AttrNumber> {
    // SAFETY: the caller's promise; the set is NULL (empty) or a copy of the relation's own.
    unsafe {
        let kind = pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY;
        let set = pg_sys::RelationGetIndexAttrBitmap(relation, kind);
        let mut columns = Vec::new();
        let mut member = pg_sys::bms_next_member(set, -1);
        while member >= 0 {
            let number = member + pg_sys::FirstLowInvalidHeapAttributeNumber;
            columns.extend(pg_sys::AttrNumber::try_from(number).ok());
            member = pg_sys::bms_next_member(set, member);
        }
        columns
    }
}
