//! Several configurations made one.

use std::collections::HashMap;

use crate::node::{Node, NodeValue};

/// Lays a later tree over an earlier one: maps are merged key by key, everything else replaces
/// what was there. So a null deletes an earlier map, and an empty map does not. Every value keeps
/// the position it came from; keys keep the order of the earlier tree, new ones follow.
pub fn merge(earlier: Node, later: Node) -> Node {
    let Node {
        value,
        span,
        text,
        expanded,
    } = later;
    match (earlier.value, value) {
        (NodeValue::Map(mut base), NodeValue::Map(over)) => {
            let index = base
                .iter()
                .enumerate()
                .map(|(i, (k, _))| (k.text.clone(), i));
            let index: HashMap<String, usize> = index.collect();
            for (key, node) in over {
                match index.get(&key.text).map(|i| &mut base[*i]) {
                    Some((at, slot)) => {
                        let was = std::mem::replace(slot, Node::new(NodeValue::Null, span.clone()));
                        *slot = merge(was, node);
                        *at = key;
                    }
                    None => base.push((key, node)),
                }
            }
            Node {
                value: NodeValue::Map(base),
                span,
                text: None,
                expanded: false,
            }
        }
        (_, value) => Node {
            value,
            span,
            text,
            expanded,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn check(earlier: &str, later: &str, expect: &str) {
        let merged = merge(parse(earlier, "a").unwrap(), parse(later, "b").unwrap());
        let expect = parse(expect, "expect").unwrap();
        assert!(
            merged.same_value(&expect),
            "{earlier} + {later} = {merged:?}"
        );
    }

    #[test]
    fn maps_merge_and_everything_else_replaces() {
        check("{a: 1, b: 2}", "{b: 3, c: 4}", "{a: 1, b: 3, c: 4}");
        check("{a: {x: 1, y: 2}}", "{a: {y: 3}}", "{a: {x: 1, y: 3}}");
        check("{a: [1, 2]}", "{a: [3]}", "{a: [3]}");
        check("{a: 1}", "{a: {x: 1}}", "{a: {x: 1}}");
        check("{a: {x: 1}}", "{a: 1}", "{a: 1}");
    }

    #[test]
    fn a_later_null_deletes_a_map_and_an_empty_map_does_not() {
        check("{a: {x: 1}}", "{a: }", "{a: null}");
        check("{a: {x: 1}}", "{a: {}}", "{a: {x: 1}}");
        check("{a: }", "{a: {x: 1}}", "{a: {x: 1}}");
    }

    #[test]
    fn positions_point_to_the_source_a_value_came_from() {
        let merged = merge(
            parse("a: {x: 1, y: 2}", "one").unwrap(),
            parse("a: {y: 3}", "two").unwrap(),
        );
        assert_eq!(merged.at("a::x").unwrap().span.to_string(), "one:1:8");
        assert_eq!(merged.at("a::y").unwrap().span.to_string(), "two:1:8");
    }
}
