//! Policies, endpoints and egress rules, read as one snapshot.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

use super::kept::{self, Slot};
use super::spi;
use crate::domain::egress::{Rule, Rules};
use crate::domain::error::DotError;
use crate::domain::policy::{Layer, Policy};
use crate::domain::render::Endpoint;
use crate::domain::tool::Tool;
use crate::error;
use crate::pg::fresh::Class;

/// One snapshot of the configuration.
#[derive(Clone, Debug)]
pub struct Config(Rc<Kept>);

/// What does not depend on tools, and the policies of the tools that were asked for so far.
#[derive(Debug, Default)]
struct Kept {
    engines: HashMap<String, Layer>,
    endpoints: Vec<Endpoint>,
    egress: std::sync::Arc<Rules>,
    tools: RefCell<HashMap<String, Option<Rc<Layer>>>>,
    /// All tools' policies are there.
    all: Cell<bool>,
}

thread_local! {
    static KEPT: Slot<Kept> = const { RefCell::new(None) };
}

/// Policies of more tools than this are read anew.
const MAX_TOOLS: usize = 20_000;

#[derive(Deserialize)]
struct RuleRow {
    id: i64,
    scheme: String,
    host: String,
    port: u16,
    path_prefix: String,
    cidrs: Vec<String>,
}

/// Reads the configuration for these tools (`None`: all).
///
/// # Errors
/// XX000 when a row is not of its table's shape.
pub fn load(codes: Option<&[String]>) -> Result<Config, DotError> {
    let kept = kept::read(&KEPT, Class::Settings, || base(codes), |_| true)?;
    if let Some(missing) = kept.missing(codes) {
        if kept.tools.borrow().len() > MAX_TOOLS {
            return Ok(Config(Rc::new(base(codes)?)));
        }
        // Read later than the rest: so that nothing can have changed in between, both are read again where it has.
        let added = tools(missing.as_deref())?;
        let again = kept::read(&KEPT, Class::Settings, || base(codes), |_| true)?;
        if Rc::ptr_eq(&kept, &again) {
            kept.add(missing.as_deref(), added);
        }
        return Ok(Config(again));
    }
    Ok(Config(kept))
}

fn base(codes: Option<&[String]>) -> Result<Kept, DotError> {
    let sql = "SELECT
        coalesce((SELECT jsonb_agg(to_jsonb(p)) FROM dot_wrapper.policy p
                  WHERE p.scope = 'engine' OR p.scope = 'tool' AND ($1::text[] IS NULL OR p.name = ANY ($1))), '[]'),
        coalesce((SELECT jsonb_agg(to_jsonb(e)) FROM dot_wrapper.endpoint e), '[]'),
        coalesce((SELECT jsonb_agg(to_jsonb(r) ORDER BY r.id) FROM dot_wrapper.egress_rule r), '[]')";
    let found = spi::steady_row(sql, &[codes.map(<[String]>::to_vec).into()], |row| {
        Ok((spi::need_json(row, 1)?, spi::need_json(row, 2)?, spi::need_json(row, 3)?))
    })?;
    let (policies, endpoints, rules) = found.ok_or_else(|| error::internal("no configuration row"))?;
    let mut kept = Kept {
        endpoints: parse(endpoints)?,
        egress: std::sync::Arc::new(Rules(parse::<Vec<RuleRow>>(rules)?.into_iter().map(rule).collect())),
        ..Kept::default()
    };
    let mut tools = HashMap::new();
    for row in parse::<Vec<Value>>(policies)? {
        let name = row["name"].as_str().unwrap_or_default().to_owned();
        if row["scope"] == "engine" {
            kept.engines.insert(name, parse(row)?);
        } else {
            tools.insert(name, Rc::new(parse(row)?));
        }
    }
    kept.add(codes, tools);
    Ok(kept)
}

fn tools(codes: Option<&[String]>) -> Result<HashMap<String, Rc<Layer>>, DotError> {
    let sql = "SELECT to_jsonb(p) FROM dot_wrapper.policy p
               WHERE p.scope = 'tool' AND ($1::text[] IS NULL OR p.name = ANY ($1))";
    let rows = spi::steady_rows(sql, &[codes.map(<[String]>::to_vec).into()], |row| spi::need_json(row, 1))?;
    rows.into_iter()
        .map(|row| Ok((row["name"].as_str().unwrap_or_default().to_owned(), Rc::new(parse(row)?))))
        .collect()
}

impl Kept {
    /// Which of these are not there; `None` when all are.
    fn missing(&self, codes: Option<&[String]>) -> Option<Option<Vec<String>>> {
        if self.all.get() {
            return None;
        }
        let Some(codes) = codes else { return Some(None) };
        let tools = self.tools.borrow();
        let missing: Vec<_> = codes.iter().filter(|code| !tools.contains_key(*code)).cloned().collect();
        (!missing.is_empty()).then_some(Some(missing))
    }

    fn add(&self, codes: Option<&[String]>, found: HashMap<String, Rc<Layer>>) {
        let mut tools = self.tools.borrow_mut();
        match codes {
            Some(codes) => tools.extend(codes.iter().map(|code| (code.clone(), None))),
            None => self.all.set(true),
        }
        tools.extend(found.into_iter().map(|(code, layer)| (code, Some(layer))));
    }
}

/// All endpoints.
///
/// # Errors
/// XX000 when a row is not of its table's shape.
pub fn endpoints() -> Result<Vec<Endpoint>, DotError> {
    Ok(load(Some(&[]))?.endpoints().to_vec())
}

impl Config {
    /// The policy in force for a tool.
    pub fn policy(&self, tool: &Tool) -> Policy {
        let own = self.0.tools.borrow().get(&tool.code).cloned().flatten();
        Policy::resolve(tool, self.0.engines.get(&tool.engine), own.as_deref())
    }

    /// All endpoints.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.0.endpoints
    }

    /// All egress rules.
    pub fn egress(&self) -> &std::sync::Arc<Rules> {
        &self.0.egress
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, DotError> {
    serde_json::from_value(value).map_err(|e| error::internal(format_args!("configuration: {e}")))
}

/// A range that does not parse allows nothing; the column's type makes that impossible.
fn rule(row: RuleRow) -> Rule {
    Rule {
        id: row.id,
        scheme: row.scheme,
        host: row.host,
        port: row.port,
        path_prefix: row.path_prefix,
        cidrs: row.cidrs.iter().filter_map(|net| net.parse().ok()).collect(),
    }
}
