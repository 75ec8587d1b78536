//! Text → nodes.

use std::collections::BTreeMap;

use super::TemplateError;

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 100;

const FUNCTIONS: [&str; 18] = [
    "and", "or", "not", "len", "index", "print", "printf", "println", "eq", "ne", "lt", "le", "gt",
    "ge", "html", "js", "urlquery", "slice",
];

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    /// An action that prints, unless it declares or assigns.
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template {
        name: String,
        argument: Option<Pipeline>,
    },
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) condition: Pipeline,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// Variables that get the value, and whether they are assigned rather than declared.
    pub(super) variables: Vec<String>,
    pub(super) assigns: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(String),
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    Group(Box<Pipeline>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Space,
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`
    Variable(String),
    Word(String),
    Number(String),
    Text(String),
    Open,
    Close,
    Pipe,
    Comma,
    Declare,
    Assign,
}

/// A piece of a template: text, or an action with its tokens; with the line of its beginning.
enum Piece {
    Text(String),
    Action(usize, Vec<Token>),
}

fn syntax<T>(line: usize, message: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError::Syntax {
        line,
        message: message.into(),
    })
}

pub(super) type Body = Vec<Node>;

pub(super) fn parse(
    text: &str,
    functions: &[&str],
) -> Result<(Body, BTreeMap<String, Body>), TemplateError> {
    let mut parser = Parser {
        pieces: pieces(text)?.into_iter().peekable(),
        functions,
        variables: vec!["$".to_owned()],
        defined: BTreeMap::new(),
        depth: 0,
        loops: 0,
        line: 1,
    };
    let (body, end) = parser.list()?;
    match end {
        Stop::Eof => Ok((body, parser.defined)),
        Stop::End => syntax(parser.line, "unexpected {{end}}"),
        Stop::Else(_) => syntax(parser.line, "unexpected {{else}}"),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut line = 1;
    let mut trim_start = false;
    loop {
        let Some((before, after)) = rest.split_once("{{") else {
            let last = if trim_start { rest.trim_start() } else { rest };
            pieces.push(Piece::Text(last.to_owned()));
            return Ok(pieces);
        };
        line += before.matches('\n').count();
        let trims = after.starts_with('-') && after[1..].starts_with([' ', '\t', '\r', '\n']);
        let before = if trim_start {
            before.trim_start()
        } else {
            before
        };
        pieces.push(Piece::Text(
            if trims { before.trim_end() } else { before }.to_owned(),
        ));
        let inside = if trims { &after[1..] } else { after };
        let comment = inside.trim_start();
        let end = if comment.starts_with("/*") && (trims || inside.starts_with("/*")) {
            let Some(close) = comment.find("*/") else {
                return syntax(line, "unclosed comment");
            };
            let tail = &comment[close + 2..];
            let (dash, tail) = match tail.strip_prefix(" -") {
                Some(tail) => (true, tail),
                None => (false, tail),
            };
            let Some(tail) = tail.strip_prefix("}}") else {
                return syntax(line, "comment ends before closing delimiter");
            };
            trim_start = dash;
            tail
        } else {
            let (tokens, tail, dash) = tokens(inside, line)?;
            pieces.push(Piece::Action(line, tokens));
            trim_start = dash;
            tail
        };
        line += after[..after.len() - end.len()].matches('\n').count();
        rest = end;
    }
}

/// The tokens of an action, what follows it, and whether blanks there are trimmed.
fn tokens(text: &str, line: usize) -> Result<(Vec<Token>, &str, bool), TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        let Some(c) = rest.chars().next() else {
            return syntax(line, "unclosed action");
        };
        if c.is_whitespace() {
            let after = rest.trim_start();
            if let Some(after) = after.strip_prefix("-}}") {
                return Ok((tokens, after, true));
            }
            tokens.push(Token::Space);
            rest = after;
            continue;
        }
        let word = |text: &str| {
            text.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(text.len())
        };
        let (token, length) = match c {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '"' | '`' | '\'' => quoted(rest, c, line)?,
            '$' => {
                let length = 1 + word(&rest[1..]);
                (Token::Variable(rest[..length].to_owned()), length)
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => match word(&rest[1..]) {
                0 => (Token::Dot, 1),
                length => (Token::Field(rest[1..=length].to_owned()), length + 1),
            },
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => {
                let digits =
                    |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '+' | '-');
                let length = rest.find(digits).unwrap_or(rest.len());
                (Token::Number(rest[..length].to_owned()), length)
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = word(rest);
                (Token::Word(rest[..length].to_owned()), length)
            }
            c => return syntax(line, format!("unexpected {c:?} in command")),
        };
        tokens.push(token);
        rest = &rest[length..];
    }
}

fn quoted(text: &str, quote: char, line: usize) -> Result<(Token, usize), TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            if quote == '\'' {
                let code = value.chars().next().map_or(0, u32::from);
                return Ok((Token::Number(code.to_string()), at + 1));
            }
            return Ok((Token::Text(value), at + 1));
        }
        if c == '\n' && quote != '`' {
            break;
        }
        if c != '\\' || quote == '`' {
            value.push(c);
            continue;
        }
        let Some((_, escape)) = chars.next() else {
            break;
        };
        let mut code = |digits: usize| {
            let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
            u32::from_str_radix(&text, 16).ok().and_then(char::from_u32)
        };
        let unescaped = match escape {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'v' => Some('\x0b'),
            'x' => code(2),
            'u' => code(4),
            'U' => code(8),
            '\\' | '"' | '\'' => Some(escape),
            _ => None,
        };
        match unescaped {
            Some(c) => value.push(c),
            None => return syntax(line, "invalid syntax in quoted string"),
        }
    }
    syntax(line, "unterminated quoted string")
}

/// What a list of nodes ended with.
enum Stop {
    Eof,
    End,
    /// With the tokens after `else`.
    Else(Vec<Token>),
}

struct Parser<'a> {
    pieces: std::iter::Peekable<std::vec::IntoIter<Piece>>,
    functions: &'a [&'a str],
    variables: Vec<String>,
    defined: BTreeMap<String, Body>,
    depth: usize,
    loops: usize,
    line: usize,
}

impl Parser<'_> {
    fn list(&mut self) -> Result<(Body, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (line, tokens) = match piece {
                Piece::Text(text) => {
                    if !text.is_empty() {
                        nodes.push(Node::Text(text));
                    }
                    continue;
                }
                Piece::Action(line, tokens) => (line, tokens),
            };
            self.line = line;
            let tokens = trimmed(tokens);
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            let rest = trimmed(tokens.iter().skip(1).cloned().collect());
            match keyword {
                "end" => return Ok((nodes, Stop::End)),
                "else" => return Ok((nodes, Stop::Else(rest))),
                "if" => nodes.push(Node::If(self.branch("if", rest)?)),
                "with" => nodes.push(Node::With(self.branch("with", rest)?)),
                "range" => {
                    self.loops += 1;
                    nodes.push(Node::Range(self.branch("range", rest)?));
                    self.loops -= 1;
                }
                "break" if self.loops > 0 => nodes.push(Node::Break),
                "continue" if self.loops > 0 => nodes.push(Node::Continue),
                "define" | "block" | "template" => nodes.extend(self.named(keyword, rest)?),
                _ => nodes.push(Node::Action(self.pipeline(&tokens, "command")?)),
            }
        }
        Ok((nodes, Stop::Eof))
    }

    fn deeper<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return syntax(self.line, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        // What is declared inside is not seen outside.
        let known = self.variables.len();
        let parsed = parse(self);
        self.variables.truncate(known);
        self.depth -= 1;
        parsed
    }

    fn branch(&mut self, keyword: &str, tokens: Vec<Token>) -> Result<Branch, TemplateError> {
        self.deeper(|parser| {
            let condition = parser.pipeline(&tokens, keyword)?;
            let (then, end) = parser.list()?;
            let otherwise = match end {
                Stop::End => Vec::new(),
                Stop::Eof => return syntax(parser.line, "unexpected EOF"),
                Stop::Else(tokens) => parser.otherwise(keyword, tokens)?,
            };
            Ok(Branch {
                condition,
                then,
                otherwise,
            })
        })
    }

    /// `else`, `else if` and `else with`; the latter two share the end of the whole.
    fn otherwise(&mut self, keyword: &str, tokens: Vec<Token>) -> Result<Body, TemplateError> {
        let Some(first) = tokens.first() else {
            return match self.list()? {
                (nodes, Stop::End) => Ok(nodes),
                (_, Stop::Eof) => syntax(self.line, "unexpected EOF"),
                (_, Stop::Else(_)) => syntax(self.line, "expected end; found {{else}}"),
            };
        };
        let rest = trimmed(tokens[1..].to_vec());
        match first {
            Token::Word(word) if word == "if" && keyword == "if" => {
                Ok(vec![Node::If(self.branch("if", rest)?)])
            }
            Token::Word(word) if word == "with" && keyword == "with" => {
                Ok(vec![Node::With(self.branch("with", rest)?)])
            }
            _ => syntax(self.line, "unexpected token in else"),
        }
    }

    fn named(&mut self, keyword: &str, tokens: Vec<Token>) -> Result<Option<Node>, TemplateError> {
        let Some(Token::Text(name)) = tokens.first().cloned() else {
            return syntax(
                self.line,
                format!("expected a quoted name in {keyword} clause"),
            );
        };
        let rest = trimmed(tokens[1..].to_vec());
        let argument = if rest.is_empty() {
            None
        } else {
            Some(self.pipeline(&rest, keyword)?)
        };
        if keyword != "template" {
            let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
            let parsed = self.deeper(Self::list);
            self.variables = outer;
            let (body, end) = parsed?;
            if !matches!(end, Stop::End) {
                return syntax(self.line, format!("unexpected EOF in {keyword} clause"));
            }
            self.defined.insert(name.clone(), body);
            if keyword == "define" {
                return Ok(None);
            }
        }
        Ok(Some(Node::Template { name, argument }))
    }

    fn pipeline(&mut self, tokens: &[Token], context: &str) -> Result<Pipeline, TemplateError> {
        let mut pipeline = Pipeline {
            variables: Vec::new(),
            assigns: false,
            commands: Vec::new(),
        };
        let bare: Vec<&Token> = tokens.iter().filter(|t| **t != Token::Space).collect();
        let mut tokens = tokens;
        let declared = match bare.as_slice() {
            [Token::Variable(v), Token::Declare | Token::Assign, ..] => vec![v.clone()],
            [
                Token::Variable(v),
                Token::Comma,
                Token::Variable(w),
                Token::Declare | Token::Assign,
                ..,
            ] if context == "range" => {
                vec![v.clone(), w.clone()]
            }
            _ => Vec::new(),
        };
        if !declared.is_empty() {
            let at = tokens
                .iter()
                .position(|t| matches!(t, Token::Declare | Token::Assign))
                .unwrap_or_default();
            pipeline.assigns = tokens[at] == Token::Assign;
            if pipeline.assigns
                && let Some(unknown) = declared.iter().find(|v| !self.variables.contains(v))
            {
                return syntax(self.line, format!("undefined variable {unknown:?}"));
            }
            tokens = &tokens[at + 1..];
        }
        for command in split_pipes(tokens, self.line)? {
            let operands = self.command(command)?;
            if operands.is_empty() {
                return syntax(self.line, format!("missing value for {context}"));
            }
            if !pipeline.commands.is_empty() && operands.len() == 1 && is_constant(&operands[0]) {
                return syntax(self.line, "non executable command in pipeline");
            }
            pipeline.commands.push(operands);
        }
        if !pipeline.assigns {
            self.variables.extend(declared.iter().cloned());
        }
        pipeline.variables = declared;
        Ok(pipeline)
    }

    fn command(&mut self, tokens: &[Token]) -> Result<Vec<Operand>, TemplateError> {
        let mut operands: Vec<Operand> = Vec::new();
        // Whether the next field belongs to the operand before it.
        let mut adjacent = false;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            let base = match token {
                Token::Space => {
                    adjacent = false;
                    continue;
                }
                Token::Field(name) => {
                    match operands.last_mut() {
                        Some(operand) if adjacent => operand.fields.push(name.clone()),
                        _ => operands.push(Operand {
                            base: Base::Dot,
                            fields: vec![name.clone()],
                        }),
                    }
                    adjacent = true;
                    continue;
                }
                _ if adjacent => return syntax(self.line, "unexpected token in operand"),
                Token::Dot => Base::Dot,
                Token::Variable(name) => {
                    if !self.variables.contains(name) {
                        return syntax(self.line, format!("undefined variable {name:?}"));
                    }
                    Base::Variable(name.clone())
                }
                Token::Word(word) => match word.as_str() {
                    "true" => Base::Bool(true),
                    "false" => Base::Bool(false),
                    "nil" => Base::Nil,
                    name if FUNCTIONS.contains(&name) || self.functions.contains(&name) => {
                        Base::Function(name.to_owned())
                    }
                    name => return syntax(self.line, format!("function {name:?} not defined")),
                },
                Token::Number(text) => number(text, self.line)?,
                Token::Text(text) => Base::String(text.clone()),
                Token::Open => {
                    let length = closing(&tokens[at..], self.line)?;
                    let inner = self.deeper(|parser| {
                        parser.pipeline(&tokens[at..at + length], "parenthesized pipeline")
                    })?;
                    at += length + 1;
                    Base::Group(Box::new(inner))
                }
                Token::Close => return syntax(self.line, "unexpected right paren"),
                Token::Pipe | Token::Comma | Token::Declare | Token::Assign => {
                    return syntax(self.line, "unexpected token in operand");
                }
            };
            operands.push(Operand {
                base,
                fields: Vec::new(),
            });
            adjacent = true;
        }
        Ok(operands)
    }
}

fn is_constant(operand: &Operand) -> bool {
    operand.fields.is_empty()
        && matches!(
            operand.base,
            Base::Nil | Base::Bool(_) | Base::Int(_) | Base::Float(_) | Base::String(_) | Base::Dot
        )
}

fn trimmed(mut tokens: Vec<Token>) -> Vec<Token> {
    while tokens.last() == Some(&Token::Space) {
        tokens.pop();
    }
    let blanks = tokens.iter().take_while(|t| **t == Token::Space).count();
    tokens.drain(..blanks);
    tokens
}

/// The commands of a pipeline; bars in parentheses belong to what stands there.
fn split_pipes(tokens: &[Token], line: usize) -> Result<Vec<&[Token]>, TemplateError> {
    let (mut commands, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => return syntax(line, "unexpected right paren"),
            },
            Token::Pipe if depth == 0 => {
                commands.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    commands.push(&tokens[start..]);
    Ok(commands)
}

/// How many tokens stand before the parenthesis that closes.
fn closing(tokens: &[Token], line: usize) -> Result<usize, TemplateError> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close if depth == 0 => return Ok(at),
            Token::Close => depth -= 1,
            _ => {}
        }
    }
    syntax(line, "unclosed left paren")
}

fn number(text: &str, line: usize) -> Result<Base, TemplateError> {
    let plain = text.replace('_', "");
    let unsigned = plain.trim_start_matches(['+', '-']);
    let hex = unsigned
        .strip_prefix("0x")
        .or_else(|| unsigned.strip_prefix("0X"));
    let magnitude = match hex {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => unsigned.parse().ok(),
    };
    if let Some(magnitude) = magnitude {
        return Ok(Base::Int(if plain.starts_with('-') {
            -magnitude
        } else {
            magnitude
        }));
    }
    match plain.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(Base::Float(float)),
        _ => syntax(line, format!("bad number syntax: {text:?}")),
    }
}
