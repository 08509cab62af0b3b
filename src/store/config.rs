//! Policies, endpoints and egress rules, read as one snapshot.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::spi;
use crate::domain::egress::{Rule, Rules};
use crate::domain::error::DotError;
use crate::domain::policy::{Layer, Policy};
use crate::domain::render::Endpoint;
use crate::domain::tool::Tool;
use crate::error;

/// One snapshot of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    engines: HashMap<String, Layer>,
    tools: HashMap<String, Layer>,
    /// All endpoints.
    pub endpoints: Vec<Endpoint>,
    /// All egress rules.
    pub egress: std::sync::Arc<Rules>,
}

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
    let sql = "SELECT
        coalesce((SELECT jsonb_agg(to_jsonb(p)) FROM dot_wrapper.policy p
                  WHERE p.scope = 'engine' OR $1::text[] IS NULL OR p.name = ANY ($1)), '[]'),
        coalesce((SELECT jsonb_agg(to_jsonb(e)) FROM dot_wrapper.endpoint e), '[]'),
        coalesce((SELECT jsonb_agg(to_jsonb(r) ORDER BY r.id) FROM dot_wrapper.egress_rule r), '[]')";
    let found = spi::row(sql, &[codes.map(<[String]>::to_vec).into()], |row| {
        Ok((spi::need_json(row, 1)?, spi::need_json(row, 2)?, spi::need_json(row, 3)?))
    })?;
    let (policies, endpoints, rules) = found.ok_or_else(|| error::internal("no configuration row"))?;
    let mut config = Config {
        endpoints: parse(endpoints)?,
        egress: std::sync::Arc::new(Rules(parse::<Vec<RuleRow>>(rules)?.into_iter().map(rule).collect())),
        ..Config::default()
    };
    for row in parse::<Vec<Value>>(policies)? {
        let name = row["name"].as_str().unwrap_or_default().to_owned();
        let map = if row["scope"] == "engine" { &mut config.engines } else { &mut config.tools };
        map.insert(name, parse(row)?);
    }
    Ok(config)
}

/// All endpoints.
///
/// # Errors
/// XX000 when a row is not of its table's shape.
pub fn endpoints() -> Result<Vec<Endpoint>, DotError> {
    let sql = "SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]') FROM dot_wrapper.endpoint e";
    parse(spi::row(sql, &[], |row| spi::need_json(row, 1))?.unwrap_or_default())
}

impl Config {
    /// The policy in force for a tool.
    pub fn policy(&self, tool: &Tool) -> Policy {
        Policy::resolve(tool, self.engines.get(&tool.engine), self.tools.get(&tool.code))
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
