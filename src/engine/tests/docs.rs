//! The documentation names every reason that an agent's author may meet.

use crate::engine::reason;

#[test]
fn every_reason_is_explained() {
    let page = include_str!("../../../docs/agent_api.md");
    for reason in reason::ALL {
        assert!(page.contains(&format!("`{reason}`")), "docs/agent_api.md does not explain {reason}");
    }
    let page = include_str!("../../../docs/scripts.md");
    for reason in reason::OF_SCRIPTS {
        assert!(page.contains(&format!("`{reason}`")), "docs/scripts.md does not explain {reason}");
    }
}
