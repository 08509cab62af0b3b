//! A script's argument list: each element of the template is one argument, whatever its text holds. No shell, no splitting.

use serde_json::Value;

use crate::domain::canonical;
use crate::domain::render::Unformed;

const DRY_RUN: &str = "{dry_run}";

/// Renders the arguments; the second value is the place of the dry-run argument among them.
///
/// `{code}` and `{args.NAME}` stand for scalars. An element that is exactly `{args.NAME}` and whose value is an array
/// becomes that many arguments. `{args.NAME?}` is the same of an argument that may be missing (or null, or no items): then its
/// element is left out. `{dry_run}`, alone, is where the dry-run argument goes; without it, it comes first. Braces around
/// anything else are text.
///
/// # Errors
/// A template in which what is left out would let the next element take its place; an unknown placeholder; an argument that is
/// missing and must not be; an object or an array where a scalar must be; and a value that would turn its element into an
/// option: one that begins with `-` although the template does not.
pub(super) fn render(
    template: &[String],
    dry_run: Option<&str>,
    code: &str,
    args: &Value,
) -> Result<(Vec<String>, Option<usize>), Unformed> {
    holds_together(template)?;
    let (mut out, mut place) = (Vec::new(), None);
    if let (Some(argument), false) = (dry_run, template.iter().any(|element| element == DRY_RUN)) {
        out.push(argument.to_owned());
        place = Some(0);
    }
    for element in template {
        if element == DRY_RUN {
            // Once is enough, however often it is written.
            if let (Some(argument), None) = (dry_run, place) {
                place = Some(out.len());
                out.push(argument.to_owned());
            }
            continue;
        }
        let rendered = match alone(element).and_then(|named| Some((named, args.get(named.name)?.as_array()?))) {
            Some((named, items)) if items.is_empty() && !named.is_optional => return Err(missing(named.name)),
            Some((_, items)) => items.iter().map(|item| scalar(item, element)).collect::<Result<Vec<_>, _>>()?,
            None => one(element, code, args)?.into_iter().collect(),
        };
        if let Some(option) = rendered.iter().find(|text| text.starts_with('-') && !element.starts_with('-')) {
            let shown: String = option.chars().take(20).collect();
            return Err(Unformed(format!("the argument {element} would be an option: it begins with - (\"{shown}\")")));
        }
        out.extend(rendered);
    }
    Ok((out, place))
}

/// Refuses templates in which an element that is left out changes what its neighbours mean: an option would take the next
/// element for its value, and before `{dry_run}` that would be the word that nothing be changed.
fn holds_together(template: &[String]) -> Result<(), Unformed> {
    let last_dry_run = template.iter().rposition(|element| element == DRY_RUN).unwrap_or(0);
    for (n, element) in template.iter().enumerate().filter(|(_, element)| is_optional(element)) {
        if n < last_dry_run {
            return Err(Unformed(format!(
                "in script_args {{dry_run}} must come before {element}, which may be left out"
            )));
        }
        let before = n.checked_sub(1).and_then(|n| template.get(n)).filter(|before| may_take_the_next(before));
        if let (Some(option), false) = (before, element.starts_with('-')) {
            return Err(Unformed(format!(
                "in script_args {element} may be left out, and {option} before it would take what comes next for its value; \
                 write {option}={element}"
            )));
        }
    }
    Ok(())
}

/// True for an option without a value of its own.
fn may_take_the_next(element: &str) -> bool {
    element.starts_with('-') && element != "--" && !element.contains('=') && !element.contains("{args.")
}

fn is_optional(element: &str) -> bool {
    element
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .any(|(name, _)| Named::parse(name).is_some_and(|named| named.is_optional))
}

/// An argument, as a template names it.
#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a str,
    is_optional: bool,
}

impl Named<'_> {
    /// Reads what stands in the braces.
    fn parse(text: &str) -> Option<Named<'_>> {
        let text = text.strip_prefix("args.")?;
        let name = text.strip_suffix('?');
        let named = Named { name: name.unwrap_or(text), is_optional: name.is_some() };
        is_name(named.name).then_some(named)
    }
}

fn missing(name: &str) -> Unformed {
    Unformed(format!(
        "the argument {name} is missing; script_args would have to name it as {{args.{name}?}} to go without"
    ))
}

/// The argument, when the element is exactly its placeholder.
fn alone(element: &str) -> Option<Named<'_>> {
    Named::parse(element.strip_prefix('{')?.strip_suffix('}')?)
}

/// One element; `None` when an argument is missing that may be.
fn one(element: &str, code: &str, args: &Value) -> Result<Option<String>, Unformed> {
    let (mut out, mut rest, mut is_left_out) = (String::new(), element, false);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let is_placeholder = |name: &str| is_name(name.strip_suffix('?').unwrap_or(name));
        let Some((name, tail)) = after.split_once('}').filter(|(name, _)| is_placeholder(name)) else {
            out.push('{');
            rest = after;
            continue;
        };
        match Named::parse(name) {
            Some(named) => match args.get(named.name).filter(|value| !value.is_null()) {
                None if named.is_optional => is_left_out = true,
                None => return Err(missing(named.name)),
                Some(value) => out.push_str(&scalar(value, element)?),
            },
            None if name == "code" => out.push_str(code),
            None if name == "dry_run" => {
                return Err(Unformed(format!("{{dry_run}} must stand alone, not in \"{element}\"")));
            }
            None => return Err(Unformed(format!("unknown placeholder {{{name}}} in script_args"))),
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok((!is_left_out).then_some(out))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_.-".contains(c))
}

fn scalar(value: &Value, element: &str) -> Result<String, Unformed> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(canonical::text(value)),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(Unformed(format!(
            "{element} in script_args wants a text, a number or a boolean; DOT_ARGS has all of args"
        ))),
    }
}
