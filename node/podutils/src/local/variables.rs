//! A container's variables and references to them, as Kubernetes resolves them.

use std::collections::BTreeMap;

use crate::decorate::Container;

/// The container's own variables, each seeing those before it, then the generated ones over them.
pub(super) fn of_container(
    container: &Container,
    generated: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for var in &container.env {
        let value = expand(&var.value, &env);
        env.insert(var.name.clone(), value);
    }
    env.extend(generated.clone());
    env
}

/// Replaces `$(NAME)` where the name is known; `$$` is one `$`.
pub(super) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
            continue;
        }
        let reference = after.strip_prefix('(').and_then(|r| r.split_once(')'));
        match reference.and_then(|(name, tail)| Some((env.get(name)?, tail))) {
            Some((value, tail)) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decorate::EnvVar;

    #[test]
    fn references() {
        let env = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ]);
        for (text, want) in [
            ("x$(A)y$(B)", "x1y$(A)"),
            ("$$(A) $(NONE) $A ${A} $", "$(A) $(NONE) $A ${A} $"),
            ("$(A", "$(A"),
            ("é$(A)", "é1"),
        ] {
            assert_eq!(expand(text, &env), want, "{text}");
        }
    }

    #[test]
    fn later_variables_see_earlier_ones_and_generated_ones_win() {
        let var = |name: &str, value: &str| EnvVar {
            name: name.into(),
            value: value.into(),
            value_from: None,
        };
        let container = Container {
            env: vec![
                var("LATE", "$(A)"),
                var("A", "a"),
                var("SEES", "$(A)b"),
                var("CI", "no"),
            ],
            ..Container::default()
        };
        let env = of_container(
            &container,
            &BTreeMap::from([("CI".to_owned(), "true".to_owned())]),
        );
        let want = [("A", "a"), ("CI", "true"), ("LATE", "$(A)"), ("SEES", "ab")];
        assert_eq!(env, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }
}
