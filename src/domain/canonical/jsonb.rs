//! The canonical text, numbers by what they are worth, straight from the text that PostgreSQL gives a jsonb.
//!
//! PostgreSQL writes a string just as `serde_json` does, so strings are copied. What differs is the order of the keys (jsonb
//! has the short ones first), white space, and the spelling of numbers. Whatever else is met is left to
//! `serde_json`: the answer is then `None`, or the caller's own detour.

use serde_json::Value;

use super::write_worth;

/// Deeper values than anything that can have come through this code, whose parser stops at 128.
const DEEPEST: usize = 256;

/// A scanner over JSON text as PostgreSQL writes it, and what it has made of it so far.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    out: String,
    /// The members of the objects that are open, innermost last.
    members: Vec<Member>,
    scratch: String,
}

/// Where a member of an object stands in what was made: its key with the quotes, and its end.
#[derive(Clone, Copy, Debug)]
struct Member {
    start: usize,
    key_end: usize,
    end: usize,
    /// The key has escapes.
    is_escaped: bool,
}

impl<'a> Scanner<'a> {
    /// Begins at the start of a text; what is made is added to `out`.
    pub fn new(text: &'a str, out: String) -> Scanner<'a> {
        Scanner { text, at: 0, out, members: Vec::new(), scratch: String::new() }
    }

    /// Goes on with another text; what was made is forgotten, and its room used again.
    pub fn restart<'b>(self, text: &'b str) -> Scanner<'b> {
        let Scanner { mut out, mut members, scratch, .. } = self;
        out.clear();
        members.clear();
        Scanner { text, at: 0, out, members, scratch }
    }

    /// What was made.
    pub fn made(&self) -> &str {
        &self.out
    }

    /// Adds to what was made.
    pub fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// How much was read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Past this character and the white space before it.
    pub fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Adds the canonical text of the next value, and gives the text that it has here. `None` leaves half a value behind.
    pub fn value(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        self.value_at(0)?;
        self.text.get(start..self.at)
    }

    /// The text of the next value, if it is none that holds others. Nothing is made of it.
    pub fn scalar(&mut self) -> Option<&'a str> {
        let start = match self.peek()? {
            b'{' | b'[' => return None,
            b'"' => {
                let start = self.at;
                self.skip_string()?;
                start
            }
            _ => {
                let start = self.at;
                self.skip_word();
                start
            }
        };
        self.text.get(start..self.at).filter(|found| !found.is_empty())
    }

    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    fn value_at(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' if depth < DEEPEST => self.object(depth),
            b'[' if depth < DEEPEST => self.array(depth),
            b'{' | b'[' => None,
            b'"' => self.copy_string().map(drop),
            _ => {
                let start = self.at;
                self.skip_word();
                match self.text.get(start..self.at)? {
                    word @ ("true" | "false" | "null") => self.out.push_str(word),
                    number if is_number(number) => write_worth(&mut self.out, number),
                    _ => return None,
                }
                Some(())
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.expect(b'[')?;
        self.out.push('[');
        if self.peek()? == b']' {
            self.at += 1;
            self.out.push(']');
            return Some(());
        }
        loop {
            self.value_at(depth + 1)?;
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => self.out.push(','),
                b']' => {
                    self.out.push(']');
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.expect(b'{')?;
        self.out.push('{');
        let (first, body) = (self.members.len(), self.out.len());
        if self.peek()? == b'}' {
            self.at += 1;
            self.out.push('}');
            return Some(());
        }
        loop {
            let start = self.out.len();
            (self.peek()? == b'"').then_some(())?;
            let is_escaped = self.copy_string()?;
            let key_end = self.out.len();
            self.expect(b':')?;
            self.out.push(':');
            self.value_at(depth + 1)?;
            self.members.push(Member { start, key_end, end: self.out.len(), is_escaped });
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => self.out.push(','),
                b'}' => break,
                _ => return None,
            }
        }
        self.sort(first, body)?;
        self.members.truncate(first);
        self.out.push('}');
        Some(())
    }

    /// Puts the members of the innermost object, from `first`, in the order of their keys; they begin at `body`.
    fn sort(&mut self, first: usize, body: usize) -> Option<()> {
        let (out, members) = (&self.out, self.members.get_mut(first..)?);
        let out_bytes = out.as_bytes();
        let key = |member: &Member| out_bytes.get(member.start + 1..member.key_end - 1).unwrap_or_default();
        if members.iter().any(|member| member.is_escaped) {
            // Escapes sort by what they stand for.
            let plain = |member: &Member| serde_json::from_str::<String>(out.get(member.start..member.key_end)?).ok();
            members.iter().all(|member| plain(member).is_some()).then_some(())?;
            members.sort_by_cached_key(plain);
        } else if members.is_sorted_by(|a, b| key(a) < key(b)) {
            return Some(());
        } else {
            members.sort_unstable_by_key(key);
        }
        // Of two of a name the last one would count; jsonb has no such thing.
        members.windows(2).all(|pair| key(&pair[0]) != key(&pair[1])).then_some(())?;
        self.scratch.clear();
        for (i, member) in members.iter().enumerate() {
            if i > 0 {
                self.scratch.push(',');
            }
            self.scratch.push_str(self.out.get(member.start..member.end)?);
        }
        self.out.truncate(body);
        self.out.push_str(&self.scratch);
        Some(())
    }

    /// True when there are escapes in it.
    fn copy_string(&mut self) -> Option<bool> {
        let start = self.at;
        let is_escaped = self.skip_string()?;
        self.out.push_str(self.text.get(start..self.at)?);
        Some(is_escaped)
    }

    /// From quote to quote; true when there are escapes between. Escapes are those that `serde_json` would write, or there is no answer.
    fn skip_string(&mut self) -> Option<bool> {
        self.at += 1;
        let mut is_escaped = false;
        let bytes = self.text.as_bytes();
        loop {
            self.at += bytes.get(self.at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
            if bytes[self.at] == b'"' {
                self.at += 1;
                return Some(is_escaped);
            }
            is_escaped = true;
            (bytes[self.at] == b'\\').then_some(())?;
            match bytes.get(self.at + 1)? {
                b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                b'u' if is_usual_escape(self.text.get(self.at + 2..self.at + 6)?) => self.at += 6,
                _ => return None,
            }
        }
    }

    fn skip_word(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|byte| matches!(byte, b',' | b']' | b'}' | b' ')).unwrap_or(rest.len());
    }
}

/// The canonical text of a jsonb's text, whichever way; `None` for what is no JSON.
pub fn by_value(text: &str) -> Option<String> {
    let mut scanner = Scanner::new(text, String::with_capacity(text.len()));
    match scanner.value() {
        Some(whole) if whole.len() == text.len() => Some(scanner.out),
        _ => serde_json::from_str::<Value>(text).ok().map(|value| super::by_value(&value)),
    }
}

/// Control characters that have no letter of their own, as both write them.
fn is_usual_escape(digits: &str) -> bool {
    u8::from_str_radix(digits, 16).is_ok_and(|code| {
        code < b' ' && !matches!(code, 0x08 | 0x09 | 0x0a | 0x0c | 0x0d) && digits == format!("{code:04x}")
    })
}

fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_padded = whole.len() > 1 && whole.starts_with('0');
    !is_padded
        && [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
#[path = "jsonb_tests.rs"]
mod tests;
