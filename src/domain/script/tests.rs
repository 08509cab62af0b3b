//! Scripts' command lines and places, by example and at random.

use proptest::prelude::*;

use super::*;
use crate::domain::policy::Layer;

fn policy(args: &[&str], dry_run: Option<&str>) -> Policy {
    let tool = Tool::from_row(json!({"code": "D", "execution_engine": "script"})).unwrap();
    let layer = Layer {
        script_args: Some(args.iter().map(|arg| (*arg).to_owned()).collect()),
        dry_run_arg: dry_run.map(str::to_owned),
        ..Layer::default()
    };
    Policy::resolve(&tool, None, Some(&layer))
}

fn facts(mode: Mode, args: &Value) -> Facts<'_> {
    Facts {
        code: "D",
        mode,
        run_id: Uuid::from_u128(7),
        process_run_id: Uuid::from_u128(9),
        attempt: 1,
        args,
        fencing_token: None,
        deadline: None,
    }
}

fn line(template: &[&str], mode: Mode, args: Value) -> Result<Vec<String>, Unformed> {
    command("/x", &policy(template, Some("--dry-run")), &facts(mode, &args)).map(|command| command.args)
}

#[test]
fn each_element_is_one_argument() {
    let template = [
        "--scope={args.scope}",
        "{code}",
        "{args.files}",
        "{args.none?}",
        "--n={args.none?}",
        "a {x y} {",
        "{args.n}",
        "{args.b}",
    ];
    let args = json!({"scope": "a b; $(c)", "files": ["one two", 3], "n": 1, "b": true});
    assert_eq!(
        line(&template, Mode::Apply, args).unwrap(),
        ["--scope=a b; $(c)", "D", "one two", "3", "a {x y} {", "1", "true"]
    );
}

#[test]
fn the_dry_run_argument_comes_first_or_where_it_is_put_and_only_for_verify() {
    assert_eq!(line(&["go"], Mode::Verify, json!({})).unwrap(), ["--dry-run", "go"]);
    assert_eq!(line(&["go", "{dry_run}", "{dry_run}"], Mode::Verify, json!({})).unwrap(), ["go", "--dry-run"]);
    assert_eq!(line(&["go", "{dry_run}"], Mode::Apply, json!({})).unwrap(), ["go"]);
    assert!(command("/x", &policy(&[], None), &facts(Mode::Verify, &json!({}))).is_err());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (template, args, why) in [
        ("{args.x}", json!({"x": "-rf"}), "option"),
        ("{args.x}", json!({"x": -1}), "option"),
        ("{args.x}", json!({"x": ["a", "--all"]}), "option"),
        ("{args.x}{args.y}", json!({"x": "", "y": "-f"}), "option"),
        ("--x={args.x}", json!({"x": ["a"]}), "wants a text"),
        ("{args.x}", json!({"x": [["a"]]}), "wants a text"),
        ("{args.x}", json!({"x": {}}), "wants a text"),
        ("{args.x}", json!({"x": "a\0b"}), "NUL"),
        ("{arg.x}", json!({}), "unknown placeholder"),
        ("{code?}", json!({}), "unknown placeholder"),
        ("{args.x}", json!({}), "x is missing"),
        ("{args.x}", json!({"x": null}), "x is missing"),
        ("{args.x}", json!({"x": []}), "x is missing"),
        ("--x={args.x}", json!({}), "x is missing"),
        ("{args.y?}{args.x}", json!({}), "x is missing"),
        ("{args.x?}", json!({"x": [null]}), "wants a text"),
        ("x{dry_run}", json!({}), "alone"),
        ("{args.x}", json!({"x": "y".repeat(131_072)}), "128 KiB"),
        ("{code}", json!({"x": "y".repeat(131_072)}), "128 KiB"),
        ("{args.x}", json!({"x": vec!["y".repeat(1_000); 140]}), "128 KiB"),
    ] {
        let error = line(&[template], Mode::Apply, args).unwrap_err();
        assert!(error.0.contains(why), "{template}: {}", error.0);
    }
    assert_eq!(
        line(&["-n{args.x}", "--", "x{args.x}"], Mode::Apply, json!({"x": "-1"})).unwrap(),
        ["-n-1", "--", "x-1"]
    );
}

#[test]
fn an_argument_that_is_left_out_never_lets_the_next_take_its_place() {
    // With {} this came to `sync --table --dry-run`, which takes --dry-run for a table and changes things.
    for (template, why) in [
        (&["sync", "--table", "{args.table}", "{dry_run}"][..], "table is missing"),
        (&["sync", "--table", "{args.table?}"], "take what comes next"),
        (&["{args.table?}", "{dry_run}"], "must come before"),
        (&["{dry_run}", "--table={args.table?}", "{dry_run}"], "must come before"),
    ] {
        for mode in [Mode::Verify, Mode::Apply] {
            let error = line(template, mode, json!({})).unwrap_err();
            assert!(error.0.contains(why), "{template:?}: {}", error.0);
        }
    }
    let whole = ["-v", "--t={args.t?}", "--n=1", "{args.a?}", "-x{args.b}", "{args.c?}", "--", "{args.d?}"];
    assert_eq!(line(&whole, Mode::Verify, json!({"b": 2})).unwrap(), ["--dry-run", "-v", "--n=1", "-x2", "--"]);
    let args = json!({"a": ["p", "q"], "b": 2, "c": "r", "d": [], "t": ""});
    assert_eq!(line(&whole, Mode::Apply, args).unwrap(), ["-v", "--t=", "--n=1", "p", "q", "-x2", "r", "--"]);
}

#[test]
fn the_environment_says_what_a_script_has_to_know() {
    let args = json!({"a": [1, null]});
    let command = command("/x", &policy(&[], None), &facts(Mode::Apply, &args)).unwrap();
    let planned = command.shown();
    assert_eq!(planned["env"]["DOT_ARGS"], r#"{"a":[1,null]}"#);
    assert_eq!((&planned["env"]["DOT_FENCING_TOKEN"], &planned["env"]["DOT_DEADLINE"]), (&Value::Null, &Value::Null));
    let sent = command.delivered((Uuid::from_u128(7), Uuid::from_u128(9)), 2, Some(5), "2026-01-01T00:00:00Z").shown();
    for (name, value) in [
        ("DOT_CODE", "D"),
        ("DOT_MODE", "apply"),
        ("DOT_ATTEMPT", "2"),
        ("DOT_FENCING_TOKEN", "5"),
        ("DOT_DEADLINE", "2026-01-01T00:00:00Z"),
        ("DOT_RUN_ID", "00000000-0000-0000-0000-000000000007"),
    ] {
        assert_eq!(sent["env"][name], value, "{name}");
    }
    assert_ne!(sent["env"]["TRACEPARENT"], planned["env"]["TRACEPARENT"]);
}

#[test]
fn plan_verify_and_apply_have_one_fingerprint_and_other_arguments_another() {
    let print = |template: &[&str], mode, args: Value| {
        let command = command("/x", &policy(template, Some("-n")), &facts(mode, &args)).unwrap();
        fingerprint("v", &args, &command)
    };
    let one = print(&["a", "{dry_run}", "-n"], Mode::Apply, json!({}));
    assert_eq!(one, print(&["a", "{dry_run}", "-n"], Mode::Verify, json!({})));
    assert_ne!(one, print(&["a", "{dry_run}"], Mode::Apply, json!({})));
    assert_ne!(one, print(&["a", "{dry_run}", "-n"], Mode::Apply, json!({"x": 1})));
}

#[test]
fn a_name_means_a_path_below_a_root_or_nothing() {
    let roots = Roots::parse("/opt/dots/, relative ,/srv/x,,/a/../b");
    assert_eq!((roots.good.clone(), roots.bad.len()), (vec!["/opt/dots".to_owned(), "/srv/x".to_owned()], 2));
    let paths = |name| roots.candidates(name).map(|list| list.into_iter().map(|c| c.path).collect::<Vec<_>>());
    assert_eq!(paths("/opt/dots/a/b.sh").unwrap(), ["/opt/dots/a/b.sh"]);
    assert_eq!(paths("a/b.sh").unwrap(), ["/opt/dots/a/b.sh", "/srv/x/a/b.sh"]);
    for name in
        ["/opt/dots", "/opt/dotsy/a", "/etc/passwd", "../x", "/opt/dots/../x", "a/./b", "a//b", "a/", "a\0b", "/", ""]
    {
        assert_eq!(paths(name).unwrap_err().reason, "program_outside_roots", "{name:?}");
    }
    assert!(Roots::parse(" , ").is_empty());
    let meant = |name, requested| roots.meant(name, requested).map_err(|refusal| refusal.reason);
    assert_eq!(meant("a.sh", Some("/srv/x/a.sh")), Ok("/srv/x/a.sh".into()));
    assert_eq!(meant("a.sh", Some("/srv/x/b.sh")), Ok("/opt/dots/a.sh".into()));
    assert_eq!(meant("a.sh", None), Ok("/opt/dots/a.sh".into()));
    assert_eq!(meant("/etc/passwd", Some("/etc/passwd")), Err("program_outside_roots"));
}

proptest! {
    #[test]
    fn a_path_never_leaves_its_root(name in "[a-c./\\PC]{0,12}", root in "/[a-c/.]{0,6}") {
        for Candidate { root, path } in Roots::parse(&root).candidates(&name).unwrap_or_default() {
            let prefix = format!("{root}/");
            prop_assert!(path.starts_with(&prefix));
            let path = std::path::Path::new(&path);
            prop_assert!(path.components().all(|c| !matches!(c, std::path::Component::ParentDir | std::path::Component::CurDir)));
        }
    }

    #[test]
    fn a_value_is_one_argument_and_never_an_option(value in "\\PC{0,20}", text in "[a-z={}-]{0,5}") {
        let template = format!("{text}{{args.x}}");
        let Ok(args) = line(&[&template], Mode::Apply, json!({"x": value.clone()})) else { return Ok(()) };
        prop_assert_eq!(args.len(), 1);
        prop_assert!(args[0].ends_with(&value));
        prop_assert!(template.starts_with('-') || !args[0].starts_with('-'));
    }

    /// Or there is no command line.
    #[test]
    fn every_argument_stands_where_its_template_does(names in prop::collection::vec("[a-d]", 1..6), args in prop::collection::hash_map("[a-d]", "[x-z]{0,2}", 0..4)) {
        let template: Vec<String> = names.iter().map(|name| format!("{{args.{name}}}")).collect();
        let template: Vec<&str> = template.iter().map(String::as_str).collect();
        let whole: Option<Vec<String>> = names.iter().map(|name| args.get(name).cloned()).collect();
        prop_assert_eq!(line(&template, Mode::Apply, json!(args)).ok(), whole);
    }

    #[test]
    fn a_verify_always_has_its_dry_run_argument(template in prop::collection::vec("\\{dry_run\\}|[a-z]{0,3}", 0..5)) {
        let template: Vec<&str> = template.iter().map(String::as_str).collect();
        let args = line(&template, Mode::Verify, json!({})).unwrap();
        prop_assert_eq!(args.iter().filter(|arg| *arg == "--dry-run").count(), 1);
        let applied = line(&template, Mode::Apply, json!({})).unwrap();
        prop_assert!(!applied.contains(&"--dry-run".to_owned()));
    }
}
