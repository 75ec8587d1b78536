//! Nodes and a value → text.

use std::sync::Arc;

use serde_json::Value;

use super::parse::{Base, Branch, Node, Operand, Pipeline};
use super::types::{self, Kind};
use super::{Parsed, TemplateError};

/// Longer texts are refused.
const MAX_OUTPUT: usize = 1 << 20;
/// Templates that call each other deeper than this are refused.
const MAX_CALLS: usize = 50;
/// Binary places of the smallest float, and so decimal ones.
const FLOAT_PLACES: usize = 1074;
/// Actions, rounds of loops and calls of one execution.
const MAX_STEPS: usize = 1_000_000;
/// What one execution goes through besides: bytes of texts that are read and made, variables that are looked at for a name,
/// items that are looped over. A step may be about a text of [`MAX_OUTPUT`].
const MAX_WORK: usize = 256 << 20;
/// Branches, loops and templates in each other, however they are written: what the stack bears.
const MAX_NESTING: usize = 200;

type Result<T> = std::result::Result<T, TemplateError>;

fn failed<T>(message: impl Into<String>) -> Result<T> {
    Err(TemplateError::Execution(message.into()))
}

/// A value as templates see it.
#[derive(Clone, Debug)]
enum Val<'a> {
    Nil,
    /// A key that a map lacks.
    Missing,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Shared: a template may name the same text as often as it has places for.
    Str(Arc<str>),
    /// An object, list or map, and its JSON unless it is unset.
    Part(&'a Kind, Option<&'a Value>),
}

const RAW: &Kind = &Kind::Raw;

/// A part of a value, by its kind; what is unset has the zero value.
fn part<'a>(kind: &'a Kind, value: Option<&'a Value>) -> Val<'a> {
    let value = value.filter(|value| !value.is_null());
    match kind {
        Kind::String => Val::Str(value.and_then(Value::as_str).unwrap_or_default().into()),
        Kind::Int => Val::Int(value.and_then(Value::as_i64).unwrap_or_default()),
        Kind::Bool => Val::Bool(value.and_then(Value::as_bool).unwrap_or_default()),
        Kind::Raw => match value {
            None => Val::Nil,
            Some(Value::Bool(b)) => Val::Bool(*b),
            Some(Value::String(s)) => Val::Str(s.as_str().into()),
            Some(Value::Number(n)) => match n.as_i64() {
                Some(i) => Val::Int(i),
                None => Val::Float(n.as_f64().unwrap_or_default()),
            },
            some => Val::Part(RAW, some),
        },
        kind => Val::Part(kind, value),
    }
}

pub(super) fn execute(template: &Parsed, type_name: &'static str, value: &Value) -> Result<String> {
    let kind = Kind::Object {
        name: type_name,
        pointer: false,
    };
    let root = Val::Part(&kind, Some(value));
    let mut run = Run {
        template,
        out: String::new(),
        variables: vec![("$".to_owned(), root.clone())],
        calls: 0,
        steps: 0,
        work: 0,
        nesting: 0,
    };
    run.list(&template.body, &root)?;
    Ok(run.out)
}

enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'a> {
    template: &'a Parsed,
    out: String,
    variables: Vec<(String, Val<'a>)>,
    calls: usize,
    steps: usize,
    work: usize,
    nesting: usize,
}

/// Adds to a text, up to its bound.
fn append(text: &mut String, more: &str) -> Result<()> {
    if text.len() + more.len() > MAX_OUTPUT {
        return failed(format!("the text is longer than {MAX_OUTPUT} bytes"));
    }
    text.push_str(more);
    Ok(())
}

impl<'a> Run<'a> {
    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return failed(format!("more than {MAX_STEPS} steps"));
        }
        Ok(())
    }

    fn work(&mut self, more: usize) -> Result<()> {
        self.work = self.work.saturating_add(more);
        if self.work > MAX_WORK {
            return failed(format!(
                "more than {MAX_WORK} bytes of texts, variables and items are gone through"
            ));
        }
        Ok(())
    }

    fn list(&mut self, nodes: &'a [Node], dot: &Val<'a>) -> Result<Flow> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return failed(format!("nested deeper than {MAX_NESTING} levels"));
        }
        let known = self.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            self.step()?;
            flow = self.node(node, dot)?;
            if !matches!(flow, Flow::Next) {
                break;
            }
        }
        self.variables.truncate(known);
        self.nesting -= 1;
        Ok(flow)
    }

    fn node(&mut self, node: &'a Node, dot: &Val<'a>) -> Result<Flow> {
        match node {
            Node::Text(text) => append(&mut self.out, text)?,
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    append(&mut self.out, &print(&value))?;
                }
            }
            Node::If(branch) => {
                let known = self.variables.len();
                let value = self.pipeline(&branch.condition, dot)?;
                let nodes = if truth(&value) {
                    &branch.then
                } else {
                    &branch.otherwise
                };
                let flow = self.list(nodes, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::With(branch) => {
                let known = self.variables.len();
                let value = self.pipeline(&branch.condition, dot)?;
                let flow = if truth(&value) {
                    self.list(&branch.then, &value)?
                } else {
                    self.list(&branch.otherwise, dot)?
                };
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Range(branch) => return self.range(branch, dot),
            Node::Template { name, argument } => {
                let value = match argument {
                    Some(pipeline) => self.pipeline(pipeline, dot)?,
                    None => Val::Nil,
                };
                let Some(body) = self.template.defined.get(name) else {
                    return failed(format!("template {name:?} not defined"));
                };
                self.calls += 1;
                if self.calls > MAX_CALLS {
                    return failed(format!("exceeded maximum template depth ({MAX_CALLS})"));
                }
                let outer =
                    std::mem::replace(&mut self.variables, vec![("$".to_owned(), value.clone())]);
                self.list(body, &value)?;
                self.variables = outer;
                self.calls -= 1;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(&mut self, branch: &'a Branch, dot: &Val<'a>) -> Result<Flow> {
        let value = self.commands(&branch.condition, dot)?;
        // A number is counted as it goes: loops in each other would hold as many lists.
        if let Val::Int(count) = value {
            if usize::try_from(count).is_ok_and(|n| n > MAX_STEPS) {
                return failed(format!("range over {count} is more than {MAX_STEPS} steps"));
            }
            let items = (0..count).map(|n| (Val::Int(n), Val::Int(n)));
            return self.rounds(branch, items, dot);
        }
        let items: Vec<(Val<'a>, Val<'a>)> = match &value {
            Val::Nil | Val::Missing => Vec::new(),
            Val::Part(kind, json) => match (kind, json) {
                (_, None) => Vec::new(),
                (Kind::List(of), Some(Value::Array(items))) => numbered(items, of),
                (Kind::Raw, Some(Value::Array(items))) => numbered(items, RAW),
                (Kind::Map(of), Some(Value::Object(map))) => keyed(map, of),
                (Kind::Raw, Some(Value::Object(map))) => keyed(map, RAW),
                _ => return failed("range can't iterate over the value"),
            },
            _ => return failed(format!("range can't iterate over {}", print(&value))),
        };
        self.work(items.len() * size_of::<(Val<'_>, Val<'_>)>())?;
        self.rounds(branch, items.into_iter(), dot)
    }

    fn rounds(
        &mut self,
        branch: &'a Branch,
        items: impl Iterator<Item = (Val<'a>, Val<'a>)>,
        dot: &Val<'a>,
    ) -> Result<Flow> {
        let known = self.variables.len();
        let mut items = items.peekable();
        if items.peek().is_none() {
            let flow = self.list(&branch.otherwise, dot)?;
            self.variables.truncate(known);
            return Ok(flow);
        }
        for (key, item) in items {
            self.step()?;
            let names = &branch.condition.variables;
            let values = match names.as_slice() {
                [_] => vec![item.clone()],
                _ => vec![key, item.clone()],
            };
            for (name, value) in names.iter().zip(values) {
                self.set(name, value, branch.condition.assigns)?;
            }
            let flow = self.list(&branch.then, &item)?;
            self.variables.truncate(known);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn set(&mut self, name: &str, value: Val<'a>, assigns: bool) -> Result<()> {
        if assigns
            && let Some(at) = self.variable(name)?
            && let Some((_, slot)) = self.variables.get_mut(at)
        {
            *slot = value;
        } else {
            self.variables.push((name.to_owned(), value));
        }
        Ok(())
    }

    /// Where the innermost variable of a name is.
    fn variable(&mut self, name: &str) -> Result<Option<usize>> {
        let at = self.variables.iter().rposition(|(known, _)| known == name);
        self.work(self.variables.len() - at.unwrap_or(0))?;
        Ok(at)
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Val<'a>) -> Result<Val<'a>> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, value.clone(), pipeline.assigns)?;
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &'a Pipeline, dot: &Val<'a>) -> Result<Val<'a>> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Val::Nil))
    }

    fn command(
        &mut self,
        operands: &'a [Operand],
        dot: &Val<'a>,
        last: Option<Val<'a>>,
    ) -> Result<Val<'a>> {
        let Some((first, rest)) = operands.split_first() else {
            return Ok(Val::Nil);
        };
        self.step()?;
        if let Base::Function(name) = &first.base {
            return self.call(name, rest, dot, last);
        }
        let value = self.operand(first, dot)?;
        if !rest.is_empty() || last.is_some() {
            return failed("can't give an argument to what is no function");
        }
        Ok(value)
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Val<'a>) -> Result<Val<'a>> {
        let mut value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let known = self.variable(name)?.and_then(|at| self.variables.get(at));
                known.map_or(Val::Nil, |(_, value)| value.clone())
            }
            Base::Function(name) => self.call(name, &[], dot, None)?,
            Base::Nil => Val::Nil,
            Base::Bool(b) => Val::Bool(*b),
            Base::Int(i) => Val::Int(*i),
            Base::Float(f) => Val::Float(*f),
            Base::String(s) => {
                self.work(s.len())?;
                Val::Str(s.as_str().into())
            }
            Base::Group(pipeline) => self.pipeline(pipeline, dot)?,
        };
        for name in &operand.fields {
            value = field(&value, name)?;
            self.work(text_length(&value))?;
        }
        Ok(value)
    }

    fn call(
        &mut self,
        name: &str,
        operands: &'a [Operand],
        dot: &Val<'a>,
        last: Option<Val<'a>>,
    ) -> Result<Val<'a>> {
        // These two stop at the first argument that decides.
        if matches!(name, "and" | "or") {
            let mut value = None;
            for operand in operands {
                let next = self.operand(operand, dot)?;
                let decided = truth(&next) == (name == "or");
                value = Some(next);
                if decided {
                    break;
                }
            }
            return match (value, last) {
                (Some(value), Some(last)) => Ok(if truth(&value) == (name == "or") {
                    value
                } else {
                    last
                }),
                (value, last) => value
                    .or(last)
                    .map_or_else(|| failed(format!("wrong number of args for {name}")), Ok),
            };
        }
        let mut arguments = operands
            .iter()
            .map(|o| self.operand(o, dot))
            .collect::<Result<Vec<_>>>()?;
        arguments.extend(last);
        // These two look at no more than a place.
        if !matches!(name, "len" | "index") {
            self.work(arguments.iter().map(text_length).sum())?;
        }
        let result = call(name, &arguments).or_else(|e| match e {
            TemplateError::Execution(message) => failed(format!("error calling {name}: {message}")),
            other => Err(other),
        })?;
        self.work(text_length(&result))?;
        Ok(result)
    }
}

fn numbered<'a>(items: &'a [Value], of: &'a Kind) -> Vec<(Val<'a>, Val<'a>)> {
    (0..)
        .map(Val::Int)
        .zip(items.iter().map(|item| part(of, Some(item))))
        .collect()
}

fn keyed<'a>(map: &'a serde_json::Map<String, Value>, of: &'a Kind) -> Vec<(Val<'a>, Val<'a>)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
        .into_iter()
        .map(|(key, item)| (Val::Str(key.as_str().into()), part(of, Some(item))))
        .collect()
}

fn field<'a>(value: &Val<'a>, name: &str) -> Result<Val<'a>> {
    match value {
        Val::Part(
            Kind::Object {
                name: owner,
                pointer,
            },
            json,
        ) => {
            let owner: &'static str = owner;
            if *pointer && json.is_none() {
                return failed(format!("nil pointer evaluating {owner}.{name}"));
            }
            match object_field(owner, *json, name) {
                Some(value) => Ok(value),
                None => failed(format!("can't evaluate field {name} in type {owner}")),
            }
        }
        Val::Part(Kind::Map(of), json) => {
            let found = json.and_then(|json| json.get(name));
            Ok(found.map_or(Val::Missing, |found| part(of, Some(found))))
        }
        Val::Part(Kind::Raw, Some(json @ Value::Object(_))) => Ok(json
            .get(name)
            .map_or(Val::Missing, |found| part(RAW, Some(found)))),
        Val::Nil | Val::Missing => failed(format!("nil data; no entry for key {name:?}")),
        other => failed(format!("can't evaluate field {name} in {}", print(other))),
    }
}

fn object_field<'a>(owner: &'static str, json: Option<&'a Value>, name: &str) -> Option<Val<'a>> {
    let fields = types::fields(owner);
    let get = |key: &str| json.and_then(|json| json.get(key));
    if let Some(field) = fields.iter().find(|field| field.go == name) {
        return Some(part(&field.kind, get(field.json)));
    }
    fields
        .iter()
        .filter(|field| field.embedded)
        .find_map(|field| match &field.kind {
            Kind::Object { name: inner, .. } => object_field(inner, get(field.json), name),
            _ => None,
        })
}

fn truth(value: &Val<'_>) -> bool {
    match value {
        Val::Nil | Val::Missing => false,
        Val::Bool(b) => *b,
        Val::Int(i) => *i != 0,
        Val::Float(f) => *f != 0.0,
        Val::Str(s) => !s.is_empty(),
        Val::Part(Kind::Object { pointer: false, .. }, _) => true,
        Val::Part(Kind::Object { .. }, json) => json.is_some(),
        Val::Part(..) => length(value).is_some_and(|n| n > 0),
    }
}

fn length(value: &Val<'_>) -> Option<usize> {
    match value {
        Val::Str(s) => Some(s.len()),
        Val::Part(Kind::Object { .. }, _) => None,
        Val::Part(_, None) => Some(0),
        Val::Part(_, Some(Value::Array(items))) => Some(items.len()),
        Val::Part(_, Some(Value::Object(map))) => Some(map.len()),
        _ => None,
    }
}

/// What `fmt.Print` makes of a value; objects are written as JSON, which Go's own form is not worth.
fn print(value: &Val<'_>) -> String {
    match value {
        Val::Nil => "<nil>".to_owned(),
        Val::Missing => "<no value>".to_owned(),
        Val::Bool(b) => b.to_string(),
        Val::Int(i) => i.to_string(),
        Val::Float(f) => f.to_string(),
        Val::Str(s) => s.to_string(),
        Val::Part(Kind::List(of), json) => {
            let items = json
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let items: Vec<_> = items
                .iter()
                .map(|item| print(&part(of, Some(item))))
                .collect();
            format!("[{}]", items.join(" "))
        }
        Val::Part(Kind::Map(of), json) => {
            let entries = json
                .and_then(Value::as_object)
                .map(|map| keyed(map, of))
                .unwrap_or_default();
            let entries: Vec<_> = entries
                .iter()
                .map(|(k, v)| format!("{}:{}", print(k), print(v)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
        Val::Part(_, Some(json)) => json.to_string(),
        Val::Part(_, None) => "<nil>".to_owned(),
    }
}

fn made<'a>(text: String) -> Val<'a> {
    Val::Str(text.into())
}

fn text_length(value: &Val<'_>) -> usize {
    match value {
        Val::Str(text) => text.len(),
        _ => 0,
    }
}

fn call<'a>(name: &str, arguments: &[Val<'a>]) -> Result<Val<'a>> {
    let wrong = || failed("wrong number of args");
    let short = |text: String| match text.len() {
        0..=MAX_OUTPUT => Ok(made(text)),
        _ => failed(format!("the text is longer than {MAX_OUTPUT} bytes")),
    };
    match (name, arguments) {
        ("not", [value]) => Ok(Val::Bool(!truth(value))),
        ("len", [value]) => match length(value) {
            Some(n) => Ok(Val::Int(i64::try_from(n).unwrap_or(i64::MAX))),
            None => failed("len of a value without length"),
        },
        ("index", [value, keys @ ..]) => keys
            .iter()
            .try_fold(value.clone(), |value, key| index(&value, key)),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            for other in others {
                if equal(first, other)? {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        }
        ("ne", [a, b]) => equal(a, b).map(|same| Val::Bool(!same)),
        ("lt", [a, b]) => less(a, b).map(Val::Bool),
        ("ge", [a, b]) => less(a, b).map(|less| Val::Bool(!less)),
        ("gt", [a, b]) => less(b, a).map(Val::Bool),
        ("le", [a, b]) => less(b, a).map(|less| Val::Bool(!less)),
        ("print", _) => sprint(arguments).map(made),
        ("println", _) => {
            let mut text = String::new();
            for (n, argument) in arguments.iter().enumerate() {
                append(&mut text, if n > 0 { " " } else { "" })?;
                append(&mut text, &print(argument))?;
            }
            append(&mut text, "\n")?;
            Ok(made(text))
        }
        ("printf", [Val::Str(format), values @ ..]) => printf(format, values).map(made),
        ("html", _) => short(html(&sprint(arguments)?)),
        ("urlquery", _) => short(urlquery(&sprint(arguments)?)),
        ("js", _) => short(
            sprint(arguments)?
                .replace('\\', r"\\")
                .replace('\'', r"\'")
                .replace('"', "\\\""),
        ),
        ("slice", [Val::Str(text), bounds @ ..]) => slice(text, bounds).map(made),
        ("replace", [Val::Str(old), Val::Str(new), Val::Str(text)]) => {
            // The most that comes of it: a new text for each place where an old one fits.
            let places = text.len() / old.len().max(1) + 1;
            if places.saturating_mul(new.len()) > MAX_OUTPUT {
                return failed(format!("the text is longer than {MAX_OUTPUT} bytes"));
            }
            short(text.replace(old.as_ref(), new))
        }
        _ => wrong(),
    }
}

/// Go's `Sprint`: a blank between two values of which neither is a text.
fn sprint(values: &[Val<'_>]) -> Result<String> {
    let mut text = String::new();
    let mut texts_before = true;
    for (n, value) in values.iter().enumerate() {
        let is_text = matches!(value, Val::Str(_));
        if n > 0 && !texts_before && !is_text {
            append(&mut text, " ")?;
        }
        append(&mut text, &print(value))?;
        texts_before = is_text;
    }
    Ok(text)
}

fn index<'a>(value: &Val<'a>, key: &Val<'a>) -> Result<Val<'a>> {
    match (value, key) {
        (Val::Part(kind, json), Val::Int(at)) => {
            let items = json
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let found = usize::try_from(*at).ok().and_then(|at| items.get(at));
            match (kind, found) {
                (Kind::List(of), Some(item)) => Ok(part(of, Some(item))),
                (Kind::Raw, Some(item)) => Ok(part(RAW, Some(item))),
                (Kind::List(_) | Kind::Raw, None) => failed(format!("index out of range: {at}")),
                _ => failed("can't index the value"),
            }
        }
        (Val::Part(Kind::Map(of), json), Val::Str(key)) => {
            Ok(part(of, json.and_then(|json| json.get(key.as_ref()))))
        }
        (Val::Part(Kind::Raw, json), Val::Str(key)) => {
            Ok(part(RAW, json.and_then(|json| json.get(key.as_ref()))))
        }
        (Val::Str(text), Val::Int(at)) => match usize::try_from(*at)
            .ok()
            .and_then(|at| text.as_bytes().get(at))
        {
            Some(byte) => Ok(Val::Int(i64::from(*byte))),
            None => failed(format!("index out of range: {at}")),
        },
        _ => failed("can't index the value"),
    }
}

fn slice(text: &str, bounds: &[Val<'_>]) -> Result<String> {
    let at = |n: usize, default: usize| match bounds.get(n) {
        Some(Val::Int(at)) => usize::try_from(*at).ok(),
        Some(_) => None,
        None => Some(default),
    };
    let range = at(0, 0)
        .zip(at(1, text.len()))
        .and_then(|(from, to)| text.get(from..to));
    range.map_or_else(|| failed("index out of range"), |part| Ok(part.to_owned()))
}

fn equal(a: &Val<'_>, b: &Val<'_>) -> Result<bool> {
    match (a, b) {
        (Val::Str(a), Val::Str(b)) => Ok(a == b),
        (Val::Int(a), Val::Int(b)) => Ok(a == b),
        (Val::Float(a), Val::Float(b)) => Ok(a == b),
        (Val::Bool(a), Val::Bool(b)) => Ok(a == b),
        (Val::Nil | Val::Missing, Val::Nil | Val::Missing) => Ok(true),
        (Val::Part(_, json), Val::Nil) | (Val::Nil, Val::Part(_, json)) => Ok(json.is_none()),
        (Val::Nil | Val::Missing, _) | (_, Val::Nil | Val::Missing) => Ok(false),
        _ => failed("incompatible types for comparison"),
    }
}

fn less(a: &Val<'_>, b: &Val<'_>) -> Result<bool> {
    match (a, b) {
        (Val::Str(a), Val::Str(b)) => Ok(a < b),
        (Val::Int(a), Val::Int(b)) => Ok(a < b),
        (Val::Float(a), Val::Float(b)) => Ok(a < b),
        _ => failed("incompatible types for comparison"),
    }
}

fn printf(format: &str, values: &[Val<'_>]) -> Result<String> {
    let mut text = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | '0' | ' ' | '#')) {
            flags.push(flag);
        }
        let digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok().map(|n| n.min(MAX_OUTPUT))
        };
        let width = digits(&mut chars);
        let precision = chars
            .next_if_eq(&'.')
            .map(|_| digits(&mut chars).unwrap_or(0));
        let Some(verb) = chars.next() else {
            text.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            text.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            text += &format!("%!{verb}(MISSING)");
            continue;
        };
        let formatted = match (verb, value) {
            ('s' | 'v', value) => {
                let plain = print(value);
                precision.map_or(plain.clone(), |n| plain.chars().take(n).collect())
            }
            ('q', value) => format!("{:?}", print(value)),
            ('d', Val::Int(i)) => i.to_string(),
            ('x', Val::Int(i)) => format!("{i:x}"),
            ('t', Val::Bool(b)) => b.to_string(),
            ('f', Val::Float(f)) => {
                // Beyond these there are only zeros, and the formatter takes no more than 65535.
                let places = precision.unwrap_or(6);
                let exact = places.min(FLOAT_PLACES);
                format!("{f:.exact$}{}", "0".repeat(places - exact))
            }
            (verb, value) => format!("%!{verb}({})", print(value)),
        };
        let padding = width.unwrap_or(0).saturating_sub(formatted.chars().count());
        let padded = match (flags.contains('-'), flags.contains('0') && verb == 'd') {
            (true, _) => format!("{formatted}{}", " ".repeat(padding)),
            (false, true) => format!("{}{formatted}", "0".repeat(padding)),
            (false, false) => format!("{}{formatted}", " ".repeat(padding)),
        };
        append(&mut text, &padded)?;
    }
    Ok(text)
}

fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn urlquery(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') => {
                escaped.push(char::from(b))
            }
            b' ' => escaped.push('+'),
            b => escaped.push_str(&format!("%{b:02X}")),
        }
    }
    escaped
}
