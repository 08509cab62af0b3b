//! What one call, or one batch of the worker, knows: the extension, its configuration, the ports, the catalogue. Read
//! once, so that all decisions of the batch rest on the same facts.

use std::collections::HashMap;
use std::rc::Rc;

use uuid::Uuid;

use crate::domain::decide;
use crate::domain::error::DotError;
use crate::domain::gate::Decision;
use crate::domain::tool::Tool;
use crate::pg;
use crate::pg::object::Use;
use crate::store::breaker::{self, Closure};
use crate::store::config::Config;
use crate::store::extension::{Extension, Instance};
use crate::store::port::Ports;
use crate::store::{catalogue, config, extension, port};

/// One sitting of the gates.
pub struct Session {
    /// The extension.
    pub extension: Extension,
    /// Policies, endpoints, egress rules.
    pub config: Config,
    /// The substrate's functions.
    pub ports: Ports,
    /// Which database this is.
    pub instance: Instance,
    /// The process run of whose keys nobody else can use one before this transaction ends.
    pub locked: Option<Uuid>,
    tools: Result<HashMap<String, Result<Vec<Tool>, String>>, String>,
    toggle: Option<Decision>,
    guard: Option<Decision>,
    closures: Option<Rc<Vec<Closure>>>,
}

impl Session {
    /// Reads everything that is needed for these codes (`None`: the whole catalogue). Runs as the role in force, which
    /// must be allowed to read our tables.
    ///
    /// # Errors
    /// 55000 when the extension is not fully there; XX000 for defects.
    pub fn open(extension: &Extension, codes: Option<&[String]>) -> Result<Session, DotError> {
        let found = match catalogue::find(extension, Use::Read) {
            Some(catalogue) => catalogue.read(codes),
            None => Err("there is no table dot_tools of a trusted owner".to_owned()),
        };
        let tools = found.map(|rows| {
            let mut map: HashMap<String, Result<Vec<Tool>, String>> = HashMap::new();
            for tool in rows.tools {
                if let Ok(list) = map.entry(tool.code.clone()).or_insert_with(|| Ok(Vec::new())) {
                    list.push(tool);
                }
            }
            // A row that cannot be read is that tool's trouble alone.
            map.extend(rows.unreadable.into_iter().map(|(code, why)| (code, Err(why))));
            map
        });
        Ok(Session {
            extension: extension.clone(),
            config: config::load(codes)?,
            ports: port::load()?,
            instance: extension::instance(pg::session::system_identifier())?,
            locked: None,
            tools,
            toggle: None,
            guard: None,
            closures: None,
        })
    }

    /// The catalogue's rows with this code.
    ///
    /// # Errors
    /// Why the catalogue could not be read.
    pub fn tools(&self, code: &str) -> Result<&[Tool], &str> {
        match &self.tools {
            Ok(map) => match map.get(code) {
                Some(Ok(list)) => Ok(list),
                Some(Err(why)) => Err(why),
                None => Ok(&[]),
            },
            Err(why) => Err(why),
        }
    }

    /// All tools that were read, in the order of their codes.
    ///
    /// # Errors
    /// Why the catalogue could not be read.
    pub fn all_tools(&self) -> Result<Vec<&Tool>, &str> {
        match &self.tools {
            Ok(map) => {
                let mut all: Vec<&Tool> = map.values().flatten().flatten().collect();
                all.sort_unstable_by(|a, b| a.code.cmp(&b.code));
                Ok(all)
            }
            Err(why) => Err(why),
        }
    }

    /// The endpoints to which runs do not go at once, looked up once per session. For sessions of callers; the worker
    /// knows for itself.
    ///
    /// # Errors
    /// XX000 only.
    pub fn closures(&mut self) -> Result<&[Closure], DotError> {
        let closures = match self.closures.take() {
            Some(closures) => closures,
            None => breaker::closures(&self.extension.schema)?,
        };
        Ok(self.closures.insert(closures))
    }

    /// The toggle's decision, asked once per session.
    pub fn toggle(&mut self) -> Decision {
        let ports = &self.ports;
        self.toggle.get_or_insert_with(|| decide::toggle(&ports.toggle())).clone()
    }

    /// The guard's decision, asked once per session.
    pub fn guard(&mut self) -> Decision {
        let ports = &self.ports;
        self.guard.get_or_insert_with(|| decide::guard(&ports.guard())).clone()
    }
}
