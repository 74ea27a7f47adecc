//! Damaged configurations: whatever is done to a file, reading it gives a configuration or
//! problems with positions, and never a panic.

#![allow(clippy::unwrap_used)]

use tailwater_config::{Errors, MemoryEnvironment, Source, load, parse, to_json, to_yaml};

const SAMPLES: [&str; 3] = [
    include_str!("samples/files_to_loki.yaml"),
    include_str!("samples/connectors.yaml"),
    include_str!("samples/statements.yaml"),
];

/// Mutations of each kind and sample.
const ROUNDS: u64 = 20;

/// A small seeded generator (SplitMix64, by Steele, Lea and Flood), so that failures repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n.max(1)
    }
}

type Mutation = fn(&str, &mut Random) -> Vec<u8>;

const MUTATIONS: &[(&str, Mutation)] = &[
    ("delete a line", |text, random| {
        edit_lines(text, random, |lines, i, _| {
            lines.remove(i);
        })
    }),
    ("repeat a line", |text, random| {
        edit_lines(text, random, |lines, i, _| {
            lines.insert(i, lines[i].clone());
        })
    }),
    ("move a line", |text, random| {
        edit_lines(text, random, |lines, i, random| {
            let line = lines.remove(i);
            lines.insert(random.below(lines.len()), line);
        })
    }),
    ("indent a line", |text, random| {
        edit_lines(text, random, |lines, i, random| {
            let by = ["  ", " ", "\t", "    "][random.below(4)];
            lines[i].insert_str(0, by);
        })
    }),
    ("outdent a line", |text, random| {
        edit_lines(text, random, |lines, i, _| {
            lines[i] = lines[i].trim_start().to_owned();
        })
    }),
    ("another type of value", |text, random| {
        edit_lines(text, random, |lines, i, random| {
            let values = [
                " 1",
                " [x, 2]",
                " {a: b}",
                "",
                " ~",
                " 1.5",
                " 'x'",
                " ${NONE}",
                " ${env:1}",
                " *none",
                " &a x",
                " |",
                " !!int x",
                " ${yaml:[1,{a: }]}",
                " \"\\x\"",
            ];
            if let Some(colon) = lines[i].find(": ") {
                lines[i].truncate(colon + 1);
                lines[i].push_str(values[random.below(values.len())]);
            }
        })
    }),
    ("a misspelt key", |text, random| {
        edit_lines(text, random, |lines, i, random| {
            let line: Vec<char> = lines[i].chars().collect();
            let at = random.below(line.len());
            lines[i] = line
                .iter()
                .enumerate()
                .filter(|(j, _)| *j != at)
                .map(|(_, c)| c)
                .collect();
        })
    }),
    ("random characters", |text, random| {
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..1 + random.below(4) {
            let at = random.below(chars.len());
            let odd = [
                '{', '}', '[', ']', ':', '-', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@',
                '`', '$', '\t', '\n', '\r', '\0', '\u{feff}', '\u{2028}', '\u{e9}', ',', '?',
            ];
            chars[at] = odd[random.below(odd.len())];
        }
        chars.into_iter().collect::<String>().into_bytes()
    }),
    ("random bytes", |text, random| {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.below(256) as u8;
        }
        bytes
    }),
    ("cut short", |text, random| {
        text.as_bytes()[..random.below(text.len())].to_vec()
    }),
];

fn edit_lines(
    text: &str,
    random: &mut Random,
    edit: impl Fn(&mut Vec<String>, usize, &mut Random),
) -> Vec<u8> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let i = random.below(lines.len());
    edit(&mut lines, i, random);
    lines.join("\n").into_bytes()
}

/// Loads the bytes as a file. True if they are a configuration; else every problem has been
/// checked to say where it is.
fn loads(bytes: Vec<u8>, what: &str) -> bool {
    let shown = String::from_utf8_lossy(&bytes).into_owned();
    let env = MemoryEnvironment::new()
        .with_variable("NODE", "n")
        .with_variable("TOKEN", "t")
        .with_file("c.yaml", bytes);
    let mut errors = Errors::new();
    let loaded = load(&[Source::File("c.yaml".into())], &[], &env, &mut errors);
    match errors.into_result(loaded) {
        Ok(loaded) => {
            let loaded = loaded.expect("no problems");
            assert!(!to_json(&loaded.root).is_empty());
            let text = to_yaml(&loaded.root);
            assert!(parse(&text, "again").is_ok(), "{what}: {text}");
            true
        }
        Err(errors) => {
            assert!(
                !errors.is_empty(),
                "{what}: refused without a reason\n{shown}"
            );
            let lines = shown.lines().count() as u32 + 1;
            for error in &errors {
                let span = error
                    .span
                    .as_ref()
                    .unwrap_or_else(|| panic!("{what}: {error}"));
                assert_eq!(span.source.as_ref(), "c.yaml", "{what}: {error}");
                assert!(span.line >= 1 && span.column >= 1, "{what}: {error}");
                assert!(span.line <= lines + 1, "{what}: {error}\n{shown}");
                assert!(!error.to_string().contains('\n'), "{what}: {error}");
            }
            false
        }
    }
}

/// Guarantee: no damage makes reading panic or fail without saying where.
#[test]
fn damaged_configurations_give_problems_with_positions_and_never_a_panic() {
    let (mut valid, mut refused) = (0, 0);
    for (s, sample) in SAMPLES.into_iter().enumerate() {
        assert!(loads(sample.into(), "unchanged"), "sample {s}");
        for (m, (name, mutate)) in MUTATIONS.iter().enumerate() {
            for round in 0..ROUNDS {
                let seed = (s as u64) << 32 | (m as u64) << 16 | round;
                let what = format!("{name}, sample {s}, seed {seed}");
                match loads(mutate(sample, &mut Random(seed)), &what) {
                    true => valid += 1,
                    false => refused += 1,
                }
            }
        }
    }
    assert_eq!(
        valid + refused,
        SAMPLES.len() as u64 * MUTATIONS.len() as u64 * ROUNDS
    );
    assert!(
        refused > 200,
        "only {refused} of the mutations were refused"
    );
    assert!(
        valid > 0,
        "no mutation left a configuration: the mutations are too coarse"
    );
}

/// Guarantee: a file may also be garbage.
#[test]
fn garbage_gives_problems_with_positions_and_never_a_panic() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let len = random.below(200);
        let alphabet = b"ab:- \n\t{}[],&*!|>'\"%@`$#?~0.\xff\xc3\xa9";
        let bytes = (0..len)
            .map(|_| alphabet[random.below(alphabet.len())])
            .collect();
        loads(bytes, &format!("garbage, seed {seed}"));
    }
}
