use proptest::prelude::*;

use super::*;
use crate::fuzzing::statements;

/// Pieces that statements are made of.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "set(",
        "attributes",
        "[\"a\"]",
        "[\"l\"]",
        "[0]",
        "body",
        "resource.",
        "log.",
        "cache",
        ",",
        ")",
        "(",
        "[",
        "]",
        "{",
        "}",
        ":",
        "\"x\"",
        "1",
        "-",
        "+",
        "*",
        "/",
        "1.5",
        "0x0a",
        "nil",
        "true",
        "where",
        "and",
        "or",
        "not",
        "==",
        "<",
        "=",
        "Concat(",
        "Split(",
        "ParseJSON(",
        "Len(",
        "IsMatch(",
        "Now()",
        "\"(\"",
        "merge_maps(",
        "\"upsert\"",
        "replace_pattern(",
        "flatten(",
        "truncate_all(",
        "append(",
        " ",
        "\n",
        "\"",
        "\\",
        "é",
        "SHA256",
        "severity_number",
        "UUID()",
        "XXH3(",
        "ParseXML(",
        "ParseSimplifiedXML(",
        "ParseCSV(",
        "ParseSeverity(",
        "ExtractGrokPatterns(",
        "\"%{WORD:a} %{NUMBER:b:int}\"",
        "\"<a b='c'>d<e/></a>\"",
        "copy_metric(",
        "scale_metric(",
        "span.",
        "datapoint.",
        "name",
        "time",
    ];
    prop_oneof![
        4 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ]
}

proptest! {
    /// No text makes reading or carrying out panic.
    #[test]
    fn any_text_is_read(pieces in prop::collection::vec(piece(), 0..24)) {
        statements(pieces.concat().as_bytes());
    }

    /// A string literal means what it was made of.
    #[test]
    fn literals_come_back(text in "\\PC{0,20}") {
        let quoted = format!("{text:?}");
        // Rust writes other characters as \u{..}, which Go does not know.
        prop_assume!(!quoted.contains("\\u{"));
        let got = eval(&quoted).unwrap();
        prop_assert_eq!(shown(&got), shown(&Val::text(text)));
    }

    /// Comparing two integers is comparing them.
    #[test]
    fn integers_compare(a: i64, b: i64) {
        prop_assume!(a != i64::MIN && b != i64::MIN);
        prop_assert_eq!(holds(&format!("{a} < {b}")), Ok(a < b));
        prop_assert_eq!(holds(&format!("{a} == {b}")), Ok(a == b));
        prop_assert_eq!(holds(&format!("{a} >= {b}")), Ok(a >= b));
    }

    /// A glob is what its pattern looks like.
    #[test]
    fn globs_match_their_own_text(text in "[a-z/.+()|$^]{0,12}", tail in "[a-z/]{0,5}") {
        let pattern = crate::functions::glob(&format!("{text}*")).unwrap();
        let whole = format!("{text}{tail}");
        prop_assert!(pattern.is_match(whole.as_bytes()));
    }
}
