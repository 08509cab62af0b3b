//! The module that `cargo pgrx test` looks for. The tests themselves are in `in_db`.

/// Called once before the tests.
pub fn setup(_options: Vec<&str>) {}

/// Settings of the server that `cargo pgrx test` starts.
pub fn postgresql_conf_options() -> Vec<&'static str> {
    vec!["shared_preload_libraries = 'dot_wrapper'"]
}
