//! Errors of ours, as a client gets them: SQLSTATE, message, DETAIL and HINT.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::domain::error::{DotError, SqlState};
    use crate::error;
    use crate::in_db::fixture::error_of;
    use crate::pg::xact;

    #[pg_test]
    fn every_state_arrives_as_its_sqlstate() {
        for (state, want) in [
            (SqlState::InvalidParameterValue, "22023"),
            (SqlState::NullValueNotAllowed, "22004"),
            (SqlState::UniqueViolation, "23505"),
            (SqlState::InsufficientPrivilege, "42501"),
            (SqlState::UndefinedObject, "42704"),
            (SqlState::ObjectNotInPrerequisiteState, "55000"),
            (SqlState::ProgramLimitExceeded, "54000"),
            (SqlState::FeatureNotSupported, "0A000"),
            (SqlState::ActiveSqlTransaction, "25001"),
            (SqlState::Internal, "XX000"),
        ] {
            let error = DotError::new(state, "message").detail("detail").hint("hint");
            let caught = xact::subtransaction(|| error::report(error).report(PgLogLevel::ERROR)).unwrap_err();
            assert_eq!(caught.sqlstate, want);
            assert_eq!(
                (caught.message.as_str(), caught.detail.as_deref(), caught.hint.as_deref()),
                ("message", Some("detail"), Some("hint"))
            );
        }
    }

    #[pg_test]
    fn misuse_through_sql_has_its_parts() {
        let caught = error_of("SELECT fn_dot_run('A', 'plan', NULL, '[1]')");
        assert_eq!(caught.sqlstate, "22023");
        assert_eq!(caught.message, "args must be a JSON object");
        assert_eq!(caught.detail.as_deref(), Some("args is an array"));
        assert!(caught.hint.is_some());
        assert_eq!(error_of("SELECT fn_dot_run(NULL)").sqlstate, "22004");
        assert_eq!(error_of("SELECT fn_dot_bind('toggle', 4294967295::oid::regprocedure)").sqlstate, "42704");
    }

    #[pg_test]
    fn errors_do_not_tell_where_the_source_lies() {
        let caught = xact::subtransaction(|| panic!("a panic of ours")).unwrap_err();
        assert_eq!((caught.sqlstate.as_str(), caught.message.as_str()), ("XX000", "a panic of ours"));
        assert!(!caught.detail.unwrap_or_default().contains(".rs"));
        let caught = error_of("SELECT fn_dot_run(NULL)");
        assert_eq!(caught.detail, None);
    }
}
