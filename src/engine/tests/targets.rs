//! N1: only what a rule names is contacted. A corpus of URLs with what is to become of each, and made-up URLs of whose
//! parts it is known what they mean. What the system's parser takes a URL for is held against the parser that the HTTP
//! client dials with.

use axum::http::Uri;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use url::Url;

use super::rule;
use crate::domain::egress::Rules;

const CORPUS: &str = include_str!("corpus/urls.txt");

fn rules() -> Rules {
    Rules(vec![
        rule("https", "agent.example", 443, "/v1", &[]),
        rule("http", "127.0.0.1", 8077, "/", &["127.0.0.0/8"]),
        rule("https", "xn--bcher-kva.example", 443, "/", &[]),
        rule("https", "agent.example", 8443, "/a/b", &[]),
        rule("http", "[::1]", 8078, "/", &["::1/128"]),
        rule("http", "93.184.216.34", 80, "/", &[]),
        rule("http", "10.0.0.9", 80, "/", &[]),
        rule("http", "169.254.169.254", 80, "/", &[]),
        rule("http", "[fd00:ec2::254]", 80, "/", &[]),
    ])
}

/// What becomes of a URL: the number of the rule that allows it, from 1, or why not.
fn verdict(text: &str) -> String {
    let Ok(url) = Url::parse(text) else { return "unparsable".into() };
    let rules = rules();
    match rules.check_url(&url) {
        Ok(rule) => (1 + rules.0.iter().position(|other| other == rule).unwrap()).to_string(),
        Err(denied) => denied.reason.into(),
    }
}

/// `\u{…}` is one character.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut whole = parts.next().unwrap().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}').unwrap();
        whole.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
        whole.push_str(rest);
    }
    whole
}

fn cases() -> Vec<(&'static str, String)> {
    let lines = CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(want, url)| (want, unescaped(url))).collect()
}

#[test]
fn promise_n1_a_corpus_of_urls_is_judged_as_written_down() {
    let cases = cases();
    let wrong: Vec<String> = cases
        .iter()
        .filter(|(want, url)| verdict(url) != *want)
        .map(|(want, url)| format!("{url:?} is {}, not {want}", verdict(url)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let allowed = cases.iter().filter(|(want, _)| want.parse::<u8>().is_ok()).count();
    assert!(cases.len() >= 200 && allowed >= 50, "{allowed} of {}", cases.len());
    println!("N1: {} URLs, {allowed} of them allowed: 0 wrong allows, 0 wrong blocks", cases.len());
}

#[test]
fn promise_n1_without_a_rule_nothing_is_allowed() {
    for (_, url) in cases() {
        if let Ok(url) = Url::parse(&url) {
            assert!(Rules::default().check_url(&url).is_err(), "{url}");
        }
    }
}

/// A part of a URL, and whether the URL is still the one that the rule names.
type Part = (&'static str, bool);

const SCHEMES: &[Part] = &[("https", true), ("HTTPS", true), ("hTtPs", true), ("http", false), ("wss", false)];
const USERS: &[Part] =
    &[("", true), ("@", true), ("u@", false), ("u:p@", false), (":p@", false), ("agent.example@", false)];
const HOSTS: &[Part] = &[
    ("agent.example", true),
    ("AGENT.Example", true),
    ("agent.example.", true),
    ("agent%2eexample", true),
    ("a%67ent.example", true),
    ("\u{ff41}gent\u{3002}example", true),
    ("agent\t.example", true),
    ("agent.example..", false),
    ("agent.example.evil.example", false),
    ("xagent.example", false),
    ("agent.examples", false),
    ("\u{430}gent.example", false),
    ("agent.example%2e.evil", false),
    ("127.0.0.1", false),
    ("0x7f.1", false),
    ("2130706433", false),
    ("[::1]", false),
    ("evil.example#agent.example", false),
    ("evil.example?agent.example", false),
    ("evil.example\\agent.example", false),
    ("evil.example/agent.example", false),
];
const PORTS: &[Part] =
    &[("", true), (":443", true), (":", true), (":0443", true), (":80", false), (":8443", false), (":4433", false)];
const PATHS: &[Part] = &[
    ("/v1", true),
    ("/v1/", true),
    ("/v1/run", true),
    ("\\v1\\run", true),
    ("/v1/%2e/run", true),
    ("/x/../v1/run", true),
    ("/x/%2E%2e/v1", true),
    ("/v1/a%2fb", true),
    ("/v1?x", true),
    ("/v1#x", true),
    ("", false),
    ("/", false),
    ("/v10", false),
    ("/V1", false),
    ("/v1/..", false),
    ("/v1/%2e%2e/v2", false),
    ("/v1\\..\\v2", false),
    ("/%76%31/run", false),
    ("//v1/run", false),
    ("?/v1", false),
    ("#/v1", false),
];

#[test]
fn promise_n1_a_url_is_allowed_if_and_only_if_each_part_of_it_is_right() {
    let (mut tried, mut allowed) = (0, 0);
    for (scheme, a) in SCHEMES {
        for (user, b) in USERS {
            for (host, c) in HOSTS {
                for (port, d) in PORTS {
                    for (path, e) in PATHS {
                        let text = format!("{scheme}://{user}{host}{port}{path}");
                        let want = *a && *b && *c && *d && *e;
                        assert_eq!(verdict(&text) == "1", want, "{text:?}");
                        (tried, allowed) = (tried + 1, allowed + usize::from(want));
                    }
                }
            }
        }
    }
    println!("N1: {tried} made-up URLs, {allowed} allowed: 0 wrong allows, 0 wrong blocks");
}

/// What hyper would dial and send for a URL, read by another parser: scheme, host, port, path.
fn dialled(url: &Url) -> Option<(String, String, u16, String)> {
    let uri: Uri = url.as_str().parse().ok()?;
    let authority = uri.authority()?;
    assert!(!authority.as_str().contains('@'), "{url}");
    let port = authority.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    Some((uri.scheme_str()?.into(), authority.host().into(), port, uri.path().into()))
}

/// Whatever is allowed is dialled where a rule says, by a reader of URLs that has nothing in common with the one that
/// judged it.
fn is_where_the_rule_says(text: &str) {
    let Ok(url) = Url::parse(text) else { return };
    let rules = rules();
    let Ok(rule) = rules.check_url(&url) else { return };
    let Some((scheme, host, port, path)) = dialled(&url) else { return };
    assert_eq!(
        (scheme.as_str(), host.trim_end_matches('.'), port),
        (rule.scheme.as_str(), rule.host.as_str(), rule.port)
    );
    let rest = path.strip_prefix(rule.path_prefix.trim_end_matches('/'));
    assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')), "{text:?} asks for {path}");
    let steps = path.split('/').map(|step| step.replace("%2e", ".").replace("%2E", "."));
    assert!(!steps.clone().any(|step| step == "." || step == ".."), "{text:?} asks for {path}");
}

fn pieces() -> impl Strategy<Value = String> {
    let known = SCHEMES.iter().chain(USERS).chain(HOSTS).chain(PORTS).chain(PATHS).map(|(text, _)| (*text).to_owned());
    let known: Vec<String> = known.filter(|text| !text.is_empty()).collect();
    let glue = prop_oneof![
        8 => proptest::sample::select(vec!["://", "/", "\\", "@", "#", "?", ":", ".", "%", "//", "..", "%2e", "%2f", "[", "]"])
            .prop_map(str::to_owned),
        16 => proptest::sample::select(known),
        2 => "\\PC{1,3}",
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(glue, 0..8).prop_map(|parts| parts.concat())
}

#[test]
fn promise_n1_whatever_is_allowed_is_dialled_where_a_rule_says() {
    // Ten minutes where time is no matter, else a few seconds.
    let full = std::env::var_os("DOT_TEST_FULL").is_some();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(if full { 600 } else { 2 });
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) };
    let (mut tried, mut allowed) = (0_u64, 0_u64);
    while std::time::Instant::now() < end {
        let counted = std::cell::Cell::new(0);
        let whole =
            ("(https|HTTPS|http)(://|:|:/|:\\\\)", pieces()).prop_map(|(scheme, rest)| format!("{scheme}{rest}"));
        let near = pieces().prop_map(|rest| format!("https://agent.example{rest}"));
        TestRunner::new(config.clone())
            .run(&prop_oneof![whole, near, "\\PC{0,60}"], |text| {
                counted.set(counted.get() + u64::from(verdict(&text).parse::<u8>().is_ok()));
                is_where_the_rule_says(&text);
                Ok(())
            })
            .unwrap();
        (tried, allowed) = (tried + 2_000, allowed + counted.get());
    }
    assert!(allowed > tried / 1000, "{allowed} of {tried}: the made-up URLs hardly ever are allowed");
    println!("N1: fuzz, {tried} URLs, {allowed} allowed, all of them where a rule says");
}
