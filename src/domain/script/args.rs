//! A script's argument list: each element of the template is one argument, whatever its text holds. No shell, no splitting.

use serde_json::Value;

use crate::domain::canonical;
use crate::domain::render::Unformed;

/// Renders the arguments; the second value is the place of the dry-run argument among them.
///
/// `{code}` and `{args.NAME}` stand for scalars. An element that is exactly `{args.NAME}` and whose value is an array
/// becomes that many arguments. An element one of whose arguments is missing (or null) is left out. `{dry_run}`, alone, is where
/// the dry-run argument goes; without it, it comes first. Braces around anything else are text.
///
/// # Errors
/// An unknown placeholder, an object or an array where a scalar must be, and a value that would turn its element into an
/// option: one that begins with `-` although the template does not.
pub(super) fn render(
    template: &[String],
    dry_run: Option<&str>,
    code: &str,
    args: &Value,
) -> Result<(Vec<String>, Option<usize>), Unformed> {
    const DRY_RUN: &str = "{dry_run}";
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
        let spread = alone(element).and_then(|name| args.get(name)?.as_array());
        let rendered = match spread {
            Some(items) => items.iter().map(|item| scalar(item, element)).collect::<Result<Vec<_>, _>>()?,
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

/// The argument's name, when the element is exactly its placeholder.
fn alone(element: &str) -> Option<&str> {
    element.strip_prefix("{args.")?.strip_suffix('}').filter(|name| is_name(name))
}

/// One element; `None` when an argument is missing.
fn one(element: &str, code: &str, args: &Value) -> Result<Option<String>, Unformed> {
    let (mut out, mut rest) = (String::new(), element);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}').filter(|(name, _)| is_name(name)) else {
            out.push('{');
            rest = after;
            continue;
        };
        match name.strip_prefix("args.") {
            Some(arg) => match args.get(arg) {
                None | Some(Value::Null) => return Ok(None),
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
    Ok(Some(out))
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
