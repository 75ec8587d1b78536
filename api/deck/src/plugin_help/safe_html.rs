//! The little HTML that help texts may hold, made safe: plugins elsewhere write them, too.
//!
//! A list of a dozen tags needs no HTML parser: whatever is not exactly one of them is text.

use std::fmt::Write as _;

/// Tags that may stand in a text, without attributes.
const TAGS: [&str; 12] = [
    "b", "code", "em", "i", "li", "ol", "p", "pre", "strong", "ul", "h3", "h4",
];

/// The text with everything escaped but those tags, line breaks and links to http and https; every tag is closed.
pub(super) fn safe_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open: Vec<&'static str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['<', '>', '"', '\'']) {
        out.push_str(&escaped(&rest[..at]));
        rest = &rest[at..];
        let end = rest.strip_prefix('<').and_then(|rest| rest.find('>'));
        let tag = end.and_then(|end| read(&rest[1..=end]));
        match (tag, end) {
            (Some(Tag::Break), Some(end)) => {
                out.push_str("<br>");
                rest = &rest[end + 2..];
            }
            (Some(Tag::Open(name, link)), Some(end)) => {
                match link {
                    None => out.push_str(&format!("<{name}>")),
                    Some(to) => {
                        // Writing to a text does not fail.
                        let _ = write!(out, "<a href=\"{}\" rel=\"noreferrer\">", escaped(to));
                    }
                }
                open.push(name);
                rest = &rest[end + 2..];
            }
            (Some(Tag::Close(name)), Some(end)) => {
                // One that closes nothing is left out, as browsers do.
                if open.last() == Some(&name) {
                    open.pop();
                    let _ = write!(out, "</{name}>");
                }
                rest = &rest[end + 2..];
            }
            _ => {
                out.push_str(&escaped(&rest[..1]));
                rest = &rest[1..];
            }
        }
    }
    out.push_str(&escaped(rest));
    for name in open.into_iter().rev() {
        let _ = write!(out, "</{name}>");
    }
    out
}

enum Tag<'a> {
    Break,
    /// With where it links to.
    Open(&'static str, Option<&'a str>),
    Close(&'static str),
}

/// What stands between `<` and `>`.
fn read(inside: &str) -> Option<Tag<'_>> {
    let inside = inside.trim_end_matches('>').trim();
    let known = |name: &str| TAGS.into_iter().find(|tag| tag.eq_ignore_ascii_case(name));
    if let Some(name) = inside.strip_prefix('/') {
        let name = name.trim();
        return match name.eq_ignore_ascii_case("a") {
            true => Some(Tag::Close("a")),
            false => known(name).map(Tag::Close),
        };
    }
    let bare = inside.trim_end_matches('/').trim_end();
    if bare.eq_ignore_ascii_case("br") {
        return Some(Tag::Break);
    }
    if let Some(name) = known(inside) {
        return Some(Tag::Open(name, None));
    }
    let to = inside.strip_prefix("a href=")?;
    let to = ['"', '\'']
        .into_iter()
        .find_map(|quote| to.strip_prefix(quote)?.strip_suffix(quote))?;
    let is_web = to.starts_with("https://") || to.starts_with("http://");
    let is_plain = !to.contains(['"', '\'', '<']) && !to.contains(char::is_whitespace);
    (is_web && is_plain).then_some(Tag::Open("a", Some(to)))
}

/// Entities that stand in the text stay what they are.
fn escaped(text: &str) -> String {
    text.replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_tags_stay_and_everything_else_is_text() {
        for (text, safe) in [
            ("plain", "plain"),
            ("a<br>b<br/>c", "a<br>b<br>c"),
            ("<ul><li>x</li></ul>", "<ul><li>x</li></ul>"),
            (
                "<a href=\"https://x/?a=1&b\">it</a>",
                "<a href=\"https://x/?a=1&b\" rel=\"noreferrer\">it</a>",
            ),
            (
                "<a href='http://x'>it</a>",
                "<a href=\"http://x\" rel=\"noreferrer\">it</a>",
            ),
            ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
            (
                "<a href=\"javascript:x\">it</a>",
                "&lt;a href=&quot;javascript:x&quot;&gt;it",
            ),
            ("<b onclick=\"x\">", "&lt;b onclick=&quot;x&quot;&gt;"),
            ("<b>open", "<b>open</b>"),
            ("</b>closed", "closed"),
            ("a < b & c > d's", "a &lt; b & c &gt; d&#39;s"),
            ("<CODE>x</code>", "<code>x</code>"),
            (
                "<a href=\"https://x\" onclick=\"y\">",
                "&lt;a href=&quot;https://x&quot; onclick=&quot;y&quot;&gt;",
            ),
            ("<", "&lt;"),
        ] {
            assert_eq!(safe_html(text), safe, "{text}");
        }
    }
}
