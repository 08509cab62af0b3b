//! Just enough of a Rust scanner for the layout test: blanks comments and literals, then finds words, paths and functions.

/// One source file: as written, and with comments and literals blanked out (same length, same lines).
pub struct Source {
    pub path: String,
    pub text: String,
    pub code: String,
}

/// A function with a body: where it starts, its name, and how many lines it takes from `fn` to its closing brace.
pub struct Function {
    pub at: usize,
    pub name: String,
    pub lines: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// `src/run/plan.rs` and `src/run.rs` are both in layer `run`.
    pub fn layer(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// `file:line: what`, for an offset into the code.
    pub fn say(&self, at: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, self.code[..at].matches('\n').count() + 1)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The identifier at the start of `code`.
fn ident(code: &str) -> &str {
    &code[..code.find(|c| !is_word(c)).unwrap_or(code.len())]
}

/// Where the code has this word, as a whole word.
pub fn words<'a>(s: &'a Source, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let whole = move |at: &usize| !s.code[..*at].ends_with(is_word) && ident(&s.code[*at..]) == word;
    s.code.match_indices(word).map(|(at, _)| at).filter(whole)
}

/// Every `crate::x` and every `super::x` that climbs out of the file's own folder, as (offset, x), groups taken apart.
pub fn paths_from_crate(s: &Source) -> impl Iterator<Item = (usize, String)> + '_ {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(s.layer());
    let sibling = move |name: &str| root.join(name).is_dir() || root.join(format!("{name}.rs")).is_file();
    let from_crate = words(s, "crate").map(|at| (at, true));
    let from_super = words(s, "super").map(|at| (at, false));
    from_crate.chain(from_super).flat_map(move |(at, absolute)| {
        let mut rest = &s.code[at + "crate".len()..];
        while let Some(deeper) = rest.strip_prefix("::super") {
            rest = deeper;
        }
        let mut heads = rest.strip_prefix("::").map(heads).unwrap_or_default();
        heads.retain(|head| absolute || !sibling(head));
        heads.into_iter().map(move |head| (at, head)).collect::<Vec<_>>()
    })
}

/// The first segments of what a path goes on with: `a::b` gives a; `{a::{b, c}, d}` gives a and d.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return vec![ident(rest).to_owned()] };
    let (mut found, mut depth, mut fresh) = (Vec::new(), 0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if depth == 0 && fresh && is_word(c) => {
                found.push(ident(&group[at..]).to_owned());
                fresh = false;
            }
            _ => {}
        }
    }
    found
}

/// Every function that has a body.
pub fn functions(s: &Source) -> impl Iterator<Item = Function> + '_ {
    words(s, "fn").filter_map(|at| {
        let after = s.code[at + 2..].trim_start();
        let name = ident(after);
        if name.is_empty() {
            return None; // a function pointer's type
        }
        let end = at + body_end(&s.code[at..])?;
        Some(Function { at, name: name.to_owned(), lines: s.code[at..end].matches('\n').count() + 1 })
    })
}

/// Just past the brace that closes the first body; None when a semicolon comes first, as in a trait.
fn body_end(code: &str) -> Option<usize> {
    let (mut round, mut curly) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && curly == 0 => return None,
            '{' => curly += 1,
            '}' => curly -= 1,
            _ => continue,
        }
        if c == '}' && curly == 0 && round == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// The text with comments, strings and character literals turned into spaces; newlines stay.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let in_word = code.ends_with(is_word);
        let skip = comment(rest).or_else(|| if in_word { string(rest) } else { raw(rest).or_else(|| string(rest)) });
        match skip {
            Some(n) => {
                code.extend(rest[..n].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
                rest = &rest[n..];
            }
            None => {
                code.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    code
}

/// The length of the comment that starts here; block comments nest.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        let two = rest.as_bytes().get(at..at + 2).unwrap_or_default();
        match two {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
    Some(rest.len())
}

/// The length of the raw string (`r"…"`, `r#"…"#`, with b or c before it) that starts here.
fn raw(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inner = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inner.find(&close)? + close.len();
    Some(rest.len() - inner.len() + end)
}

/// The length of the string or character literal that starts here; a lifetime is neither.
fn string(rest: &str) -> Option<usize> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut inside = rest.char_indices().skip(1);
    if quote == '\'' {
        let (_, first) = inside.next()?;
        if first != '\\' {
            let (at, close) = inside.next()?;
            return (close == '\'').then_some(at + 1);
        }
        inside.next();
    }
    while let Some((at, c)) = inside.next() {
        if c == '\\' {
            inside.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    Some(rest.len())
}
