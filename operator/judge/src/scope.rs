//! Confines users' queries to their namespace: every selector gets a matcher for the namespace, and
//! the matchers of the administrator, in the parsed query instead of its text. A query is not sent
//! if it cannot be parsed, or if its rewritten text does not parse to the same query.

use promql_parser::label::{MatchOp, Matcher, Matchers};
use promql_parser::parser::{self, Expr, VectorSelector};

/// The label with the namespace of the pod of a series, as set by Prometheus' service discovery.
const NAMESPACE: &str = "namespace";
/// Maximum number of characters that begin a nested expression. No query needs more, and deeper
/// trees could overflow the stack.
const MAX_NESTED: usize = 256;
/// Functions that read series which no selector of the query names.
const UNCONFINED_FUNCTIONS: [&str; 1] = ["info"];

/// Rewrites a query so that it reads only series of `namespace` that also match `matchers`.
///
/// # Errors
/// The reason why the query cannot be confined, as a message for users.
pub fn confine_to_namespace(
    query: &str,
    namespace: &str,
    matchers: &[String],
) -> Result<String, String> {
    let mut all = vec![Matcher::new(MatchOp::Equal, NAMESPACE, namespace)];
    for matcher in matchers {
        all.extend(parse_selector(&format!("x{{{matcher}}}"))?.matchers.matchers);
    }
    let mut parsed = parse_query(query)?;
    confine_selectors(&mut parsed, &all)?;
    let text = parsed.to_string();
    // The rewritten query is sent as text, so the text must parse to the same query, with every
    // selector confined.
    let kept = parser::parse(&text)
        .is_ok_and(|mut again| again.to_string() == text && is_confined(&mut again, &all));
    if kept {
        Ok(text)
    } else {
        Err("cannot be kept within its namespace; write it more plainly".to_owned())
    }
}

fn is_confined(query: &mut Expr, all: &[Matcher]) -> bool {
    let mut kept = |matchers: &mut Matchers| {
        let has = |wanted: &Matcher| {
            matchers.matchers.iter().any(|it| it.to_string() == wanted.to_string())
        };
        if matchers.or_matchers.is_empty() && all.iter().all(has) {
            Ok(())
        } else {
            Err(String::new())
        }
    };
    visit_selectors(query, &mut kept).is_ok()
}

/// Checks that a query with its variables is valid PromQL that can be confined.
///
/// # Errors
/// The error in the query.
pub fn check_query(query: &str) -> Result<(), String> {
    let plain = query.replace("{{window}}", "1s");
    let plain = ["{{candidate}}", "{{stable}}", "{{modeldeployment}}", "{{namespace}}"]
        .into_iter()
        .fold(plain, |query, variable| query.replace(variable, "x"));
    confine_to_namespace(&plain, "x", &[]).map(drop)
}

fn parse_query(query: &str) -> Result<Expr, String> {
    let nested = query
        .bytes()
        .filter(|byte| matches!(byte, b'(' | b'-' | b'+' | b'^' | b'*' | b'/'))
        .count();
    if nested > MAX_NESTED {
        return Err(format!("has more than {MAX_NESTED} parentheses and operators"));
    }
    parser::parse(query).map_err(|why| format!("is no PromQL: {why}"))
}

fn parse_selector(text: &str) -> Result<VectorSelector, String> {
    match parse_query(text)? {
        Expr::VectorSelector(selector) => Ok(selector),
        _ => Err(format!("{text} is no selector")),
    }
}

fn confine_selectors(query: &mut Expr, all: &[Matcher]) -> Result<(), String> {
    visit_selectors(query, &mut |matchers| restrict_matchers(matchers, all))
}

/// Calls `visit` for the matchers of every selector.
fn visit_selectors(
    query: &mut Expr,
    visit: &mut impl FnMut(&mut Matchers) -> Result<(), String>,
) -> Result<(), String> {
    match query {
        Expr::Aggregate(it) => {
            visit_selectors(&mut it.expr, visit)?;
            it.param.as_mut().map_or(Ok(()), |param| visit_selectors(param, visit))
        }
        Expr::Unary(it) => visit_selectors(&mut it.expr, visit),
        Expr::Binary(it) => {
            visit_selectors(&mut it.lhs, visit)?;
            visit_selectors(&mut it.rhs, visit)
        }
        Expr::Paren(it) => visit_selectors(&mut it.expr, visit),
        Expr::Subquery(it) => visit_selectors(&mut it.expr, visit),
        Expr::VectorSelector(it) => visit(&mut it.matchers),
        Expr::MatrixSelector(it) => visit(&mut it.vs.matchers),
        Expr::Call(it) if UNCONFINED_FUNCTIONS.contains(&it.func.name) => Err(format!(
            "uses the function {}, which reads series that the query does not name",
            it.func.name
        )),
        Expr::Call(it) => {
            it.args.args.iter_mut().try_for_each(|argument| visit_selectors(argument, visit))
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(()),
        Expr::Extension(_) => Err("has a part that is not known".to_owned()),
    }
}

fn restrict_matchers(matchers: &mut Matchers, all: &[Matcher]) -> Result<(), String> {
    if !matchers.or_matchers.is_empty() {
        return Err("has `or` between matchers, which Prometheus does not know".to_owned());
    }
    matchers.matchers.extend(all.iter().cloned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_selector_is_kept_within_the_namespace() {
        for (query, expected) in [
            ("up", r#"up{namespace="shop"}"#),
            (
                r#"sum(rate(a{x="1"}[5m])) / b"#,
                r#"sum(rate(a{x="1",namespace="shop"}[5m])) / b{namespace="shop"}"#,
            ),
            (r#"{__name__=~".+"}"#, r#"{__name__=~".+",namespace="shop"}"#),
            (
                "max_over_time(rate(x[1m])[5m:1m])",
                r#"max_over_time(rate(x{namespace="shop"}[1m])[5m:1m])"#,
            ),
            (
                "topk(scalar(k), -(a or b))",
                r#"topk(scalar(k{namespace="shop"}), -(a{namespace="shop"} or b{namespace="shop"}))"#,
            ),
            ("a offset 5m", r#"a{namespace="shop"} offset 5m"#),
            ("vector(1) + 2", "vector(1) + 2"),
            // A query for another namespace also gets the matcher of its own: no series matches
            // both.
            (r#"up{namespace="other"}"#, r#"up{namespace="other",namespace="shop"}"#),
        ] {
            let plain = |text: &str| parser::parse(text).map(|it| it.to_string());
            assert_eq!(confine_to_namespace(query, "shop", &[]), plain(expected), "{query}");
        }
        let matchers = [r#"cluster="eu-1""#.to_owned(), r#"env!="test""#.to_owned()];
        let all = confine_to_namespace("a", "shop", &matchers).unwrap();
        for matcher in [r#"namespace="shop""#, r#"cluster="eu-1""#, r#"env!="test""#] {
            assert!(all.contains(matcher), "{all}");
        }
    }

    #[test]
    fn values_of_labels_do_not_break_out() {
        for value in [r#"\"} or up{x=\""#, r"\\", r#"\\\"} or up"#, "`", "{}", "\\n"] {
            let query = format!(r#"a{{x="{value}"}}"#);
            let Ok(text) = confine_to_namespace(&query, "shop", &[]) else { continue };
            let Ok(Expr::VectorSelector(selector)) = parser::parse(&text) else {
                panic!("{query} became {text}")
            };
            assert!(
                selector
                    .matchers
                    .matchers
                    .iter()
                    .any(|it| it.name == NAMESPACE && it.value == "shop"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let deep = "(".repeat(2000) + "a" + &")".repeat(2000);
        let many = "-".repeat(3000) + "a";
        for query in [
            "",
            "sum(",
            "a b",
            r#"a{x="1" or y="2"}"#,
            "info(a)",
            "up; drop",
            deep.as_str(),
            many.as_str(),
        ] {
            assert!(confine_to_namespace(query, "shop", &[]).is_err(), "{query:.40}");
        }
    }

    #[test]
    fn variables_are_no_mistakes() {
        assert_eq!(
            check_query(
                r#"sum(increase(a{revision="{{candidate}}",m="{{modeldeployment}}"}[{{window}}]))"#
            ),
            Ok(())
        );
        assert!(check_query("sum(increase(a[{{windows}}]))").is_err());
    }
}
